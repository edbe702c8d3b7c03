"""The work folder: what resumes, what is refused."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from lianzhi.errors import ArtifactError, LianzhiError, RecipeError
from lianzhi.graph import fingerprint
from lianzhi.pipeline.store import Store, difference


def test_fingerprint_sees_values_names_and_shapes():
    model = torch.nn.Linear(3, 2)
    before = fingerprint(model)
    assert fingerprint(model) == before
    with torch.no_grad():
        model.bias[1] += 1e-3
    assert fingerprint(model) != before


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ({"seed": 0}, {"seed": 1}, "seed"),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, "a.b.1"),
        ({"a": [1]}, {"a": [1, 2]}, "a"),
        ({"a": 1}, {"a": 1, "b": 2}, "b"),
    ],
)
def test_difference_names_the_key(old, new, named):
    assert difference(old, new).startswith(named)
    assert difference(old, old) is None


def test_threads_may_differ():
    old, new = ({"steps": [{"options": {"general": {"data": "c", **more}}}]} for more in ({}, {"workers": 8}))
    assert difference(old, new) is None
    assert difference(new, old) is None


def test_resume_with_a_changed_recipe_is_refused(tmp_path):
    store = Store(tmp_path / "out")
    assert store.begin({"recipe": {"seed": 0}}, resume=False) is False
    assert store.begin({"recipe": {"seed": 0}}, resume=True) is True
    with pytest.raises(RecipeError, match=r"recipe\.seed"):
        store.begin({"recipe": {"seed": 1}}, resume=True)


def test_a_folder_that_is_not_empty_is_refused_and_untouched(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    store = Store(tmp_path)
    with pytest.raises(LianzhiError, match="not empty"):
        store.check(resume=False, force=False)
    with pytest.raises(LianzhiError, match="nothing to resume"):
        store.check(resume=True, force=False)
    store.check(resume=False, force=True)
    assert [item.name for item in tmp_path.iterdir()] == ["mine.txt"]


def test_state_round_trip(tmp_path):
    store = Store(tmp_path / "out")
    store.begin({}, resume=False)
    model, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    store.save_state("state", model)
    store.load_state("state", other)
    assert fingerprint(model) == fingerprint(other)


def test_killed_while_the_work_folder_is_removed(tmp_path, monkeypatch):
    store = Store(tmp_path / "out")
    store.begin({}, resume=False)
    (store.output / "report.json").write_text("{}")

    def killed(path, **options):
        if path.exists():
            (path / "run.json").unlink()
            raise KeyboardInterrupt

    monkeypatch.setattr("lianzhi.pipeline.store.shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        store.clean()
    store.check(resume=True, force=False)
    assert store.finished()


def test_a_folder_that_another_run_writes_to_is_refused(tmp_path):
    first, second = Store(tmp_path / "out"), Store(tmp_path / "out")
    first.begin({"recipe": 1}, resume=False)
    for resume in (True, False):
        with pytest.raises(ArtifactError, match=rf"another run is writing here \(process {os.getpid()}\)"):
            second.begin({"recipe": 1}, resume=resume)
    assert (tmp_path / "out" / ".work" / "run.json").is_file()
    first.lock.release()
    assert second.begin({"recipe": 1}, resume=True)
    second.lock.release()


def test_a_killed_process_leaves_no_lock(tmp_path):
    script = (
        "import sys, os, signal; from pathlib import Path; from lianzhi.pipeline.store import Store\n"
        "Store(Path(sys.argv[1])).begin({'recipe': 1}, resume=False)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "out")], check=False)
    assert done.returncode == -signal.SIGKILL
    store = Store(tmp_path / "out")
    assert store.begin({"recipe": 1}, resume=True)
    store.lock.release()


def test_killed_before_the_run_was_written_down(tmp_path):
    store = Store(tmp_path / "out")
    (store.work).mkdir(parents=True)
    (store.work / "lock").write_text("1")
    store.check(resume=True, force=False)
    assert store.begin({"recipe": 1}, resume=True) is False
    store.lock.release()


def test_a_stopped_run_is_named_as_such(tmp_path):
    store = Store(tmp_path / "out")
    store.begin({"recipe": 1}, resume=False)
    with pytest.raises(ArtifactError, match=r"holds a run that was stopped.*--resume"):
        store.check(resume=False, force=False)
    store.lock.release()


@pytest.mark.parametrize("resume", [True, False])
def test_a_file_is_no_folder(tmp_path, resume):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtifactError, match="is a file"):
        Store(tmp_path / "file").check(resume=resume, force=True)


def test_a_number_that_json_has_not_is_null(tmp_path):
    store = Store(tmp_path / "out")
    store.begin({}, resume=False)
    store.save_row("step-0", {"value": float("nan"), "details": {"history": [float("inf"), 0.5]}})
    assert store.row("step-0") == {"value": None, "details": {"history": [None, 0.5]}}
    store.lock.release()
