"""The step `share_weights` with a rate: what its codes take, what ships, and that a killed run ends the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from killing import run_small, weights
from small_net import MEASURE
from torch import nn

import lianzhi as lz
from lianzhi import codebook
from lianzhi.codebook.masks import weights_of
from lianzhi.codebook.merging import entropy_of
from lianzhi.codebook.rated import MOST
from lianzhi.errors import RecipeError

FAST = {"batch_size": 32, "epochs": 1, "save_every": None}


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(72, 256), nn.ReLU(),
        nn.Linear(256, 4),
    ).eval()  # fmt: skip


def compress(task: lz.Task, steps: list, out: Path, **options):
    return lz.compress(
        small(), task, steps, target="pytorch", output=out, measure=MEASURE, progress=False, **options
    )


def entropy(weight: torch.Tensor) -> float:
    counts = weight.unique(return_counts=True)[1].double()
    return entropy_of(counts / counts.sum())


@pytest.mark.parametrize("moving", [None, {"epochs": 2, "batch_size": 32, "lr": 0.002}])
def test_codes_take_what_was_asked(task, tmp_path, moving):
    steps = [
        lz.ShareWeights(rate={"4": 1.5, "0": 3}, moving=moving, keep="last", distill=False, **FAST),
        lz.Pack(other="float16"),
    ]
    result = compress(task, steps, tmp_path / "out")
    tensors = weights_of(result.model)
    assert len(tensors["6.weight"].unique()) > MOST, "no pattern fits it"
    assert 1.3 < entropy(tensors["4.weight"]) < 1.6
    assert all(len(tensors[name].unique()) <= MOST for name in ("0.weight", "4.weight"))
    zeros = float((tensors["4.weight"] == 0).double().mean())
    assert 0.3 < zeros < 0.8
    details = result.report.rows[1]["details"]
    assert details["rate"] == {"0.weight": 3.0, "4.weight": 1.5}
    assert "bits" not in details
    assert [entry["name"] for entry in details["distributions"]] == ["0.weight", "4.weight"]
    file = result.path / "model.lzc"
    assert torch.equal(lz.load(file)(task.example_inputs), result.model(task.example_inputs))
    # 18,432 weights of 1.5 bits; the values, and what is not shared, beside them
    assert file.stat().st_size < 1.15 * 18_432 * 1.6 / 8 + 1024 * 2 + 216 + 2 * 268 + 4000


def test_zeros_that_were_pruned_hold(task, tmp_path):
    steps = [
        lz.Prune(granularity="weight", ratio=0.6, scope="layer"),
        lz.ShareWeights(rate=1.2, moving={**FAST, "lr": 0.002}, distill=False, **FAST),
    ]
    result = compress(task, steps, tmp_path / "out")
    for name, weight in weights_of(result.model).items():
        before = weights_of(small())[name].detach()
        smallest = before.abs() < before.abs().flatten().quantile(0.59)
        assert bool((weight[smallest] == 0).all())
        assert entropy(weight) < 1.35


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0}, "more than 0 and at most 8"),
        ({"rate": {"*": 9}}, "more than 0 and at most 8"),
        ({"rate": float("nan")}, "finite number"),
        ({"rate": True}, "true and false"),
        ({"rate": {"*": False}}, "true and false"),
        ({"rate": {}}, "no pattern is given"),
        ({"rate": 2, "bits": 4}, "'bits' is of k-means"),
        ({"rate": 2, "max_drop": 0.1}, "'max_drop' is of k-means"),
        ({"rate": 2, "init": "density"}, "'init' is of k-means"),
        ({"rate": 2, "groups": 4}, "'groups' is of k-means"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(RecipeError, match=message):
        lz.ShareWeights(**options)


def test_a_pattern_that_fits_nothing_is_said_before_anything_is_written(task, tmp_path):
    with pytest.raises(RecipeError, match="rate: 'fc' fits no weight"):
        compress(task, [lz.ShareWeights(rate={"fc": 2})], tmp_path / "out")
    assert not (tmp_path / "out").exists()


SMALL = """
model: {name: lenet5_classic, num_classes: 3, in_channels: 3, image_size: 32}
task: {name: synthetic, samples: 128, classes: 3, shape: [3, 32, 32]}
target: onnxruntime
measure: {batches: [1], repeats: 1, threads: 1}
steps:
  - share_weights: {rate: {"conv*": 3, "*": 1.5}, moving: {epochs: 2, batch_size: 64}, epochs: 1, batch_size: 64}
  - pack: {}
"""


def test_a_killed_run_ends_with_the_same_file(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(SMALL)
    whole = run_small(recipe, tmp_path / "whole", 0)
    assert whole.returncode == 0, whole.stderr
    calls = int(whole.stdout.rsplit("calls", 1)[1])
    killed = tmp_path / "killed"
    assert run_small(recipe, killed, calls // 3).returncode == -9
    assert run_small(recipe, killed, 0).returncode == 0
    assert weights(killed) == weights(tmp_path / "whole")
    assert (killed / "model.lzc").read_bytes() == (tmp_path / "whole" / "model.lzc").read_bytes()


class TestPack:
    def test_without_training(self, tmp_path):
        model = small()
        nn.init.normal_(model[4].weight)
        shared = codebook.pack(model.state_dict(), tmp_path / "b.lzc", bits={"4.weight": 3})
        wrong = codebook.unpack(tmp_path / "b.lzc")["4.weight"]
        one = codebook.pack(model.state_dict(), tmp_path / "a.lzc", rate={"4.weight": entropy(wrong)})
        found = codebook.unpack(tmp_path / "a.lzc")
        assert entropy(wrong) - 0.05 < entropy(found["4.weight"]) <= entropy(wrong)
        assert torch.equal(found["0.weight"], model[0].weight)
        assert one.note == shared.note
        assert one.bytes < 1.02 * shared.bytes
        before = model[4].weight.detach()
        errors = [float((some - before).square().sum()) for some in (found["4.weight"], wrong)]
        assert errors[0] < 0.9 * errors[1]

    @pytest.mark.parametrize("rate", [0, 9, True, "2", float("nan"), {"*": -1}, {3: 2.0}])
    def test_what_is_no_rate_is_refused(self, tmp_path, rate):
        with pytest.raises(RecipeError, match="rate="):
            codebook.pack(small().state_dict(), tmp_path / "a.lzc", rate=rate)
        assert not list(tmp_path.iterdir())

    def test_not_with_bits(self, tmp_path):
        with pytest.raises(RecipeError, match="give one of them"):
            codebook.pack(small().state_dict(), tmp_path / "a.lzc", rate=2, bits=2)

    def test_on_the_command_line(self, tmp_path):
        from typer.testing import CliRunner

        from lianzhi.cli.main import app

        lz.files.write_tensors(tmp_path / "w.safetensors", small().state_dict())
        command = ["pack", str(tmp_path / "w.safetensors"), "-o", str(tmp_path / "w.lzc")]
        done = CliRunner().invoke(app, [*command, "--rate", "4*=1.5,*=3"])
        assert done.exit_code == 0, done.output
        assert entropy(codebook.unpack(tmp_path / "w.lzc")["4.weight"]) <= 1.5
        for text, message in (("much", "write a number"), ("*=2,*=3", "stands twice")):
            with pytest.raises(RecipeError, match=message):
                CliRunner().invoke(app, [*command, "--force", "--rate", text], catch_exceptions=False)
