"""`compress`, `export`, `measure` and `inspect` on ONNX files that were made elsewhere."""

import json

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import nn

import lianzhi
from lianzhi import deploy
from lianzhi.cli import main
from lianzhi.quantize.onnx_files import speed

rng = np.random.default_rng(0)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A float file whose size of image is open, as other tools write it."""
    helper = onnx.helper
    weight = (rng.normal(size=(8, 3, 3, 3)) / 5).astype(np.float32)
    last = (rng.normal(size=(4, 8)) / 3).astype(np.float32)
    nodes = [
        helper.make_node("Constant", [], ["w"], value=onnx.numpy_helper.from_array(weight)),
        helper.make_node("Constant", [], ["v"], value=onnx.numpy_helper.from_array(last)),
        helper.make_node("Conv", ["x", "w"], ["c"], name="first"),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "v"], ["y"], transB=1, name="last"),
    ]
    described = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", ["n", 3, "h", "w"]), ("y", ["n", 4]))
    ]
    graph = helper.make_graph(nodes, "g", described[:1], described[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=7)
    path = tmp_path_factory.mktemp("foreign") / "detector.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for index in range(6):
        place = folder / f"class{index % 2}"
        place.mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{index}.png")
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(speed, "ROUNDS", 1)


def run_json(capsys, *arguments, code=0):
    capsys.readouterr()
    assert main([*map(str, arguments), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_images_calibrate_a_file(source, images, tmp_path, capsys):
    options = ["--data", images, "--input", "3x16x24", "--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25"]
    result = run_json(
        capsys,
        "compress",
        source,
        *options,
        "--target",
        "onnxruntime",
        "-o",
        tmp_path / "out",
        "--no-measure",
    )
    assert result["calibration"] == {"batches": 1, "samples": 6}
    assert [row["name"] for row in result["layers"]] == ["first", "last"]
    assert result["worth_it"] is None
    assert {item.name for item in (tmp_path / "out").iterdir()} == {
        "model.onnx", "preprocess.json", "report.json",
    }  # fmt: skip
    assert deploy.is_quantized(tmp_path / "out" / "model.onnx")
    assert json.loads((tmp_path / "out" / "preprocess.json").read_text())["size"] == [16, 24]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["decision"] == {"runtime": "onnxruntime", "precision": "int8"}
    assert report["quantization"]["layers"] == result["layers"]
    assert report["format"] == 1
    assert main(["report", str(tmp_path / "out"), "-o", str(tmp_path / "page.html")]) == 2
    assert "of one quantized ONNX file" in capsys.readouterr().err
    assert main(["compress", str(source), *map(str, options), "-o", str(tmp_path / "out"), "-q"]) == 2
    assert "not empty" in capsys.readouterr().err


@pytest.mark.slow
def test_auto_keeps_the_fastest_runtime_and_prints_a_table(source, tmp_path, capsys):
    np.savez(tmp_path / "x.npz", x=rng.normal(size=(20, 3, 8, 8)).astype("f"))
    arguments = ["compress", str(source), "--data", str(tmp_path / "x.npz"), "--threads", "1"]
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "detector.onnx for " in shown
    assert "x the time (1 threads)" in shown
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert set(report["quantization"]["targets"]) == set(deploy.onnx_runtimes())
    assert report["quantization"]["calibration"]["samples"] == 20
    assert report["decision"]["runtime"] == report["quantization"]["target"]


@pytest.mark.parametrize("layout", ["one.npy", "named.npy", "folder of npz"])
def test_arrays(source, tmp_path, capsys, layout):
    values = rng.normal(size=(5, 3, 8, 8)).astype("f")
    data = tmp_path / "data"
    data.mkdir()
    if layout == "one.npy":
        np.save(data / "calibration.npy", values)
    elif layout == "named.npy":
        np.save(data / "x.npy", values)
        np.save(data / "labels.npy", values[:, 0, 0, 0])
    else:
        for index in range(2):
            np.savez(data / f"{index}.npz", x=values, labels=np.arange(5))
    plan = run_json(capsys, "compress", source, "--data", data, "--batch", "2", "--dry-run")
    assert plan["batches"] == (6 if layout == "folder of npz" else 3)


def test_a_task_calibrates(source, tmp_path, capsys):
    options = ["--task", "synthetic", "--set", "shape=[3, 8, 8]", "--set", "samples=64", "--no-measure"]
    result = run_json(
        capsys, "compress", source, *options, "--samples", "8", "--target", "openvino", "-o", tmp_path / "out"
    )
    assert result["calibration"]["samples"] == 8
    assert "synthetic's calibration" in result["data"]


def test_layers_return_to_float_from_the_command_line(source, tmp_path, capsys):
    np.savez(tmp_path / "x.npz", x=rng.normal(size=(32, 3, 8, 8)).astype("f"))
    options = ["--data", tmp_path / "x.npz", "--target", "onnxruntime", "--no-measure", "--max-drop", "0.5"]
    result = run_json(capsys, "compress", source, *options, "-o", tmp_path / "out")
    assert result["control"]["met"]
    assert result["control"]["max_drop"] == 0.5
    assert result["calibration"] == {"batches": 3, "samples": 24}  # a quarter decides
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["quantization"]["control"] == result["control"]
    assert main(["compress", str(source), *map(str, options), "-o", str(tmp_path / "again")]) == 0
    assert "may fall by 0.5: no layer returned" in capsys.readouterr().out


BAD = {
    "max_drop: -1.0 must be 0 or more": ["--data", "IMAGES", "--input", "3x8x8", "--max-drop", "-1"],
    "needs calibration data": [],
    "--input": ["--data", "IMAGES"],
    "no such folder": ["--data", "absent"],
    "unknown target": ["--data", "IMAGES", "--target", "onnxruntim"],
    "target 'pytorch'": ["--data", "IMAGES", "--target", "pytorch"],
    "write the shape": ["--data", "IMAGES", "--input", "3xtall"],
    "write numbers": ["--data", "IMAGES", "--input", "3x8x8", "--mean", "a"],
    "'mean' has 1 values": ["--data", "IMAGES", "--input", "3x8x8", "--mean", "0.5"],
    "the model takes": ["--data", "IMAGES", "--input", "1x8x8"],
    "add --task": ["--data", "IMAGES", "--set", "limit=3"],
    "--resume is for a recipe": ["--data", "IMAGES", "--resume"],
}


@pytest.mark.parametrize("message", BAD)
def test_wrong_calls_are_a_2(source, images, tmp_path, capsys, message):
    options = [str(images) if item == "IMAGES" else item for item in BAD[message]]
    result = run_json(capsys, "compress", source, *options, "-o", tmp_path / "out", code=2)
    assert message in result["error"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "not a readable NumPy"),
        ({"y": [1.0]}, "calibration batch 0"),
        ({"x": [[np.nan]]}, "calibration batch 0"),
    ],
)
def test_damaged_data_are_a_2(source, tmp_path, capsys, content, message):
    file = tmp_path / "data.npz"
    np.savez(file, **content) if content else file.write_bytes(b"PK\x03\x04 nothing")
    result = run_json(capsys, "compress", source, "--data", file, "-o", tmp_path / "out", code=2)
    assert message in result["error"]


def test_options_of_files_are_refused_with_a_recipe(tmp_path, capsys):
    result = run_json(capsys, "compress", tmp_path / "r.yaml", "--target", "openvino", "--batch", "3", code=2)
    assert "--target, --batch is for an .onnx file" in result["error"]
    result = run_json(capsys, "compress", tmp_path / "r.yaml", "--max-drop", "0", code=2)
    assert "--max-drop is for an .onnx file" in result["error"]


def test_nothing_is_unpickled(source, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    result = run_json(
        capsys, "compress", source, "--data", tmp_path / "x.npy", "-o", tmp_path / "out", code=2
    )
    assert "pickled objects are refused" in result["error"]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifact") / "model"
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    preprocess = lianzhi.tasks.Preprocess((8, 8), 3, (0.5,) * 3, (0.5,) * 3)
    lianzhi.save(model, folder, example_inputs=torch.zeros(1, 3, 8, 8))
    (folder / "preprocess.json").write_text(json.dumps(preprocess.to_dict()))
    (folder / "labels.txt").write_text("cat\ndog\n")
    return folder


@pytest.mark.parametrize("target", ["onnxruntime", "openvino", "pytorch"])
def test_an_artifact_is_exported(artifact, tmp_path, capsys, target):
    result = run_json(capsys, "export", artifact, "--target", target, "-o", tmp_path / "out")
    assert result["loaded"] is True
    assert {item.name for item in (tmp_path / "out").iterdir()} == {*result["files"], "export.json"}
    inputs = torch.rand(3, 3, 8, 8)
    place = tmp_path / "out" if target == "pytorch" else tmp_path / "out" / "model.onnx"
    found = deploy.load(place, runtime=target)(inputs)
    torch.testing.assert_close(found, deploy.load(artifact, runtime="pytorch")(inputs), atol=1e-4, rtol=1e-4)
    assert ("predict.py" in result["files"]) is (target != "pytorch")


def test_a_file_is_exported_or_the_reason_is_said(source, artifact, tmp_path, capsys):
    result = run_json(capsys, "export", source, "--target", "openvino", "-o", tmp_path / "out")
    assert result["files"] == ["model.onnx"]
    assert (tmp_path / "out" / "model.onnx").read_bytes() == source.read_bytes()
    for arguments, message in (
        ([source, "--target", "pytorch", "-o", tmp_path / "p"], "cannot be exported for pytorch"),
        ([source, "--target", "tensorflow", "-o", tmp_path / "p"], "unknown target"),
        ([source, "--target", "openvino", "-o", tmp_path / "out"], "not empty"),
        (
            [artifact / "labels.txt", "--target", "openvino", "-o", tmp_path / "p"],
            "nor an .onnx or .lzc file",
        ),
        ([artifact, "--target", "openvino", "-o", artifact, "--force"], "the model itself lies there"),
    ):
        assert message in run_json(capsys, "export", *arguments, code=2)["error"]
    assert not (tmp_path / "p").exists()


def test_measure_takes_the_shape_of_an_open_input(source, capsys):
    error = run_json(capsys, "measure", source, "--repeats", "2", code=2)["error"]
    assert "--input" in error
    result = run_json(
        capsys, "measure", source, "--input", "3x8x8", "--repeats", "2", "--runtime", "onnxruntime"
    )
    assert result["latencies"][0]["median_ms"] > 0
    assert "lianzhi measure" in run_json(capsys, "inspect", source, code=2)["error"]


def test_a_target_that_takes_no_file_is_answered_with_all_that_do(source, images, tmp_path, capsys):
    arguments = [
        "compress",
        str(source),
        "--data",
        str(images),
        "--target",
        "pytorch",
        "-o",
        str(tmp_path / "o"),
    ]
    assert main(arguments) == 2
    assert "choose onnxruntime, openvino, tensorrt" in " ".join(capsys.readouterr().err.split())


def test_nodes_and_observer_are_chosen(source, images, tmp_path, capsys):
    options = ["--data", images, "--input", "3x16x24", "--target", "onnxruntime", "--no-measure"]
    chosen = ["--ignore", "la*", "--observer", "minmax"]
    plan = run_json(capsys, "compress", source, *options, *chosen, "--dry-run")
    assert (plan["observer"], plan["ignore"]) == ("minmax", ["la*"])
    result = run_json(capsys, "compress", source, *options, *chosen, "-o", tmp_path / "out")
    assert [row["name"] for row in result["layers"]] == ["first"]
    assert result["observer"]["name"] == "minmax"
    for wrong, message in (
        ("--observer=minmx", "did you mean 'minmax'"),
        ("--ignore=lost", "matches no node"),
    ):
        found = run_json(capsys, "compress", source, *options, wrong, "-o", tmp_path / "p", code=2)
        assert message in found["error"]
    assert not (tmp_path / "p").exists()
    (tmp_path / "r.yaml").write_text("steps: [quantize]")
    found = run_json(capsys, "compress", tmp_path / "r.yaml", "--observer", "minmax", code=2)
    assert "--observer is for an .onnx file" in found["error"]


def test_a_cache_for_tensorrt_is_beside_the_file(source, images, tmp_path, capsys):
    options = ["--data", images, "--input", "3x16x24", "--target", "tensorrt"]
    result = run_json(capsys, "compress", source, *options, "-o", tmp_path / "out")
    found = lianzhi.quantize.read_tensorrt_cache(tmp_path / "out" / "calibration.cache")
    ranges = {row["name"]: max(abs(row["low"]), abs(row["high"])) for row in result["values"]}
    assert found == pytest.approx(ranges)
    assert "x" in found
    run_json(capsys, "compress", source, *options, "-o", tmp_path / "out", "--force")
    run_json(capsys, "compress", source, *options[:-1], "openvino", "--no-measure", "-o", tmp_path / "out", "--force")  # fmt: skip
    assert not (tmp_path / "out" / "calibration.cache").exists()
