"""Pruning of weights, sharing and packing as steps: what holds, what ships, and that a killed run ends the same."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from killing import run_small, weights
from torch import nn

import lianzhi as lz
from lianzhi import pipeline
from lianzhi import recipe as recipes
from lianzhi.codebook.masks import weights_of
from lianzhi.codebook.sharing import share
from lianzhi.errors import GraphError, RecipeError

QUICK = lz.Measure(batches=(1,), repeats=1, threads=1)
FAST = {"batch_size": 32, "epochs": 1, "save_every": None}


@pytest.fixture(scope="module")
def task() -> lz.Task:
    return lz.task("synthetic", samples=256, classes=3, shape=(3, 12, 12))


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(200, 32),
        nn.ReLU(), nn.Linear(32, 3),
    )  # fmt: skip


def compress(task: lz.Task, steps: list, out: Path, *, target: str = "pytorch", **options):
    return lz.compress(
        small().eval(), task, steps, target=target, output=out, measure=QUICK, progress=False, **options
    )


def share_of_zeros(model: nn.Module) -> float:
    tensors = weights_of(model).values()
    return sum(int((weight == 0).sum()) for weight in tensors) / sum(weight.numel() for weight in tensors)


def test_all_of_deep_compression(task, tmp_path):
    result = compress(
        task,
        [
            lz.Train(**FAST, lr=0.05),
            lz.Prune(
                granularity="weight", ratio=0.8, gradual=0.6, every=2, refine=lz.Distill(**FAST, lr=0.02)
            ),
            lz.Distill(**FAST, lr=0.02),
            lz.ShareWeights(bits={"7": 5, "*": 4}, **FAST),
            lz.Pack(),
        ],
        tmp_path / "out",
    )
    tensors = weights_of(result.model)
    assert share_of_zeros(result.model) == pytest.approx(0.8, abs=0.001)
    assert all(len(weight.unique()) <= 16 for name, weight in tensors.items() if name != "7.weight")
    packed = lz.load(result.path / "model.lzc")
    assert torch.equal(packed(task.example_inputs), result.model(task.example_inputs))
    last = result.report.rows[-1]
    assert last["bytes"] == (result.path / "model.lzc").stat().st_size
    assert last["size_file"] == "model.lzc"
    assert last["bytes"] * 8 < result.report.rows[0]["bytes"]
    stages = [row["details"].get("stage") for row in result.report.rows]
    assert [stage is not None for stage in stages] == [False, False, True, False, True, True]
    pruned, shared, final = (stage for stage in stages if stage)
    assert {layer["name"] for layer in final["layers"]} == set(tensors)
    assert final["bytes"] <= shared["bytes"] * 1.3
    assert shared["bytes"] < pruned["bytes"]
    assert [layer["bits"] for layer in shared["layers"]][-1] <= 5
    drawn = result.report.rows[4]["details"]["distributions"]
    assert [entry["name"] for entry in drawn] == list(tensors)
    assert sum(drawn[0]["counts"]) == int((tensors["0.weight"] != 0).sum())
    filled = sum(int((value != 0).sum()) for value in result.model.parameters())
    assert [row["nonzero"] for row in result.report.rows][:2] == [None, None]
    assert last["nonzero"] == filled < last["parameters"] / 3


@pytest.mark.parametrize(
    "scope",
    ["global", "sensitivity", *(pytest.param(name, marks=pytest.mark.slow) for name in ("layer", "erk"))],
)
def test_every_way_to_spread_a_ratio(task, tmp_path, scope):
    result = compress(task, [lz.Prune(granularity="weight", ratio=0.6, scope=scope)], tmp_path / "out")
    assert share_of_zeros(result.model) == pytest.approx(0.6, abs=0.001)
    assert result.report.rows[-1]["details"]["kept"] == pytest.approx(0.4, abs=0.001)


def test_zeros_hold_in_every_later_step(task, tmp_path):
    steps = [
        lz.Prune(granularity="weight", ratio=0.5, iterations=2, refine=lz.Train(**FAST, lr=0.05)),
        lz.Sparsify(method="bn_l1", coefficient=1e-3, **FAST, lr=0.05),
        lz.Train(**FAST, optimizer="adamw", lr=1e-2),
        lz.ShareWeights(bits=6, **FAST, distill=False),
    ]
    result = compress(task, steps, tmp_path / "out")
    assert share_of_zeros(result.model) == pytest.approx(0.5, abs=0.001)
    for row in result.report.rows[1:]:
        assert "kept" not in row["details"] or row["details"]["kept"] == pytest.approx(0.5, abs=0.001)


def test_two_of_four_hold_while_it_trains(task, tmp_path):
    result = compress(task, [lz.Prune(granularity="2:4"), lz.Train(**FAST, lr=0.05)], tmp_path / "out")
    tensors = weights_of(result.model)
    assert bool(tensors["0.weight"].all())  # of three colours
    for name in ("5.weight", "7.weight"):
        assert set((tensors[name] != 0).unflatten(1, (-1, 4)).sum(-1).flatten().tolist()) == {2}
    assert "2:4: 0.weight stay whole: their inputs are no multiple of four" in result.report.notes
    assert recipes.load(tmp_path / "out" / "recipe.yaml").steps[0].granularity == "2:4"


@pytest.mark.slow
def test_quality_and_ignored_layers(task, tmp_path):
    step = lz.Prune(granularity="weight", quality=1.0, ignore="7")
    result = compress(task, [step], tmp_path / "out")
    tensors = weights_of(result.model)
    assert bool(tensors["7.weight"].all())
    assert 0.2 < float((tensors["5.weight"] != 0).float().mean()) < 0.6


def test_after_structured_pruning_and_before_int8(task, tmp_path):
    steps = [
        lz.Prune(ratio=0.25),
        lz.Prune(granularity="weight", ratio=0.7),
        lz.ShareWeights(bits=4, epochs=0),
        lz.Quantize(calibration=32),
        lz.Pack(),
    ]
    result = compress(task, steps, tmp_path / "out", target="onnxruntime", precision="int8")
    stage = result.report.rows[-1]["details"]["stage"]
    assert sum(layer["kept"] * layer["weights"] for layer in stage["layers"]) <= 0.35 * sum(
        layer["weights"] for layer in stage["layers"]
    )
    assert {layer["name"] for layer in stage["layers"]} == {"0.weight", "5.weight", "7.weight"}
    assert result.report.decision["precision"] == "int8"
    tensors = lz.codebook.unpack(result.path / "model.lzc")
    assert [
        tensor.dtype for tensor in tensors.values() if tensor.dim() >= 2 and tensor.shape[1:].numel() > 1
    ] == [torch.int8] * 3
    assert result.report.rows[-1]["bytes"] * 2 < (result.path / "model.onnx").stat().st_size
    packed = lz.load(result.path / "model.lzc")
    assert torch.equal(packed(task.example_inputs), lz.load(result.path)(task.example_inputs))


def test_zeros_hold_in_quantization_aware_training(task, tmp_path):
    steps = [
        lz.Prune(granularity="weight", ratio=0.7),
        lz.Quantize(method="qat", calibration=32, keep="last", **FAST, lr=1e-2),
    ]
    result = compress(task, steps, tmp_path / "out", target="onnxruntime", precision="int8")
    assert share_of_zeros(result.model) == pytest.approx(0.7, abs=0.001)


def test_weights_move_between_values_and_then_the_values_train(task, tmp_path):
    found = {}
    for name, moving in (("fixed", None), ("moving", {"epochs": 2, "batch_size": 32, "lr": 0.02})):
        steps = [
            lz.Prune(granularity="weight", ratio=0.5),
            lz.ShareWeights(bits=3, ignore="7", moving=moving, keep="last", **FAST),
        ]
        result = compress(task, steps, tmp_path / name)
        found[name] = weights_of(result.model)
        details = result.report.rows[-1]["details"]
        assert ("moving" in details) == (moving is not None)
        assert share_of_zeros(result.model) == pytest.approx(0.5, abs=0.001), (
            "ignored layers keep their zeros"
        )
        assert all(len(found[name][layer].unique()) <= 8 for layer in ("0.weight", "5.weight"))
        assert len(found[name]["7.weight"].unique()) > 8
    assert len(details["moving"]["epochs"]) == 2
    assert not torch.equal(*(_ranks(weights["5.weight"]) for weights in found.values())), "codes have changed"


def _ranks(shared: torch.Tensor) -> torch.Tensor:
    return shared.unique(return_inverse=True)[1]


def test_bits_under_an_accuracy_budget(task, tmp_path):
    steps = [lz.Train(**FAST, lr=0.05), lz.ShareWeights(bits=6, max_drop=0.1, epochs=0)]
    found = compress(task, steps, tmp_path / "out").report.rows[-1]["details"]["bits"]
    assert set(found) == {"0.weight", "5.weight", "7.weight"}
    assert all(1 <= bits <= 6 for bits in found.values())
    assert sum(found.values()) < 18


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.LSTM(36, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, x):
        return self.out(self.rnn(x.reshape(x.shape[0], 12, 36))[0][:, -1])


def test_layers_that_are_not_shared(task, tmp_path):
    model, options = Recurrent().eval(), {"target": "pytorch", "measure": QUICK, "progress": False}
    with pytest.raises(GraphError, match=r"'rnn' is a recurrent layer.*'ignore' of share_weights"):
        lz.compress(model, task, [lz.ShareWeights(bits=3)], output=tmp_path / "out", **options)
    with pytest.raises(RecipeError, match="'nope' matches no layer"):
        lz.compress(model, task, [lz.ShareWeights(ignore="nope")], output=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    steps = [
        lz.Prune(granularity="weight", ratio=0.5),
        lz.ShareWeights(bits=3, max_drop=0.5, ignore="rnn", **FAST),
    ]
    result = lz.compress(model, task, [*steps, lz.Pack()], output=tmp_path / "out", **options)
    assert set(result.report.rows[2]["details"]["bits"]) == {"out.weight"}
    assert len(result.model.out.weight.unique()) <= 8
    packed = lz.load(result.path / "model.lzc")
    assert torch.equal(packed(task.example_inputs), result.model(task.example_inputs))


def test_biases_in_float16_are_measured_as_they_are_packed(task, tmp_path):
    result = compress(task, [lz.ShareWeights(bits=4, epochs=0), lz.Pack(other="float16")], tmp_path / "out")
    packed = lz.codebook.unpack(result.path / "model.lzc")
    state = result.model.state_dict()
    assert all(torch.equal(packed[name], state[name]) for name in state)
    assert torch.equal(state["7.bias"], state["7.bias"].half().float())


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([lz.Pack(), lz.Train(epochs=1)], "make 'pack' the last step"),
        ([lz.Train(epochs=0), lz.Pack(other="float16"), lz.Pack()], "make 'pack' the last step"),
        ([lz.ShareWeights(), lz.Train(epochs=1)], "'train' after it would change the weights"),
        ([lz.ShareWeights(bits={"nope*": 4})], r"'nope\*' fits no weight"),
        ([lz.Prune(granularity="weight", ratio=0.5, ignore="nope")], "'nope' matches no layer"),
        ([lz.Prune(granularity="weight", ratio=0.5, ignore=("0", "5", "7"))], "no weights"),
        ([lz.Prune(granularity="2:4", ignore=("5", "7"))], "multiple of four"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_written(task, tmp_path, steps, message):
    with pytest.raises(RecipeError, match=message):
        compress(task, steps, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            lambda: nn.utils.parametrizations.weight_norm(nn.Linear(200, 32)),
            "'5.parametrizations.weight' has par",
        ),
        (lambda: nn.utils.spectral_norm(nn.Linear(200, 32)), "is computed by SpectralNorm"),
    ],
)
def test_weights_that_cannot_be_shared_are_said_before_anything_is_written(task, tmp_path, layer, message):
    model = small()
    model[5] = layer()
    steps = [lz.Train(**FAST), lz.ShareWeights(bits=4)]
    options = {"target": "pytorch", "output": tmp_path / "out", "measure": QUICK, "progress": False}
    with pytest.raises(GraphError, match=message):
        lz.compress(model.eval(), task, steps, **options)
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_shared_already_is_refused(task, tmp_path):
    model = small().eval()
    share(model, 3)
    with pytest.raises(GraphError, match="bake it first"):
        lz.compress(model, task, [lz.Train(**FAST)], target="pytorch", output=tmp_path / "out", measure=QUICK)
    assert not (tmp_path / "out").exists()


GRADUAL = {"gradual": 0.5, "refine": lz.Train(epochs=1)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"macs": 0.5}, "takes a 'ratio' of the weights or a 'quality'"),
        ({}, "takes a 'ratio'"),
        ({"ratio": 0.5, "quality": 1.0}, "takes a 'ratio'"),
        ({"ratio": 0.5, "criterion": "l2"}, "'l2' is none of granularity 'weight'; known: hessian, l1"),
        ({"ratio": 0.5, "criterion": "hesian"}, "did you mean 'hessian'"),
        ({"quality": 1.0, "criterion": "hessian"}, "'quality' prunes each layer once"),
        ({"ratio": 0.5, "criterion": "hessian"}, "it goes with 'gradual'"),
        (
            {"ratio": 0.5, "criterion": "hessian", "scope": "sensitivity", **GRADUAL},
            "'sensitivity' removes weights by magnitude",
        ),
        (
            {"ratio": 0.5, "criterion": "hessian", "criterion_options": {"over": "group"}, **GRADUAL},
            "'criterion_options' is of channels",
        ),
        ({"ratio": 0.5, "gradual": 0.5}, "'gradual' needs 'refine'"),
        ({"ratio": 0.5, "feedback": True}, "'feedback' goes with 'gradual'"),
        ({"ratio": 0.5, "refine": lz.Train(epochs=1)}, "with 'gradual' or between iterations"),
        ({"ratio": 0.5, "gradual": 0.5, "refine": lz.Train(epochs=0)}, "'epochs' are 0"),
        ({"ratio": 0.5, "scope": "isomorphic"}, "is of channels"),
        ({"quality": 1.0, "scope": "erk"}, "'quality' prunes each layer once"),
        ({"quality": 1.0, "scope": "sensitivity"}, "'quality' prunes each layer once"),
        ({"ratio": 0.5, "every": 7}, "'every' goes with 'gradual'"),
        ({"ratio": 0.5, "schedule": "linear"}, "'schedule' goes with 'gradual' or 'iterations'"),
        ({"ratio": 0.5, "ratios": (0.9,)}, "'ratios' goes with scope 'sensitivity'"),
        ({"ratio": 0.5, "calibration": 9}, "'calibration' is of channels"),
        ({"ratio": 0.5, "batch_size": 3}, "'batch_size' is of channels"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(RecipeError, match=message):
        lz.Prune(granularity="weight", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 0.5, "quality": 1.0}, "'quality' goes with granularity 'weight'"),
        ({"ratio": 0.5, "gradual": 0.5}, "'gradual' goes with"),
        ({"ratio": 0.5, "feedback": True}, "'feedback' goes with 'gradual'"),
        ({"ratio": 0.5, "every": 7}, "'every' goes with 'gradual'"),
        ({"ratio": 0.5, "scope": "erk"}, "scope 'erk' goes with"),
        ({"ratio": 0.5, "granularity": ("weight", "channel")}, "stands alone"),
        ({"ratio": 0.5, "granularity": ("channel", "2:4")}, "'2:4' stands alone"),
        ({"ratio": 0.5, "granularity": "2:4"}, "'ratio' does not go with granularity '2:4'"),
        ({"iterations": 2, "granularity": 124}, "'iterations' does not go with granularity '2:4'"),
    ],
)
def test_options_of_weights_are_refused_for_channels(options, message):
    with pytest.raises(RecipeError, match=message):
        lz.Prune(**options)


@pytest.mark.parametrize("option", [{"teacher": "nowhere"}, {"temperature": 9}, {"alpha": 0.1}])
def test_options_of_the_distillation_without_it(option):
    with pytest.raises(RecipeError, match=f"'{next(iter(option))}' is of the distillation"):
        lz.ShareWeights(distill=False, **option)


def test_bits_and_a_budget_do_not_mix():
    with pytest.raises(RecipeError, match="bits are searched"):
        lz.ShareWeights(bits={"*": 4}, max_drop=0.1)
    with pytest.raises(RecipeError, match="17 bits"):
        lz.ShareWeights(bits={"*": 17})


SMALL = """
model: {name: lenet5_classic, num_classes: 3, in_channels: 3, image_size: 32}
task: {name: synthetic, samples: 128, classes: 3, shape: [3, 32, 32]}
target: onnxruntime
measure: {batches: [1], repeats: 1, threads: 1}
steps:
  - train: {epochs: 1, batch_size: 64, lr: 0.05}
  - prune: {granularity: weight, ratio: 0.7, gradual: 0.6, every: 1, refine: {distill: {epochs: 2, batch_size: 64, lr: 0.02}}}
  - prune: {granularity: weight, ratio: 0.8, scope: sensitivity, iterations: 2, refine: {train: {epochs: 1, batch_size: 64, lr: 0.02}}}
  - share_weights: {bits: 6, max_drop: 0.2, moving: {epochs: 1, batch_size: 64}, epochs: 2, batch_size: 64}
  - pack: {}
"""


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_file(tmp_path):
    """Each process lives for some renames more than the last one: through every step, and the publishing."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(SMALL)
    whole = run_small(recipe, tmp_path / "whole", 0)
    assert whole.returncode == 0, whole.stderr
    for kills in range(30):
        done = run_small(recipe, tmp_path / "killed", 5 + 8 * kills)
        if done.returncode != -signal.SIGKILL:
            break
    assert done.returncode == 0, done.stderr
    assert kills >= 2
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    files = [(tmp_path / name / "model.lzc").read_bytes() for name in ("killed", "whole")]
    assert files[0] == files[1]


def test_the_ready_recipe_runs_at_small_size(tmp_path):
    recipe = recipes.load(
        Path(__file__).parents[2] / "recipes" / "fashion-lenet-deep-compression.yaml",
        overrides=[
            "steps.0.epochs=1",
            "steps.1.every=1",
            "steps.1.refine.distill.epochs=2",
            "steps.2.moving.epochs=1",
            "steps.2.epochs=1",
            "measure.batches=[1]",
            "measure.repeats=1",
        ],
    )
    task = lz.task("synthetic", samples=256, classes=10, shape=(1, 28, 28))
    result = pipeline.run(recipe, lz.model("lenet_300_100"), task, output=tmp_path / "out", progress=False)
    assert [row["step"] for row in result.report.rows] == [
        "original", "train", "prune", "share_weights", "pack",
    ]  # fmt: skip
    assert share_of_zeros(result.model) == pytest.approx(0.885, abs=0.002)
    assert result.report.rows[-1]["bytes"] * 25 < result.report.rows[0]["bytes"]
