"""The prune step in the pipeline: data, rounds, refining, latency, measured scopes, and what is refused before."""

import json
import signal

import pytest
import torch
from killing import run_small, summary
from small_net import FAST, MEASURE, Net, run_of
from torch import nn

import lianzhi as lz
from lianzhi.errors import DataError, GraphError, RecipeError
from lianzhi.pipeline import checks, pruning
from lianzhi.pipeline.state import State
from lianzhi.recipe import Recipe


def carry_out(task, folder, step, model, *, resume=False):
    run, work = run_of(task, folder, step)
    state = State(model=model, teacher=model)
    return state, pruning.run_prune(run, state, step, work, resume=resume), work


@pytest.mark.parametrize("criterion", ["taylor", "hessian", "apoz", "mean_activation"])
def test_criteria_on_data_read_the_calibration_split_only(task, tmp_path, criterion, monkeypatch):
    read = []
    whole = type(task).batches

    def spied(self, split, *args, **kwargs):
        for batch in whole(self, split, *args, **kwargs):
            read.append((split, len(batch)))
            yield batch

    monkeypatch.setattr(type(task), "batches", spied)
    step = lz.Prune(criterion=criterion, ratio=0.5, calibration=12, batch_size=8)
    state, details, _ = carry_out(task, tmp_path, step, Net())
    assert {split for split, _ in read} == {"calibration"}
    assert sum(count for _, count in read) == 16  # two batches, of which 12 samples are used
    assert details["verified"] < 1e-5
    assert sum(layer["after"] for layer in details["layers"]) < sum(
        layer["before"] for layer in details["layers"]
    )
    assert state.model.stem.out_channels < 16


def test_the_number_of_samples_is_kept(task):
    step = lz.Prune(criterion="taylor", ratio=0.5, calibration=12, batch_size=8)
    found = pruning.data_for("taylor", step, task)
    assert [len(inputs) for inputs, _ in found["calibration"]] == [8, 4]
    assert [len(labels) for _, labels in found["calibration"]] == [8, 4]
    assert found["loss"] is task.loss
    assert pruning.data_for("l1", step, task) == {}


@pytest.mark.parametrize("budget", [{"ratio": 0.5}, {"macs": 0.5}, {"parameters": 0.4}])
@pytest.mark.parametrize("schedule", ["cubic", "linear"])
def test_rounds_end_where_one_shot_does(task, tmp_path, budget, schedule):
    """The widths after all rounds meet the budget of the whole; the last layer of rounds is that of one shot."""
    model = Net(width=32)
    counts = {}
    for iterations in (1, 4):
        step = lz.Prune(**budget, iterations=iterations, schedule=schedule)
        state, details, work = carry_out(task, tmp_path / str(iterations), step, model)
        counts[iterations] = lz.measure.parameters(state.model)
        assert details["verified"] < 1e-5
    assert abs(counts[4] - counts[1]) <= 0.06 * counts[1]
    assert sorted(file.name for file in work.glob("*.json")) == [f"plan-{index}.json" for index in range(4)]
    before = [
        lz.measure.macs(model, task.example_inputs),
        *(entry["macs"] for entry in details["rounds"]),
    ]
    assert before == sorted(before, reverse=True)
    assert before[-1] == details["macs_after"]
    if "macs" in budget:
        assert details["macs_after"] <= 0.5 * before[0]
    shares = lz.prune.shares(4, schedule)
    if "macs" in budget:
        for share, left in zip(shares, before[1:], strict=True):
            assert left <= before[0] * (1 - 0.5 * share) + 1


def test_several_rounds_never_empty_a_layer(task, tmp_path):
    """max_layer_ratio counts from the model as it was before the first round."""
    model = Net(width=20)
    with torch.no_grad():
        model.conv.weight.mul_(1e-4)
        model.stem.weight.mul_(1e-4)
    step = lz.Prune(ratio=0.6, iterations=3, max_layer_ratio=0.7)
    state, _, _ = carry_out(task, tmp_path, step, model)
    assert state.model.stem.out_channels >= 6


def test_refining_runs_between_rounds_and_is_replayed(task, tmp_path):
    torch.manual_seed(0)
    model = Net()
    step = lz.Prune(ratio=0.5, iterations=2, refine=lz.Train(**FAST), reestimate=1)
    first, details, work = carry_out(task, tmp_path, step, model)
    assert (work / "round-0" / "train").is_dir()
    assert not (work / "round-1").exists()
    assert "history" in details["rounds"][0]
    assert "history" not in details["rounds"][1]
    plans = [file.read_text() for file in sorted(work.glob("plan-*.json"))]
    again, _, _ = carry_out(task, tmp_path, step, model, resume=True)
    assert plans == [file.read_text() for file in sorted(work.glob("plan-*.json"))]
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name
    assert first.notes == again.notes
    run, _ = run_of(task, tmp_path, step)
    replayed = State(model=model, teacher=model)
    pruning.replay(run, replayed, step, work)
    replayed.model.load_state_dict(first.model.state_dict())
    assert replayed.layers == first.layers


def test_the_report_has_the_macs_of_each_layer(task, tmp_path):
    steps = [lz.Prune(ratio=0.5)]
    result = lz.compress(Net(), task, steps, target="onnxruntime", output=tmp_path / "out", measure=MEASURE)
    layers = {layer["name"]: layer for layer in result.report.layers}
    before, after = result.report.rows[0]["macs"], result.report.rows[-1]["macs"]
    wide = layers["stem"]["after"]
    assert [layers[name]["macs_before"] for name in ("stem", "conv", "head")] == [
        64 * 16 * 3 * 9,
        64 * 16 * 16 * 9,
        16 * 4,
    ]
    assert layers["conv"]["macs"] == 64 * wide * layers["conv"]["after"] * 9
    assert sum(layer["macs_before"] for layer in layers.values()) == before
    assert sum(layer["macs"] for layer in layers.values()) == after
    assert not any("layers" in row for row in result.report.rows)


@pytest.mark.slow  # it times real runs, which a busy machine disturbs
def test_latency_in_rounds(task, tmp_path):
    model = nn.Sequential(
        nn.Conv2d(3, 96, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(96, 96, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96 * 64, 4),
    )
    step = lz.Prune(latency=0.6, batch=8, iterations=2, scope="layer")
    state, _, work = carry_out(task, tmp_path, step, model)
    text = json.loads((work / "plan-1.json").read_text())
    assert any("measured with onnxruntime f32, batch 8" in remark for remark in text["remarks"])
    assert state.model[0].out_channels < 96
    share = lz.prune.latency_share(model, state.model, task.example_inputs, batch=8)
    assert share < 0.85


def test_sensitivities_are_of_the_validation_cut(task, tmp_path, monkeypatch):
    split = []
    whole = lz.measure.evaluate
    monkeypatch.setattr(
        lz.measure,
        "evaluate",
        lambda *args, **kwargs: split.append(kwargs["split"]) or whole(*args, **kwargs),
    )
    step = lz.Prune(macs=0.7, scope="sensitivity", ratios=(0.25, 0.5))
    _, details, _ = carry_out(task, tmp_path, step, Net())
    assert set(split) == {"validation"}
    assert details["macs_after"] <= 0.7 * details["macs_before"]


def test_a_task_that_reports_its_validation_part_decides_nothing_by_it():
    loader = [(torch.randn(8, 3, 8, 8), torch.arange(8) % 4)]
    own = lz.Task(train=loader, validation=loader)
    with pytest.raises(DataError, match="no validation cut beside the split that it reports"):
        pruning.evaluator(own)


class Fixed(Net):
    """The width stands in the code: surgery cannot reach it, so that the captured graph is the result."""

    def forward(self, x):
        x = torch.relu(self.bn(self.stem(x)))
        x = torch.relu(self.bn2(self.conv(x))).mean((2, 3))
        return self.head(x * x.view(-1, 16).mean(1, keepdim=True))


def test_rounds_on_a_model_that_becomes_its_graph(task, tmp_path):
    result = lz.compress(
        Fixed(),
        task,
        [
            lz.Prune(ratio=0.5, iterations=2, refine=lz.Distill(**FAST)),
            lz.Train(**FAST),
        ],
        target="onnxruntime",
        output=tmp_path / "out",
        measure=MEASURE,
        progress=False,
    )
    assert result.report.rows[1]["details"]["result"] == "graph"
    images = task.example_inputs
    assert torch.allclose(lz.load(result.path)(images), result.model.eval()(images), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 0.5, "criterion": "tayler"}, "did you mean 'taylor'"),
        ({"ratio": 0.5, "criterion": "taylor", "ignore": ("nothing*",)}, "matches no layer"),
        ({"ratio": 0.5, "criterion": "hessian", "criterion_options": {"x": 1}}, "x"),
        ({"macs": 0.001, "criterion": "taylor"}, "cannot be met"),
        ({"latency": 0.5, "target": "onnxruntim"}, "did you mean 'onnxruntime'"),
        ({"macs": 0.01, "scope": "sensitivity"}, "cannot be met"),
        ({"ratio": 0.5, "iterations": 2, "refine": lz.Distill(method="kdd", epochs=1)}, "unknown method"),
    ],
)
def test_refused_before_data_is_read_or_time_measured(task, tmp_path, options, message, monkeypatch):
    monkeypatch.setattr(type(task), "batches", lambda *args, **kwargs: pytest.fail("data was read"))
    monkeypatch.setattr(lz.prune.Plan, "apply", lambda *args, **kwargs: pytest.fail("a trial was made"))
    run, _ = run_of(task, tmp_path, lz.Prune(**options))
    with pytest.raises(RecipeError, match=message):
        checks.check(run, Net())


def test_a_trial_plan_reads_nothing(task, tmp_path, monkeypatch):
    for options in (
        {"latency": 0.5},
        {"ratio": 0.5, "criterion": "hessian"},
        {"macs": 0.5, "scope": "sensitivity"},
    ):
        run, _ = run_of(task, tmp_path, lz.Prune(**options))
        with monkeypatch.context() as patched:
            patched.setattr(type(task), "batches", lambda *args, **kwargs: pytest.fail("data was read"))
            patched.setattr(lz.prune.Plan, "apply", lambda *args, **kwargs: pytest.fail("a trial was made"))
            checks.check(run, Net())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 0.5, "refine": lz.Train(epochs=1)}, "set 'iterations' to 2 or more"),
        ({"ratio": 0.5, "iterations": 2, "refine": "quantize"}, "'train' or a 'distill' step"),
        ({"ratio": 0.5, "iterations": 2, "refine": {"train": {"epoch": 1}}}, "did you mean 'epochs'"),
        ({"ratio": 0.5, "iterations": 0}, "iterations"),
        ({"ratio": 0.5, "schedule": "quadratic"}, "'cubic' or 'linear'"),
        ({"ratio": 0.5, "scope": "globl"}, "'global'"),
        ({"ratio": 0.8, "scope": "sensitivity"}, "above the largest of 'ratios'"),
        ({"latency": 0.5, "scope": "sensitivity"}, "not latency"),
        ({"ratio": 0.5, "ratios": (0.5, 0.25)}, "the smallest first"),
        ({"ratio": 0.0}, "greater than 0"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(RecipeError, match=message):
        lz.Prune(**options)


def test_refine_survives_the_recipe():
    step = lz.Prune(macs=0.5, iterations=3, refine=lz.Distill(epochs=2, temperature=2))
    assert lz.Prune(**step.to_dict()) == step
    recipe = Recipe(steps=(step,))
    assert Recipe.model_validate(recipe.to_dict()).steps[0] == step


ROUNDS = """
model: {name: lenet5_classic, num_classes: 3, in_channels: 3, image_size: 32}
task: {name: synthetic, samples: 128, classes: 3, shape: [3, 32, 32]}
target: onnxruntime
measure: {batches: [1], repeats: 1, threads: 1}
steps:
  - prune:
      criterion: taylor
      macs: 0.5
      calibration: 16
      iterations: 2
      refine: {distill: {epochs: 1, batch_size: 64, lr: 0.05}}
  - train: {epochs: 1, batch_size: 64, lr: 0.05}
"""


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_killed_in_and_between_rounds(tmp_path):
    """Killed at the renames of both plans, of the refining, of the row and of the step after it."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(ROUNDS)
    whole = run_small(recipe, tmp_path / "whole", 0)
    assert whole.returncode == 0, whole.stderr
    out, seen = tmp_path / "killed", set()
    for kill_at in (3, 5, 4, 5, 6, 8):
        done = run_small(recipe, out, kill_at)
        if done.returncode != -signal.SIGKILL:
            break
        seen |= {file.name for file in (out / ".work").glob("step-0/*")}
    assert {"plan-0.json", "round-0"} <= seen
    if done.returncode == -signal.SIGKILL:
        done = run_small(recipe, out, 0)
    assert done.returncode == 0, done.stderr
    assert summary(out) == summary(tmp_path / "whole")


def test_a_surgery_that_is_not_exact_is_refused(task, tmp_path, monkeypatch):
    monkeypatch.setattr(lz.prune.Plan, "verify", lambda plan: 0.06)
    model = Net()
    with pytest.raises(GraphError, match="differ from the original"):
        carry_out(task, tmp_path / "run", lz.Prune(ratio=0.5), model)
    assert model.stem.weight.shape[0] == 16


class Block(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x):
        return x + torch.relu(self.linear(self.norm(x)))


class Stack(nn.Module):
    """Pictures to numbers through a list of residual blocks."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(3 * 64, 16)
        self.blocks = nn.ModuleList(Block() for _ in range(6))
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = self.stem(x.flatten(1))
        for block in self.blocks:
            x = block(x)
        return self.head(x)


@pytest.mark.parametrize("criterion", ["influence", "l1"])
def test_whole_layers_go_in_rounds_and_the_artifact_has_what_is_left(task, tmp_path, criterion):
    torch.manual_seed(0)
    step = lz.Prune(granularity="layers", criterion=criterion, ratio=0.5, iterations=2, schedule="linear")
    result = lz.compress(
        Stack(), task, [step, lz.Prune(ratio=0.5), lz.Train(**FAST)], output=tmp_path / "out", measure=MEASURE
    )
    loaded = lz.load(tmp_path / "out")
    inputs = torch.randn(1, 3, 8, 8)
    assert torch.equal(loaded(inputs), result.model.eval()(inputs))
    assert sum(isinstance(module, Block) for module in result.model.modules()) == 3
    notes = " ".join(json.loads((tmp_path / "out" / "report.json").read_text())["notes"])
    assert "round 1 of 2: whole layers removed: blocks." in notes


def test_layers_are_refused_where_they_cannot_be(task, tmp_path):
    with pytest.raises(RecipeError, match="takes a 'ratio' of the blocks"):
        lz.Prune(granularity="layers", macs=0.5)
    for step, message in (
        (lz.Prune(granularity="layers", ratio=0.5, criterion="taylor"), "no criterion 'taylor'"),
        (lz.Prune(granularity="layers", ratio=0.5, ignore=("nothing",)), "matches no layer"),
    ):
        run, _ = run_of(task, tmp_path, step)
        with pytest.raises(RecipeError, match=message):
            checks.check(run, Stack())
    run, _ = run_of(task, tmp_path, lz.Prune(granularity="layers", ratio=0.5))
    with pytest.raises(GraphError, match="no residual blocks"):
        checks.check(run, Net())
