"""The command line: outputs, exit codes, and messages that say the fix."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image
from torch import nn
from typer.main import get_command

from lianzhi import deploy, files, models, tasks
from lianzhi.cli import complete, main
from lianzhi.errors import TargetError

COMMANDS = get_command(importlib.import_module("lianzhi.cli.main").app).commands
RECIPE = """
model: {name: lenet5_classic, in_channels: 3, image_size: 16, num_classes: 3}
task: {name: synthetic, samples: 192, classes: 3, shape: [3, 16, 16]}
target: onnxruntime
precision: int8
measure: {batches: [1], repeats: 3}
steps:
  - train: {epochs: 1, batch_size: 32, lr: 0.05}
  - prune: {ratio: 0.5}
  - quantize: {calibration: 32}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    (folder / "tiny.yaml").write_text(RECIPE)
    assert main(["compress", str(folder / "tiny.yaml"), "-o", str(folder / "out"), "--quiet"]) == 0
    return folder


def run_json(capsys, *arguments):
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_evaluate_gives_the_reported_accuracy_exactly(finished, capsys):
    report = json.loads((finished / "out" / "report.json").read_text())
    result = run_json(capsys, "evaluate", str(finished / "out"))
    assert result["value"] == report["rows"][-1]["value"]
    assert result["samples"] == report["rows"][-1]["samples"]
    by_file = run_json(capsys, "evaluate", str(finished / "out" / "model.onnx"))
    assert by_file["value"] == report["rows"][-1]["value"]


def test_resolved_recipe_runs_again_to_the_same_weights(finished, capsys, tmp_path):
    assert (
        main(["compress", str(finished / "out" / "recipe.yaml"), "-o", str(tmp_path / "again"), "--quiet"])
        == 0
    )
    first = (finished / "out" / "model.safetensors").read_bytes()
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == first


def test_the_resolved_recipe_says_the_options_of_task_and_model_that_were_not_given(finished):
    given = files.parse_yaml((finished / "tiny.yaml").read_text(), "tiny.yaml")
    saved = files.parse_yaml((finished / "out" / "recipe.yaml").read_text(), "recipe.yaml")
    assert not {"validation", "split_seed"} & given["task"].keys()
    options = tasks.registry.get("synthetic").options()
    assert (saved["task"]["validation"], saved["task"]["split_seed"]) == (
        options.validation,
        options.split_seed,
    )
    assert {**saved["task"], **given["task"]} == saved["task"]
    assert ("calibration" in saved["task"]) == ("calibration" in given["task"])
    assert {**saved["model"], **given["model"]} == saved["model"]
    assert saved["model"].keys() >= models.registry.get(saved["model"]["name"]).options().to_dict().keys() - {
        "num_classes"
    }


def test_a_model_for_pytorch_is_evaluated_measured_and_predicted_with(finished, capsys, tmp_path):
    arguments = [
        "--set",
        "target=pytorch",
        "--set",
        "precision=null",
        "--set",
        "steps=[prune: {ratio: 0.5}]",
        "-q",
    ]
    assert main(["compress", str(finished / "tiny.yaml"), "-o", str(tmp_path / "out"), *arguments]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    result = run_json(capsys, "evaluate", str(tmp_path / "out"))
    assert (result["runtime"], result["value"]) == ("pytorch", report["rows"][-1]["value"])
    assert run_json(capsys, "measure", str(tmp_path / "out"), "--repeats", "2")["latencies"]
    Image.new("RGB", (16, 16)).save(tmp_path / "x.png")
    assert run_json(capsys, "predict", str(tmp_path / "out"), str(tmp_path / "x.png"))


def test_measure(finished, capsys):
    result = run_json(
        capsys, "measure", str(finished / "out"), "--runtime", "onnxruntime", "--repeats", "3", "--batch", "2"
    )
    assert result["latencies"][0]["batch"] == 2
    assert result["latencies"][0]["median_ms"] > 0


def test_measure_in_one_precision_takes_the_runtimes_that_have_it(finished, capsys):
    result = run_json(capsys, "measure", str(finished / "out"), "--precision", "int8", "--repeats", "2")
    assert {(entry["runtime"], entry["precision"]) for entry in result["latencies"]} == {
        ("onnxruntime", "int8"),
        ("openvino", "int8"),
    }


def test_predict(finished, capsys, tmp_path):
    from PIL import Image

    Image.new("RGB", (16, 16), (200, 10, 10)).save(tmp_path / "red.png")
    result = run_json(capsys, "predict", str(finished / "out"), str(tmp_path / "red.png"), "--top", "2")
    assert len(result[0]["classes"]) == 2
    assert 0 < result[0]["classes"][0]["probability"] <= 1
    script = [sys.executable, str(finished / "out" / "predict.py"), str(tmp_path / "red.png")]
    printed = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    assert (
        result[0]["classes"][0]["name"] in printed.splitlines()[-3]
        or result[0]["classes"][0]["name"] in printed
    )


def test_inspect(capsys):
    result = run_json(capsys, "inspect", "resnet20")
    assert result["parameters"] > 250_000
    assert result["groups"]
    assert any("output" in item["reason"] for item in result["unprunable"])


def test_inspect_prints_the_names_that_plans_use(capsys):
    assert main(["inspect", "resnet20"]) == 0
    lines = capsys.readouterr().out.splitlines()
    named = [line.split()[:3] for line in lines if "layer1.0.conv1.weight[0]" in line]
    assert named == [["layer1.0.conv1", "16", "channels"]]


def test_inspect_measures_sensitivities_of_an_artifact(finished, capsys, tmp_path):
    """The base is the metric on the validation cut; every group that can be pruned has a value a ratio."""
    plot, floats = tmp_path / "curves.svg", str(tmp_path / "float")
    assert (
        main(["compress", str(finished / "tiny.yaml"), "-o", floats, "--set", "precision=f32", "--quiet"])
        == 0
    )
    arguments = ["inspect", floats, "--sensitivity", "--ratios", "0.5", "--plot", str(plot)]
    result = run_json(capsys, *arguments)
    found = result["sensitivity"]
    cut = run_json(capsys, "evaluate", floats, "--runtime", "pytorch", "--split", "validation")
    assert found["base"] == pytest.approx(cut["value"], abs=1e-9)
    assert found["ratios"] == [0.5]
    assert len(found["values"]) == len(result["groups"])
    assert all(len(row) == 1 and 0 <= row[0] <= 1 for row in found["values"].values())
    assert plot.read_text().count("<polyline") == len(found["values"])
    assert main([*arguments, "--quiet"]) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet20", "--ratios", "0.5"], "only --sensitivity reads these"),
        (["resnet20", "--sensitivity"], "on which task?"),
        (["resnet20", "--sensitivity", "--task", "synthetic"], "add --weights FILE"),
        (["{out}", "--sensitivity", "--ratios", "half"], "write shares"),
        (["{out}", "--sensitivity", "--ratios", "0.5,0.25"], "the smallest first"),
        (["{out}", "--sensitivity", "--criterion", "l3"], "unknown criterion 'l3'"),
        (["{out}", "--weights", "x.safetensors"], "brings its own"),
        (["{tiny}", "--sensitivity", "--task", "synthetic"], "names its own task"),
    ],
)
def test_inspect_refuses_what_it_would_not_read(finished, capsys, arguments, message):
    names = {"out": finished / "out", "tiny": finished / "tiny.yaml"}
    assert main(["inspect", *(argument.format(**names) for argument in arguments)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("kind", complete.LISTED)
def test_list(kind, capsys):
    rows = run_json(capsys, "list", kind)
    assert all(row["name"] and row["summary"] for row in rows)


def test_dry_run_writes_nothing(finished, tmp_path, capsys):
    out = tmp_path / "never"
    assert main(["compress", str(finished / "tiny.yaml"), "-o", str(out), "--dry-run"]) == 0
    assert "prune" in capsys.readouterr().out
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compress", "nowhere.yaml"], "no such recipe"),
        (["compress", "{tiny}", "--set", "steps.1.ratoi=0.5"], "did you mean 'ratio'"),
        (["compress", "{tiny}", "-o", "{full}"], "not empty"),
        (["compress", "{tiny}", "--resume"], "-o FOLDER"),
        (["train", "{tiny}"], "lianzhi compress"),
        (["evaluate", "nowhere"], "no such artifact"),
        (["list", "critera"], "did you mean 'criteria'"),
        (["inspect", "resnet21"], "did you mean"),
        (["predict", "{done}", "missing.png"], "no such image"),
        (["frobnicate"], "no such command"),
        (["compress"], "Missing argument"),
        (["compress", "{tiny}", "--set", "target=openvin", "-o", "{new}"], "did you mean 'openvino'"),
    ],
)
def test_wrong_calls_exit_with_2(finished, tmp_path, capsys, arguments, message):
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("x")
    names = {"tiny": finished / "tiny.yaml", "full": full, "done": finished / "out", "new": tmp_path / "new"}
    assert main([argument.format(**names) for argument in arguments]) == 2
    assert message in capsys.readouterr().err
    assert (full / "mine").read_text() == "x"
    assert not (tmp_path / "new").exists()


def test_errors_in_json_too(capsys):
    assert main(["evaluate", "nowhere", "--json"]) == 2
    assert "no such artifact" in json.loads(capsys.readouterr().out)["error"]


@pytest.mark.parametrize("name", ["compress", "train", "evaluate", "measure", "inspect", "predict", "list"])
def test_help_has_an_example(name, capsys):
    assert main([name, "--help"]) == 0
    assert "Example" in capsys.readouterr().out


def _bomb():
    lines = ["a0: &a0 [" + ",".join("x" * 9) + "]"]
    lines += [f"a{i}: &a{i} [" + ",".join([f"*a{i - 1}"] * 9) + "]" for i in range(1, 10)]
    return "\n".join(lines).encode()


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x00\xff\xfe\x01", "not UTF-8"),
        (b"a: " + b"[" * 5000 + b"]" * 5000, "nested"),
        (_bomb(), "aliases"),
        (b"a: &a [*a]", "aliases"),
        (b"a: !!python/object/apply:os.system ['true']", "not valid YAML"),
        (b"a: 2001-13-45", "not valid YAML"),
        ("fifo", "not a plain file"),
        ("folder", "not a plain file"),
    ],
)
def test_recipes_that_are_none(tmp_path, capsys, content, message):
    file = tmp_path / "配方.yaml"
    if content == "fifo":
        os.mkfifo(file)
    elif content == "folder":
        file.mkdir()
    else:
        file.write_bytes(content)
    assert main(["compress", str(file), "-o", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.write_bytes(b"")])
def test_images_that_are_none(finished, tmp_path, capsys, make):
    make(tmp_path / "x.png")
    assert main(["predict", str(finished / "out"), str(tmp_path / "x.png")]) == 2
    assert "x.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compress", "{tiny}", "-o", "{new}", "--device", "cudda"], "did you mean 'cuda'"),
        (["compress", "{tiny}", "-o", "{new}", "--device", "cuda:9999"], "this machine"),
        (["compress", "{tiny}", "-o", "{new}", "--set", "steps=["], "not valid YAML"),
        (["compress", "{tiny}", "-o", "{new}", "--set", "steps.0.epochs=.inf"], "finite"),
        (["compress", "{tiny}", "-o", "{new}", "--set", "steps.0.batch_size=1e30"], "batch_size"),
        (["compress", "{tiny}", "-o", "{new}", "--set", "measure.batches=[0,1]"], "batches"),
        (["compress", "{tiny}", "-o", "{new}", "--set", "task.samples=99999999999999"], "not enough memory"),
        (
            ["compress", "{tiny}", "-o", "{new}", "--dry-run", "--set", "steps.1.criterion=l3"],
            "unknown criterion 'l3'",
        ),
        (["evaluate", "{done}", "--set", "limit=["], "not valid YAML"),
        (["evaluate", "{done}", "--set", "data=here"], "'data' is no option of the task's own.*--data"),
        (["measure", "{done}", "--precision", "int4"], "no runtime here can take it in int4"),
        (["inspect", "{done}", "--sensitivity", "--plot", "{new}/x.svg"], "no such folder"),
        (["evaluate", "{done}", "--set", "classes=10"], "3 outputs.*10 classes"),
        (["evaluate", "{done}", "--task", "synthetic", "--set", "classes=4"], "3 outputs.*4 classes"),
        (["measure", "{done}", "--batch", "99999999999"], "not enough memory"),
        (["measure", "{done}", "--threads", "100000"], "1024"),
    ],
)
def test_huge_and_impossible_values_exit_with_2(finished, tmp_path, capsys, arguments, message):
    names = {"tiny": finished / "tiny.yaml", "done": finished / "out", "new": tmp_path / "new"}
    assert main([argument.format(**names) for argument in arguments]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("recipe.yaml", "task: [1]"),
        ("recipe.yaml", "- 1"),
        ("report.json", '{"decision": 5}'),
        ("report.json", '{"decision": {"runtime": 3, "precision": "f32"}}'),
    ],
)
def test_damaged_companions_of_a_model(finished, tmp_path, capsys, name, content):
    shutil.copytree(finished / "out", tmp_path / "copy")
    (tmp_path / "copy" / name).write_text(content)
    assert main(["evaluate", str(tmp_path / "copy")]) == 2
    assert "damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = (", r"mine.py:1: running it failed \(SyntaxError"),
        ("import nowhere_to_be_found", r"mine.py:1: running it failed \(ModuleNotFoundError"),
        (
            "def make(num_classes):\n    raise ValueError('no weights')",
            r"mine.py:2: make\(\) failed .*no weights",
        ),
        ("def make():\n    return 1", r"mine.py: make\(\) failed .*num_classes"),
        ("def make(num_classes):\n    return 1", "gave a int"),
        ("def other():\n    return 1", "it has other"),
    ],
)
def test_a_model_file_that_fails_is_named_with_its_line(finished, tmp_path, capsys, text, message):
    (tmp_path / "mine.py").write_text(text)
    model = f"model={{file: {tmp_path / 'mine.py'}, name: make, num_classes: 3}}"
    out = tmp_path / "out"
    assert main(["compress", str(finished / "tiny.yaml"), "-o", str(out), "--set", model]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not out.exists()


def test_ctrl_c_says_how_to_go_on(monkeypatch, capsys):
    from lianzhi import jobs

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "prepare", interrupted)
    assert main(["compress", "recipe.yaml"]) == 130
    assert "--resume" in capsys.readouterr().err


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_the_common_options_and_an_example(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    for option in ("--json", "--device", "--seed", "--quiet", "--verbose", "Example: "):
        assert option in text, option


def test_a_device_is_looked_for_and_is_of_pytorch_alone(finished, capsys):
    out = str(finished / "out")
    assert run_json(capsys, "measure", out, "--device", "cpu", "--repeats", "2")["device"] == "cpu"
    for command in (
        ["evaluate", out],
        ["measure", out],
        ["inspect", "resnet20"],
        ["list", "tasks"],
        ["pack", out, "-o", f"{out}.lzc"],
        ["unpack", f"{out}.lzc", "-o", f"{out}.safetensors"],
        ["import-weights", f"{out}/model.safetensors", "-o", f"{out}.safetensors"],
        ["report", out, "-o", f"{out}.html"],
    ):
        assert main([*command, "--device", "tpu"]) == 2
        assert "device 'tpu' is not known" in capsys.readouterr().err
    with pytest.raises(TargetError, match="onnxruntime computes on the CPU; device 'cuda'"):
        deploy.load(f"{out}/model.onnx", runtime="onnxruntime", device="cuda")


def test_a_session_on_a_device_takes_inputs_there_and_brings_outputs_back():
    linear = nn.Linear(3, 2)
    session = deploy.load(linear, runtime="pytorch", device="cpu")
    inputs = torch.randn(4, 3)
    assert torch.equal(session(inputs), linear(inputs))
    away = deploy.load(nn.Linear(3, 2), runtime="pytorch", device="meta")
    with pytest.raises(NotImplementedError, match="meta tensor"):  # inputs went there, and nothing comes back
        away(inputs)
