"""What a recipe says of quantization: every setting reaches the file, the report says it truly, and what does not fit is refused."""

import json

import onnx
import pytest
import torch
from torch import nn

import lianzhi as lz
from lianzhi import deploy, quantize
from lianzhi import recipe as recipes
from lianzhi.cli import main
from lianzhi.errors import DataError, RecipeError

OPTIONS = {"measure": lz.Measure(batches=(1,), repeats=2, max_drop=1.0), "progress": False}


class Net(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.conv, self.norm = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)
        self.wide, self.head = nn.Linear(576, 32), nn.Linear(32, 3)

    def forward(self, x):
        return self.head(self.wide(self.norm(self.conv(x)).relu().flatten(1)).relu())


@pytest.fixture(scope="module")
def task():
    return lz.task("synthetic", samples=96, classes=3, shape=(3, 8, 8))


def compressed(task, folder, *, target="onnxruntime", precision=None, **step):
    steps = [lz.Quantize(calibration=16, **step)]
    return lz.compress(Net(), task, steps, output=folder, target=target, precision=precision, **OPTIONS)


def types_of_weights(path):
    """ONNX's numbers of the types that matrices and kernels are stored in."""
    graph = onnx.load(path).graph
    scales = {node.input[1] for node in graph.node if node.op_type == "DequantizeLinear"}
    return {item.data_type for item in graph.initializer if len(item.dims) > 1 and item.name not in scales}


ALONE = {"activations": "float"}


def test_the_ratio_of_packed_integers_is_that_to_the_float_model(task, tmp_path):
    steps = [lz.Quantize(calibration=16), lz.Pack()]
    result = lz.compress(
        Net(), task, steps, output=tmp_path / "out", target="onnxruntime", precision="int8", **OPTIONS
    )
    packed = result.report.rows[-1]["details"]["packed"]
    assert packed["bytes_float"] == lz.codebook.pack(Net().state_dict(), tmp_path / "float.lzc").bytes_float
    assert packed["ratio"] == packed["bytes_float"] / (tmp_path / "out" / "model.lzc").stat().st_size > 2
    assert "whole file | – (76.3 kB)" in result.report.to_markdown()


@pytest.mark.parametrize(
    ("target", "step", "precision", "kinds"),
    [
        ("openvino", {"weights": "int8", **ALONE}, "int8-weights", {3}),
        ("onnxruntime", {"weights": "int4", **ALONE}, "int4-weights", {22}),
        ("onnxruntime", {"layers": {"head": "float", "wide": "int4"}, **ALONE}, "mixed-weights", {3, 22, 1}),
        ("openvino", {"layers": {"wide": "int4"}}, "mixed", {3, 22}),
        *(
            pytest.param(*values, marks=pytest.mark.slow)
            for values in (
                ("openvino", {"weights": "int4", **ALONE, "group_size": 64}, "int4-weights", {22}),
                ("onnxruntime", {"weights": "float16", **ALONE}, "f16-weights", {10}),
                ("openvino", {"weights": "bfloat16", **ALONE}, "bf16-weights", {16}),
                ("onnxruntime", {"weights": "int4"}, "int4", {22}),
                ("onnxruntime", {"layers": {"wide": "float"}, "ignore": "head"}, "int8", {3, 1}),
            )
        ),
    ],
)
def test_what_is_stored_is_what_the_report_says(task, tmp_path, target, step, precision, kinds):
    result = compressed(task, tmp_path / "out", target=target, precision=precision, **step)
    row, decision = result.report.rows[-1], result.report.decision
    assert (row["runtime"], row["precision"], decision["precision"]) == (target, precision, precision)
    assert types_of_weights(tmp_path / "out" / "model.onnx") == kinds
    assert row["bytes"] == (tmp_path / "out" / "model.onnx").stat().st_size
    inputs = torch.randn(5, 3, 8, 8)
    loaded = lz.load(tmp_path / "out")
    with torch.no_grad():
        assert torch.equal(loaded(inputs), result.model.eval()(inputs))
    found = torch.as_tensor(deploy.load(tmp_path / "out", runtime=target)(inputs))
    assert torch.allclose(found, loaded(inputs), atol=2e-2)
    assert not torch.equal(loaded(inputs), Net().eval()(inputs))
    assert main(["evaluate", str(tmp_path / "out"), "--task", "synthetic", "--set", "samples=96", "--set", "classes=3", "--set", "shape=[3,8,8]", "--quiet"]) == 0  # fmt: skip


def test_float_and_weights_alone_are_told_apart_in_the_choice(task, tmp_path):
    result = compressed(task, tmp_path / "out", weights="int4", **ALONE)
    lines = {item["file"]: item["precision"] for item in result.report.decision["candidates"]}
    assert lines == {"float.onnx": "f32", "onnxruntime-quantized.onnx": "int4-weights"}
    again = recipes.load(tmp_path / "out" / "recipe.yaml")
    assert again.precision == result.report.decision["precision"]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"weights": "int3"}, "known: int8, int4, float16"),
        ({"weights": "float16"}, "goes with activations='float'"),
        ({"weights": "float32", **ALONE}, "weights 'float32' is the float model.*int8, int4, float16 or bfloat16"),
        ({"weights": "float16", **ALONE, "techniques": ("gptq",)}, "techniques: nothing is rounded to integers"),
        ({"weights": "bfloat16", **ALONE, "max_drop": 0.1}, "max_drop: nothing is rounded"),
        ({"activations": "int4"}, "known: int8, float"),
        ({"group_size": 32}, "group_size: 32 is for integer weights alone"),
        ({"group_size": 48, **ALONE}, "known: 32, 64, 128"),
        ({"layers": {"wide": "int2"}}, "'wide' is 'int2', and a choice is int4, int8, float"),
        ({"layers": {"wide": "int4"}, "weights": "int4"}, "what they do not name is int8"),
        ({"layers": {"weid": "int4"}}, "'weid' matches no layer; did you mean 'wide'"),
        ({"ignore": "haed"}, "'haed' matches no layer; did you mean 'head'"),
        ({"observer": "entropie"}, "did you mean 'entropy'"),
        ({"observer": "entropy", **ALONE}, "observer: activations are float"),
        ({"observer_options": {"share": 99}}, "unknown option 'share'"),
        ({"reduce_range": True, "weights": "int4"}, "reduce_range: it is for weights 'int8'"),
        ({"calibration_table": "t.json", **ALONE}, "calibration_table: activations are float"),
        ({"where_faster": True, **ALONE}, "'where_faster' goes with activations 'int8'"),
        ({"method": "qat", "weights": "float16", **ALONE}, "'method: qat' trains for integers"),
        ({"method": "qat", "group_size": 32, **ALONE}, "'group_size' goes with 'method: ptq'"),
    ],
)  # fmt: skip
def test_what_is_not_together_is_refused_before_anything_is_written(task, tmp_path, step, message):
    with pytest.raises(RecipeError, match=message):
        compressed(task, tmp_path / "out", **step)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("step", [{"weights": "int4"}, {"layers": {"wide": "int4"}}])
def test_tensorrt_takes_int4_with_float_activations_alone(task, tmp_path, step):
    pytest.importorskip("tensorrt_rtx_bindings")
    with pytest.raises(
        RecipeError, match="'int4' with activations 'int8' is not offered for target 'tensorrt'"
    ):
        compressed(task, tmp_path / "out", target="tensorrt", **step)
    assert not (tmp_path / "out").exists()


def test_a_precision_that_the_step_does_not_give(task, tmp_path):
    with pytest.raises(RecipeError, match="precision: int8, and the steps give int4-weights"):
        compressed(task, tmp_path / "out", precision="int8", weights="int4", **ALONE)
    assert not (tmp_path / "out").exists()


def test_floats_of_16_bits_need_no_calibration_samples(task, tmp_path):
    batch = (torch.randn(12, 3, 8, 8), torch.arange(12) % 3)
    bare = lz.Task(train=[batch], validation=[batch], test=[batch])
    result = compressed(bare, tmp_path / "out", weights="bfloat16", precision="bf16-weights", **ALONE)
    assert result.report.rows[-1]["precision"] == "bf16-weights"
    with pytest.raises(DataError, match="no calibration split"):
        compressed(bare, tmp_path / "other", weights="int4", **ALONE)


def test_training_with_weights_of_4_bits(task, tmp_path):
    step = {"method": "qat", "epochs": 1, "batch_size": 32, "weights": "int4", **ALONE}
    result = compressed(task, tmp_path / "out", precision="int4-weights", **step)
    assert result.report.rows[-1]["precision"] == "int4-weights"


RECIPE = """
model: {{file: {file}, name: Net}}
task: {{name: synthetic, samples: 96, classes: 3, shape: [3, 8, 8]}}
target: onnxruntime
precision: int8
steps:
  - quantize: {step}
measure: {{batches: [1], repeats: 2, max_drop: 1.0}}
"""


def written(folder, step):
    file = folder / "net.py"
    file.write_text("from tests_net import Net\n")
    (folder / "r.yaml").write_text(RECIPE.format(file=file, step=json.dumps(step)))
    return str(folder / "r.yaml")


@pytest.fixture
def net(monkeypatch):
    """The network as a module of a name, for a recipe's `file`."""
    import sys

    monkeypatch.setitem(sys.modules, "tests_net", sys.modules[Net.__module__])


def test_the_table_of_a_run_is_in_its_artifact_and_stands_for_samples(net, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["compress", written(tmp_path, {"calibration": 16}), "-o", "first", "--quiet"]) == 0
    table = quantize.CalibrationTable.read("first/calibration.json")
    assert (table.target, table.samples) == ("onnxruntime", 12)
    (tmp_path / "sub").mkdir()
    again = written(tmp_path / "sub", {"calibration_table": "../first/calibration.json"})
    assert main(["compress", again, "-o", "second", "--quiet"]) == 0
    assert (tmp_path / "first" / "model.onnx").read_bytes() == (
        tmp_path / "second" / "model.onnx"
    ).read_bytes()
    report = json.loads((tmp_path / "second" / "report.json").read_text())
    found = report["rows"][-1]["details"]["quantization"]["onnxruntime"]["calibration"]
    assert found["batches"] == 0
    assert found["table"] == str(tmp_path / "first" / "calibration.json")
    monkeypatch.chdir(tmp_path / "sub")  # the resolved recipe runs from anywhere
    assert main(["compress", str(tmp_path / "second" / "recipe.yaml"), "-o", "third", "--quiet"]) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["steps.0.calibration_table=none.json"], "none.json: the calibration table cannot be read"),
        (["target=openvino"], "of another target: 'onnxruntime', and not 'openvino'"),
        (["target=auto"], "it is of one target; set 'target'"),
        (["model.seed=7"], "of another model"),
        (["steps=[train: {epochs: 1}, quantize: {calibration_table: table.json}]"], "let 'quantize' be the only step"),
    ],
)  # fmt: skip
def test_a_table_of_something_else_is_refused_before_anything_is_written(
    net, tmp_path, monkeypatch, capsys, change, message
):
    monkeypatch.chdir(tmp_path)
    inputs = torch.randn(4, 3, 8, 8)
    quantize.quantize(Net().eval(), inputs[:1], [inputs]).save_table("table.json")
    recipe = written(tmp_path, {"calibration_table": "table.json"})
    sets = [part for item in change for part in ("--set", item)]
    capsys.readouterr()
    for extra in ([], ["--dry-run"]):
        assert main(["compress", recipe, "-o", "second", *sets, *extra]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "second").exists()


def test_a_dry_run_shows_the_settings(net, tmp_path, capsys):
    step = {"weights": "int4", "activations": "float", "group_size": 32}
    assert main(["compress", written(tmp_path, step), "--dry-run", "--set", "precision=int4-weights"]) == 0
    shown = capsys.readouterr().out
    assert "weights=int4, activations=float, group_size=32" in shown


def test_a_cache_for_tensorrt(task, tmp_path):
    pytest.importorskip("tensorrt_rtx_bindings")
    result = compressed(task, tmp_path / "out", target="tensorrt", precision="int8")
    found = quantize.read_tensorrt_cache(tmp_path / "out" / "calibration.cache")
    graph = onnx.load(tmp_path / "out" / "model.onnx").graph
    assert set(found) == {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    assert set(found) >= {graph.input[0].name}
    ranges = quantize.CalibrationTable.read(tmp_path / "out" / "calibration.json").ranges
    assert sorted(found.values()) == pytest.approx(sorted(max(map(abs, item)) for item in ranges.values()))
    assert result.report.decision["runtime"] == "tensorrt"


@pytest.mark.slow
def test_an_older_table_does_not_stay_in_the_folder(task, tmp_path):
    compressed(task, tmp_path / "out", precision="int8")
    assert (tmp_path / "out" / "calibration.json").is_file()
    steps = [lz.Quantize(calibration=16, weights="int4", **ALONE)]
    lz.compress(Net(), task, steps, output=tmp_path / "out", target="onnxruntime", precision="int4-weights", force=True, **OPTIONS)  # fmt: skip
    assert not (tmp_path / "out" / "calibration.json").exists()


def slow(monkeypatch, shares):
    """What the timing finds: a share of the float time for each file, in the order of the tries."""
    left = list(shares)
    monkeypatch.setattr("lianzhi.quantize.speed.slowest_share", lambda *_, **__: left.pop(0))
    return left


def test_layers_that_are_faster_in_float_stay_float(task, tmp_path, monkeypatch):
    left = slow(monkeypatch, [2.0, 1.5, 0.5])  # all in int8, convolutions in float, linear layers in float
    result = compressed(task, tmp_path / "out", precision="int8", where_faster=True)
    assert left == []
    found = result.report.rows[-1]["details"]["quantization"]["onnxruntime"]
    assert found["speed"]["float_kept"] == "linear layers"
    assert found["speed"]["layers"] == ["wide", "head"]
    assert [row["name"] for row in found["layers"]] == ["conv"]
    assert any("linear layers stay float" in note for note in found["notes"])
    step = recipes.load(tmp_path / "out" / "recipe.yaml").steps[0]
    assert (step.where_faster, step.ignore) == (False, ("wide", "head"))
    again = lz.compress(Net(), task, [lz.Quantize(calibration=16, where_faster=True)], output=tmp_path / "out",
                        target="onnxruntime", precision="int8", resume=True, **OPTIONS)  # fmt: skip
    assert again.report.rows == result.report.rows


@pytest.mark.slow
def test_a_run_that_goes_on_does_not_time_again(task, tmp_path, monkeypatch):
    from lianzhi.pipeline import finish

    class Stop(Exception):
        pass

    def stop(*_):
        raise Stop

    slow(monkeypatch, [2.0, 1.5, 0.5])
    steps = [lz.Quantize(calibration=16, where_faster=True)]
    options = {"output": tmp_path / "out", "target": "onnxruntime", "precision": "int8", **OPTIONS}
    with monkeypatch.context() as patch:
        patch.setattr(finish, "finish", stop)
        with pytest.raises(Stop):
            lz.compress(Net(), task, steps, **options)
    result = lz.compress(Net(), task, steps, resume=True, **options)  # a timing would find nothing left
    names = [name for name, _ in result.model.named_buffers() if name.endswith("scale")]
    assert not any("wide" in name or "head" in name for name in names)
    assert any("conv" in name for name in names)


@pytest.mark.parametrize("target", ["onnxruntime", "tensorrt"])
def test_what_cannot_be_timed(task, tmp_path, target):
    steps = [lz.Quantize(calibration=16, where_faster=True)]
    message = "does not run on this machine"
    if target == "onnxruntime":
        steps, message = [*steps, lz.Train(epochs=1)], "make it the last step"
    else:
        pytest.importorskip("tensorrt_rtx_bindings")
    with pytest.raises(RecipeError, match=message):
        lz.compress(Net(), task, steps, output=tmp_path / "out", target=target, **OPTIONS)
    assert not (tmp_path / "out").exists()


def test_every_argument_of_quantize_is_in_the_step():
    """Those of the call itself come from the recipe's other parts."""
    import inspect

    from lianzhi.pipeline.quantizing import SETTINGS

    names = set(inspect.signature(quantize.quantize).parameters)
    assert set(SETTINGS) == names - {"model", "example_inputs", "calibration", "target", "evaluate"}
    assert set(SETTINGS) <= set(lz.Quantize.model_fields)
    assert lz.Quantize().observer == quantize.DEFAULT_OBSERVER
