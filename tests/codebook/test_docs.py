"""The example of the format in the user guide is what the code writes."""

import math
import re
from pathlib import Path
from statistics import mean

import pytest
import torch
from pages import blocks

import lianzhi as lz
from lianzhi import files
from lianzhi.codebook import huffman
from lianzhi.codebook.allocation import SCOPES
from lianzhi.codebook.kmeans import INITS
from lianzhi.recipe import parse_step

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["deep_compression.md", "zh/deep_compression.md"])
def test_the_worked_example(page, tmp_path, monkeypatch):
    text = (DOCS / page).read_text(encoding="utf-8")
    fenced = [block.partition("\n")[2] for block in text.split("```")[1::2]]
    code = next(block for block in fenced if '"w.lzc"' in block)
    listing = next(block for block in fenced if "aa aa aa aa" in block)
    monkeypatch.chdir(tmp_path)
    names = {"torch": torch, "lz": lz}
    exec(code, names)
    shown = b"".join(bytes.fromhex(re.match(r"(?:[0-9a-f]{2} ?)+", line)[0]) for line in listing.splitlines())
    data = Path("w.lzc").read_bytes()
    assert data.endswith(shown)
    with lz.codebook.container.Reader("w.lzc") as reader:
        described = reader.entries["w"].described
    assert f'"shape":[160],"coding":"codes","bytes":{described["bytes"]}' in text
    assert described["bytes"] == len(shown) == 44
    _, counts = names["weights"].unique(return_counts=True)
    assert math.isclose(huffman.entropy(counts.numpy()) / 160, 1.02, abs_tol=0.005)
    assert 8 * 26 / 160 == 1.3


@pytest.mark.parametrize("page", ["deep_compression.md", "zh/deep_compression.md"])
def test_the_first_example(page, tmp_path, monkeypatch):
    first = blocks(DOCS / page)[0]
    monkeypatch.chdir(tmp_path)
    x = torch.randn(1, 1, 32, 32)
    model = lz.model("lenet5_classic", num_classes=10, in_channels=1, image_size=32).eval()
    names = {"model": model, "x": x}
    exec(compile(first, page, "exec"), names)
    assert all(torch.equal(names["weights"][name], value) for name, value in model.state_dict().items())
    assert names["model"] is not model
    assert torch.equal(names["model"](x), model(x))
    assert Path("small.lzc").stat().st_size * 10 < Path("model.lzc").stat().st_size


@pytest.mark.parametrize("page", ["deep_compression.md", "zh/deep_compression.md"])
def test_pruning_and_sharing_on_the_page(page):
    """Its examples run, its recipe is valid, and its tables are complete."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = blocks(text)
    names: dict[str, object] = {}
    for block in found[-4:]:
        exec(compile(block, page, "exec"), names)
    steps, single = blocks(text, "yaml")
    kinds = [type(parse_step(step, "page")) for step in files.parse_yaml(steps, page)["steps"]]
    (by_cost,) = [parse_step(step, "page") for step in files.parse_yaml(single, page)]
    assert isinstance(by_cost, lz.Prune)
    assert by_cost.criterion == "hessian"
    assert kinds == [lz.Train, lz.Prune, lz.ShareWeights, lz.Pack]
    rows = {
        name
        for line in text.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"^\| `([^`]+)`", line)
    }
    assert {*SCOPES, "sensitivity", *INITS} <= rows
    assert all(
        f"`{option}" in text
        for option in (
            "quality",
            "gradual",
            "every",
            "feedback",
            "max_drop",
            "groups",
            "bits",
            "rate",
            "moving",
        )
    )


def shown(bits: int | dict[str, int]) -> str:
    return (
        str(bits) if isinstance(bits, int) else ", ".join(f"{name} {number}" for name, number in bits.items())
    )


@pytest.mark.parametrize("page", ["deep_compression.md", "zh/deep_compression.md"])
def test_the_figures_are_those_on_record(page):
    runs = files.read_json(DOCS.parent / "benchmarks" / "results" / "deep_compression.json")["runs"]
    text = (DOCS / page).read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (lenet\w+) \| (.*) \| [^|]* \|$", text, re.M))
    assert set(rows) == {key.partition(" | ")[0] for key in runs if key.startswith("lenet")}
    for name, row in rows.items():
        dense = [run["top1"] for key, run in runs.items() if key.startswith(f"{name} | dense | ")]
        found = [run for key, run in runs.items() if key.startswith(f"{name} | compressed | ")]
        tops, ratios, sizes, kept = (
            [run[key] for run in found] for key in ("top1", "ratio", "bytes", "kept")
        )
        assert row.split(" | ") == [
            str(len(found)),
            f"{100 * mean(dense):.2f} %",
            f"{100 * mean(tops):.2f} %",
            f"{100 * (mean(dense) - mean(tops)):.2f}",
            f"{100 * mean(kept):.1f} %",
            shown(found[0]["bits"]),
            f"{mean(sizes):,.0f}",
            f"{mean(ratios):.1f}×",
        ]
