"""A run that was killed, interrupted or stopped ends, resumed, with the same weights bit for bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import killed
import pytest
import torch
from fake import FakeTask
from safetensors.torch import load_file
from torch import Tensor, nn

from lianzhi import train
from lianzhi.errors import ArtifactError, RecipeError
from lianzhi.tasks import Batch
from lianzhi.train import precision
from lianzhi.train.checkpoint import read


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return killed.run(tmp_path_factory.mktemp("undisturbed"), resume=False)
    finally:
        torch.set_num_threads(threads)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, killed.__file__, str(folder)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True
    )


def kill_and_resume(folder: Path, times: int) -> int:
    """Kill a run with SIGKILL at random moments, then let it finish. Return how often it was still running."""
    chance = random.Random(times)
    hits = 0
    for _ in range(times):
        with start(folder) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(chance.uniform(0.0, 0.6))
            hits += process.poll() is None
            process.kill()
            process.wait()
    with start(folder) as process:
        process.wait()
    assert process.returncode == 0
    return hits


def test_killed_twice_at_random_moments(tmp_path: Path, undisturbed: dict[str, Tensor]) -> None:
    assert kill_and_resume(tmp_path, 2) >= 1
    same(load_file(tmp_path / "final.safetensors"), undisturbed)


@pytest.mark.slow
def test_killed_ten_times_at_random_moments(tmp_path: Path, undisturbed: dict[str, Tensor]) -> None:
    assert kill_and_resume(tmp_path, 10) >= 3
    same(load_file(tmp_path / "final.safetensors"), undisturbed)


class Stop(Exception):
    """Stands for the death of a process at a chosen step."""


@pytest.mark.parametrize("moment", [0, 3, 5, 6, 17])
@pytest.mark.parametrize("keep", ["best", "last"])
@pytest.mark.parametrize("optimizer", ["sgd", "lamb"])
def test_stopped_at_a_step(tmp_path: Path, moment: int, keep: str, optimizer: str) -> None:
    options = train.TrainOptions(
        epochs=4,
        batch_size=10,
        keep=keep,
        optimizer=optimizer,
        lr=0.02,
        save_every=1e-9 if moment % 2 else None,
    )
    task = FakeTask(noise=3.0)

    def go(folder: Path, *, resume: bool, stop_at: int | None) -> dict[str, Tensor]:
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 3))
        plain = train.default_step(task, options)
        count = [0]

        def step(model: nn.Module, batch: object) -> dict[str, object]:
            if count[0] == stop_at:
                raise Stop
            count[0] += 1
            return plain(model, batch)

        train.fit(model, task, options, step=step, directory=folder, resume=resume, progress=False)
        return dict(model.state_dict())

    expected = go(tmp_path / "whole", resume=False, stop_at=None)
    with pytest.raises(Stop):
        go(tmp_path / "broken", resume=False, stop_at=moment)
    torch.rand(7)  # what else the program draws does not matter
    same(go(tmp_path / "broken", resume=True, stop_at=None), expected)
    same(go(tmp_path / "broken", resume=True, stop_at=0), expected)  # finished: nothing is trained


@pytest.mark.parametrize("file", ["last", "best"])
def test_killed_between_the_two_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    """Neither file alone is believed about which epoch is best."""
    from lianzhi.train import saved

    task, options = FakeTask(noise=3.0), train.TrainOptions(epochs=5, batch_size=10)

    def go(folder: Path, *, resume: bool) -> dict[str, Tensor]:
        torch.manual_seed(1)
        model = nn.Linear(6, 3)
        train.fit(model, task, options, directory=folder, resume=resume, progress=False)
        return dict(model.state_dict())

    expected = go(tmp_path / "whole", resume=False)
    real = saved.write
    for death in range(1, 5):
        folder = tmp_path / f"broken-{death}"
        writes = [0]

        def write(path: Path, checkpoint: object, death: int = death, writes: list[int] = writes) -> None:
            writes[0] += path.stem == file
            if writes[0] == death:
                raise Stop
            real(path, checkpoint)

        monkeypatch.setattr(saved, "write", write)
        try:
            go(folder, resume=False)
        except Stop:
            monkeypatch.setattr(saved, "write", real)
        same(go(folder, resume=True), expected)


@pytest.mark.parametrize("moment", ["step", "evaluation"])
def test_interrupt_saves_first(tmp_path: Path, moment: str) -> None:
    task, options = FakeTask(), train.TrainOptions(epochs=3, batch_size=10, save_every=None)

    def go(folder: Path, *, interrupted: bool, resume: bool = False) -> dict[str, Tensor]:
        torch.manual_seed(1)
        model = nn.Linear(6, 3)
        steps = [0]

        def after_step(model: nn.Module) -> None:
            steps[0] += 1
            if interrupted and moment == "step" and steps[0] == 7:
                os.kill(os.getpid(), signal.SIGINT)

        def evaluate(model: nn.Module) -> float:
            if interrupted and moment == "evaluation" and steps[0] == 10:
                os.kill(os.getpid(), signal.SIGINT)
            return float(model(task.parts["validation"][0]).mean())

        train.fit(
            model,
            task,
            options,
            directory=folder,
            resume=resume,
            progress=False,
            after_step=after_step,
            evaluate=evaluate,
        )
        return dict(model.state_dict())

    expected = go(tmp_path / "whole", interrupted=False)
    outside = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path / "broken", interrupted=True)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, outside)
    saved = read(tmp_path / "broken" / "last.safetensors")
    assert saved is not None
    assert saved.values["position"]["history"]["steps"] in {7, 8, 10}
    same(go(tmp_path / "broken", interrupted=False, resume=True), expected)


@pytest.mark.parametrize("quicker", [False, True])
def test_a_run_goes_on_in_the_precision_that_it_began_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quicker: bool
) -> None:
    """Whatever the processor's clock says the second time."""
    options = train.TrainOptions(epochs=2, batch_size=10, precision="auto", save_every=1e-9)
    task, kinds = FakeTask(), []

    def step(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        if len(kinds) == 4:
            raise Stop
        kinds.append(torch.is_autocast_enabled("cpu"))
        return {"loss": nn.functional.cross_entropy(model(batch.inputs), batch.labels)}

    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
    monkeypatch.setattr(precision, "gains", lambda threads: quicker)
    rest = {"step": step, "directory": tmp_path, "progress": False}
    with pytest.raises(Stop):
        train.fit(nn.Linear(6, 3), task, options, **rest)
    monkeypatch.setattr(precision, "gains", lambda threads: not quicker)
    kinds.append(quicker)
    train.fit(nn.Linear(6, 3), task, options, resume=True, **rest)
    assert len(kinds) > 6
    assert set(kinds) == {quicker}


def test_an_earlier_run_is_not_overwritten_and_options_must_agree(tmp_path: Path) -> None:
    task, options = FakeTask(), train.TrainOptions(epochs=1, batch_size=10)
    train.fit(nn.Linear(6, 3), task, options, directory=tmp_path, progress=False)
    with pytest.raises(ArtifactError, match="holds the checkpoint of an earlier training"):
        train.fit(nn.Linear(6, 3), task, options, directory=tmp_path, progress=False)
    changed = train.TrainOptions(epochs=1, batch_size=10, lr=0.5)
    with pytest.raises(RecipeError, match=r"'lr' was 0.05 when the training began and is 0.5 now"):
        train.fit(nn.Linear(6, 3), task, changed, directory=tmp_path, resume=True, progress=False)
    with pytest.raises(RecipeError, match=r"'seed' was 0"):
        train.fit(nn.Linear(6, 3), task, options, directory=tmp_path, resume=True, seed=1, progress=False)
    with pytest.raises(RecipeError, match="'task' was"):
        train.fit(
            nn.Linear(6, 3), FakeTask(samples=30), options, directory=tmp_path, resume=True, progress=False
        )


def test_the_callers_random_numbers_are_left_alone() -> None:
    model = nn.Linear(6, 3)
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    train.fit(model, FakeTask(), train.TrainOptions(epochs=1), progress=False)
    assert torch.equal(torch.rand(3), expected)
