"""The page on extending: its package, installed as pip leaves it, is listed and works in its recipe; a broken one is named."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import blocks

import lianzhi
from lianzhi import files

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = [DOCS / "how-to" / "extend.md", DOCS / "zh" / "how-to" / "extend.md"]
RUN = """
import json, sys, pathlib
from lianzhi.cli import main
codes = {}
for kind in ("criteria", "losses", "methods", "targets"):
    codes[kind] = main(["list", kind, "--json"])
    print("----")
codes["text"] = main(["list", "criteria"])
print("----")
codes["recipe"] = main(["compress", "recipe.yaml", "-o", "out", "--quiet"])
codes["misspelt"] = main(["compress", "recipe.yaml", "-o", "other", "--set", "steps.1.criterion=spred", "-q"])
pathlib.Path("codes.json").write_text(json.dumps(codes))
"""


def installed(site: Path, name: str, entry_points: str) -> None:
    """What pip leaves of a package's metadata."""
    info = site / f"{name.replace('-', '_')}-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(entry_points)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The page's package and a broken one on the path; all commands in one process."""
    folder = tmp_path_factory.mktemp("extending")
    site, package = folder / "site", folder / "site" / "lianzhi_extras"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    text = PAGES[0].read_text(encoding="utf-8")
    names = re.findall(r"`lianzhi_extras/(\w+\.py)`:\n\n```python", text)
    for name, code in zip(names, blocks(PAGES[0], "python"), strict=True):
        (package / name).write_text(code)
    (project,) = blocks(PAGES[0], "toml")
    points = project[project.index("[project.entry-points") :]
    points = re.sub(r'\[project\.entry-points\."(.*)"\]', r"[\1]", points).replace('"', "")
    installed(site, "lianzhi-extras", points)
    (site / "broken.py").write_text("import nowhere_to_be_found\n")
    (site / "greedy.py").write_text(
        "from lianzhi.prune.criteria import registry\n"
        "registry.register('mine', 'x')(print)\nregistry.register('l1', 'x')(print)\n"
    )
    installed(
        site, "lianzhi-broken", "[lianzhi.criteria]\nbroken = broken\n[lianzhi.targets]\nbroken = broken\n"
    )
    installed(site, "lianzhi-greedy", "[lianzhi.criteria]\ngreedy = greedy\n")
    (recipe,) = blocks(PAGES[0], "yaml")
    (folder / "recipe.yaml").write_text(recipe)
    path = os.pathsep.join([str(Path(lianzhi.__file__).parents[1]), str(site)])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder, done, json.loads((folder / "codes.json").read_text())


def test_its_names_are_listed_with_their_options_and_package(finished):
    _, done, codes = finished
    printed = done.stdout.split("----\n")
    listed = {
        kind: {row["name"]: row for row in json.loads(text)}
        for kind, text in zip(codes, printed[:4], strict=False)
    }
    assert listed["criteria"]["spread"]["options"] == {"power": 1.0}
    assert listed["losses"]["centred_cosine"]["options"] == {}
    assert listed["methods"]["listen_first"]["options"] == {"temperature": 2.0}
    assert listed["targets"]["frugal"]["package"] == "lianzhi_extras"
    assert listed["criteria"]["l1"]["package"] == ""
    (shown,) = re.findall(r"^spread .*$", PAGES[0].read_text(encoding="utf-8"), re.M)
    assert shown.split() in [line.split() for line in printed[4].splitlines()]


def test_packages_that_are_broken_are_named_and_stop_nothing(finished):
    _, done, codes = finished
    assert [codes[kind] for kind in ("criteria", "losses", "methods", "targets", "text")] == [0] * 5
    told = [line for line in done.stderr.splitlines() if "is left out" in line]
    assert len(told) == 3  # once a group
    assert any(
        "package 'lianzhi-broken' 0.1 is left out: its entry point 'broken' of lianzhi.criteria (broken) failed with "
        "ModuleNotFoundError: No module named 'nowhere_to_be_found'; correct the package, or: pip uninstall lianzhi-broken"
        in line
        for line in told
    )
    assert any("lianzhi-greedy" in line and "criterion 'l1' is registered twice" in line for line in told)
    assert "mine" not in done.stdout  # nothing of a package that failed


def test_its_recipe_runs_with_all_four(finished):
    folder, _, codes = finished
    assert codes["recipe"] == 0
    report = json.loads((folder / "out" / "report.json").read_text())
    assert [row["step"] for row in report["rows"]] == [
        "original",
        "train",
        "prune",
        "distill",
        "distill",
        "quantize",
    ]
    assert report["rows"][2]["parameters"] < report["rows"][1]["parameters"]
    assert report["decision"]["runtime"] == "frugal"
    assert {item["runtime"] for item in report["rows"][-1]["latencies"]} == {"frugal"}
    assert any("predict.py runs model.onnx by onnxruntime" in note for note in report["notes"])
    assert "import onnxruntime" in (folder / "out" / "predict.py").read_text()
    terms = report["rows"][4]["details"]["history"]["epochs"][-1]["terms"]
    assert 0 <= terms["centred_cosine"] <= 2


def test_its_names_are_suggested(finished):
    _, done, codes = finished
    assert codes["misspelt"] == 2
    assert "unknown criterion 'spred'; did you mean 'spread'?" in done.stderr


def test_an_artifact_of_its_target_predicts_without_the_package(finished):
    from PIL import Image

    folder, _, _ = finished
    Image.new("RGB", (16, 16)).save(folder / "x.png")
    script = [sys.executable, str(folder / "out" / "predict.py"), str(folder / "x.png")]
    printed = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    probabilities = [float(number) for number in re.findall(r"\b[01]\.\d+", printed)]
    assert len(probabilities) == 3
    assert sum(probabilities) == pytest.approx(1, abs=0.01)


def test_the_loss_is_what_the_page_says():
    """Computed from its definition; a shift and a stretch of the logits change nothing."""
    import numpy as np
    import torch

    from lianzhi.distill.losses import registry

    names: dict = {}
    try:
        exec(blocks(PAGES[0], "python")[1], names)
        student, teacher = torch.randn(6, 4), torch.randn(6, 4)
        found = names["centred_cosine"](student, teacher).item()
        one, other = (
            x.double().numpy() - x.double().numpy().mean(1, keepdims=True) for x in (student, teacher)
        )
        cosines = (one * other).sum(1) / np.sqrt((one**2).sum(1) * (other**2).sum(1))
        assert found == pytest.approx(1 - cosines.mean(), abs=1e-5)
        assert names["centred_cosine"](3 * teacher + 1, teacher).item() == pytest.approx(0, abs=1e-5)
    finally:
        registry._entries.pop("centred_cosine", None)


def test_both_languages_show_the_same_package():
    for kind in ("python", "toml", "yaml"):
        assert blocks(PAGES[0], kind) == blocks(PAGES[1], kind)
    for page in PAGES:
        for block in blocks(page, "python"):
            assert len([line for line in block.splitlines() if line.strip()]) <= 40


@pytest.mark.parametrize("page", PAGES, ids=["en", "zh"])
def test_every_group_is_named(page):
    from lianzhi import quantize
    from lianzhi.jobs.listing import REGISTRIES

    kinds = {*REGISTRIES, quantize.observers_registry.kind, quantize.techniques_registry.kind}
    assert {f"lianzhi.{kind}" for kind in kinds} <= set(
        re.findall(r"`(lianzhi\.\w+)`", page.read_text("utf-8"))
    )
    assert files.parse_yaml(blocks(page, "yaml")[0], page.name)["target"] == "frugal"
