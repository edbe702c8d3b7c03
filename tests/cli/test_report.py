"""``lianzhi report``: runs in, one page out, and clear words for what is no run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from lianzhi.cli import main
from lianzhi.jobs.report import names

ROW = {"step": "original", "value": 0.9, "bytes": 1000, "parameters": 10}


def written(folder: Path, **content: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(
        json.dumps({"rows": [ROW, ROW | {"step": "prune", "bytes": 500}], **content})
    )
    return folder


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two runs, the working folder."""
    for name in ("half", "third"):
        written(tmp_path / name, task={"name": "cifar10"})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_two_runs_on_one_page(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "half", "third/report.json", "-o", "page.html", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["path"] == "page.html"
    assert [(run["name"], run["source"], run["row"]["bytes"]) for run in said["runs"]] == [
        ("half", "half", 500),
        ("third", "third/report.json", 500),
    ]
    assert said["remarks"] == []
    assert "2 runs" in (runs / "page.html").read_text(encoding="utf-8")


def test_one_run_has_its_own_page(runs: Path) -> None:
    from lianzhi.report import Report

    assert main(["report", "half", "-o", "page.html"]) == 0
    assert (runs / "page.html").read_text(encoding="utf-8") == Report.from_json(runs / "half").to_html()


def test_other_tasks_are_said(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(runs / "text", task={"name": "sst2"})
    assert main(["report", "half", "text", "-o", "page.html"]) == 0
    said = capsys.readouterr()
    assert "half: top-1 on cifar10; text: top-1 on sst2" in said.err
    assert said.out == "page.html: half, text\n"
    assert main(["report", "half", "text", "-o", "page.html", "--force", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["half", "nothing"], "nothing: no such artifact folder or report.json"),
        (["half", "empty"], "empty: holds no report.json; give the folder of a finished run"),
        (["half", "damaged"], "report.json: not JSON"),
        (["half", "newer"], "report.json: has format 2, and this version reads 1; update lianzhi"),
        (["half", "rowless"], "'rows' must be a list"),
        (["half", "pipe"], "pipe: is a pipe or a device"),
        (["half", "./half/report.json"], "./half/report.json: is the same run as half; give each run once"),
        (["half", "link"], "link: is the same run as half"),
    ],
)
def test_what_is_no_run(
    runs: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (runs / "empty").mkdir()
    written(runs / "newer", format=2)
    written(runs / "rowless", rows=[])
    written(runs / "damaged")
    (runs / "damaged" / "report.json").write_text('{"rows": [')
    os.mkfifo(runs / "pipe")
    (runs / "link").symlink_to(runs / "half")
    assert main(["report", *arguments, "-o", "page.html"]) == 2
    assert message in capsys.readouterr().err
    assert not (runs / "page.html").exists()


def test_the_page_is_never_overwritten_unasked(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "page.html").write_text("mine")
    assert main(["report", "half", "-o", "page.html"]) == 2
    assert "is there already; give another name, or add --force" in capsys.readouterr().err
    assert (runs / "page.html").read_text() == "mine"
    assert main(["report", "half", "-o", "page.txt"]) == 2
    assert "ends in .html" in capsys.readouterr().err
    assert main(["report", "half"]) == 2


def test_names_that_collide_get_their_folders() -> None:
    files = [Path(f"/{name}/report.json") for name in ("a/x/out", "b/x/out", "c/out", "d/one")]
    assert names([*files, Path("/e/one.json")]) == ["a/x/out", "b/x/out", "c/out", "one", "one.json"]
