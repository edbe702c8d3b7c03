import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import lianzhi as lz
from lianzhi.cli import main
from lianzhi.tasks import Preprocess


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("pack") / "model"
    model = lz.model("lenet5_classic", num_classes=3, in_channels=3, image_size=32).eval()
    preprocess = Preprocess(size=(32, 32), channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    inputs = torch.zeros(1, 3, 32, 32)
    recipe = "task: {name: synthetic, samples: 64, classes: 3, shape: [3, 32, 32]}\nsteps: []\n"
    extra = {"recipe.yaml": recipe}
    lz.save(model, folder, example_inputs=inputs, preprocess=preprocess, labels=["a", "b", "c"], extra=extra)
    return folder


def run(capsys, *arguments):
    """Exit code and JSON of a command."""
    code = main([*map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_packed_file_away_from_its_folder_says_what_it_needs_to_predict(folder, tmp_path, capsys):
    assert run(capsys, "pack", folder, "-o", tmp_path / "m.lzc")[0] == 0
    assert main(["predict", str(tmp_path / "m.lzc"), "image.png"]) == 2
    assert "put its preprocess.json and tokenizer beside the file" in capsys.readouterr().err


def test_packed_and_unpacked_weights_are_the_same(folder, tmp_path, capsys):
    code, report = run(capsys, "pack", folder, "-o", tmp_path / "m.lzc")
    assert code == 0
    assert report["bytes"] == (tmp_path / "m.lzc").stat().st_size
    code, found = run(capsys, "unpack", tmp_path / "m.lzc", "-o", tmp_path / "m.safetensors")
    assert code == 0
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "m.safetensors")
    assert found["tensors"] == len(before)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    code, _ = run(capsys, "unpack", tmp_path / "m.lzc", "-o", tmp_path / "again")
    assert code == 0
    assert sorted(item.name for item in (tmp_path / "again").iterdir()) == [
        "architecture.json",
        "model.safetensors",
    ]


def test_a_folder_gets_what_lies_beside_the_packed_file(folder, tmp_path, capsys):
    packed = tmp_path / "run" / "m.lzc"
    packed.parent.mkdir()
    for name in ("preprocess.json", "labels.txt"):
        (packed.parent / name).write_bytes((folder / name).read_bytes())
    assert run(capsys, "pack", folder, "-o", packed)[0] == 0
    code, found = run(capsys, "unpack", packed, "-o", tmp_path / "again")
    assert code == 0
    assert found["bytes"] == sum(item.stat().st_size for item in (tmp_path / "again").iterdir())
    assert (tmp_path / "again" / "labels.txt").read_text() == "a\nb\nc\n"
    assert (tmp_path / "again" / "preprocess.json").is_file()


def test_nothing_is_unpacked_over_the_folder_of_the_packed_file(folder, tmp_path, capsys, monkeypatch):
    assert run(capsys, "pack", folder, "-o", tmp_path / "m.lzc")[0] == 0
    (tmp_path / "report.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    for output in (tmp_path, ".", tmp_path / ".." / tmp_path.name):
        code, error = run(capsys, "unpack", "m.lzc", "-o", output, "--force")
        assert code == 2
        assert "the model itself lies there" in error["error"]
    assert sorted(item.name for item in tmp_path.iterdir()) == ["m.lzc", "report.json"]


def test_pruned_and_shared(folder, tmp_path, capsys):
    options = ["--sparsity", "0.9", "--bits", "conv*=8,*=5", "--other", "float16"]
    code, report = run(capsys, "pack", folder, "-o", tmp_path / "m.lzc", *options)
    assert code == 0
    assert report["ratio"] > 10
    bits = {layer["name"]: layer["bits"] for layer in report["layers"]}
    assert (bits["fc1.weight"], bits["fc2.weight"]) == (5, 5)  # in the others hardly two weights are equal
    assert main(["pack", str(folder), "-o", str(tmp_path / "n.lzc"), *options]) == 0
    assert "above their entropy" in capsys.readouterr().out


def test_commands_take_a_packed_file(folder, tmp_path, capsys):
    from PIL import Image

    file = folder / "model.lzc"
    assert main(["pack", str(folder), "-o", str(file), "-q", "--force"]) == 0
    Image.new("RGB", (40, 40)).save(tmp_path / "image.png")
    capsys.readouterr()
    for name, extra in (
        ("evaluate", ["-q"]),
        ("predict", [tmp_path / "image.png"]),
        ("inspect", []),
        ("measure", ["--repeats", "1"]),
    ):
        code, packed = run(capsys, name, file, *extra)
        assert code == 0, packed
        if name in ("evaluate", "predict", "inspect"):
            _, plain = run(capsys, name, folder, *extra)
            for found in (packed, plain):
                if isinstance(found, dict):
                    found.pop("model")
            assert packed == plain
    for target in ("pytorch", "onnxruntime"):
        code, found = run(capsys, "export", file, "--target", target, "-o", tmp_path / target)
        assert code == 0, found
        assert found["loaded"]
        assert "preprocess.json" in found["files"]
    x = torch.randn(2, 3, 32, 32)
    session = lz.deploy.load(tmp_path / "onnxruntime" / "model.onnx", runtime="onnxruntime")
    with torch.no_grad():
        assert torch.allclose(session(x), lz.load(folder)(x), atol=1e-5)
        assert torch.equal(lz.load(tmp_path / "pytorch")(x), lz.load(folder)(x))


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_an_export_with_codes(folder, tmp_path, capsys, target):
    file = tmp_path / "m.lzc"
    assert main(["pack", str(folder), "-o", str(file), "--bits", "4", "-q"]) == 0
    capsys.readouterr()
    sizes = {}
    for name, flags in (("dense", []), ("codes", ["--codes"])):
        code, found = run(capsys, "export", file, "--target", target, "-o", tmp_path / name, *flags)
        assert code == 0, found
        assert found["loaded"]
        assert found["precision"] == "f32"
        sizes[name] = (tmp_path / name / "model.onnx").stat().st_size
    assert any("a codebook and codes" in note for note in found["notes"])
    assert sizes["codes"] * 3 < sizes["dense"]
    x = torch.randn(2, 3, 32, 32)
    session = lz.deploy.load(tmp_path / "codes" / "model.onnx", runtime=target, precision="f32")
    with torch.no_grad():
        assert torch.allclose(session(x), lz.load(file)(x), atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pack", "{folder}", "-o", "{tmp}/m.bin"], "ends in .lzc"),
        (["pack", "{folder}", "-o", "{tmp}/none/m.lzc"], "make it first"),
        (["pack", "{tmp}/none", "-o", "{tmp}/m.lzc"], "no such artifact"),
        (["pack", "{folder}/recipe.yaml", "-o", "{tmp}/m.lzc"], "give an artifact folder"),
        (["pack", "{folder}", "-o", "{tmp}/m.lzc", "--bits", "many"], "--bits many"),
        (["pack", "{folder}", "-o", "{tmp}/m.lzc", "--bits", "99"], "bits=99"),
        (["pack", "{folder}", "-o", "{tmp}/m.lzc", "--bits", "f*=3, f*=8"], "'f*' stands twice; keep one"),
        (["pack", "{tmp}/bare.lzc", "-o", "{tmp}/m.lzc"], "is packed already; unpack it first"),
        (["pack", "{folder}", "-o", "{tmp}/m.lzc", "--bits", "nothing*=5"], "fits no weight"),
        (["pack", "{folder}", "-o", "{tmp}/m.lzc", "--sparsity", "1.5"], "sparsity=1.5"),
        (["pack", "{folder}", "-o", "{tmp}/m.lzc", "--other", "int8"], "other='int8'"),
        (["unpack", "{tmp}/none.lzc", "-o", "{tmp}/m.safetensors"], "no such file"),
        (["unpack", "{folder}/recipe.yaml", "-o", "{tmp}/m.safetensors"], "not a .lzc file"),
        (["evaluate", "{tmp}/bare.lzc"], "add --task"),
        (["inspect", "{tmp}/bare.lzc"], "holds tensors only"),
        (["measure", "{tmp}/bare.lzc"], "holds tensors only"),
        (["export", "{tmp}/bare.lzc", "--target", "onnxruntime", "-o", "{tmp}/e"], "holds tensors only"),
        (
            ["export", "{folder}", "--target", "pytorch", "-o", "{tmp}/e", "--codes"],
            "--codes is of ONNX files",
        ),
        (
            ["export", "{folder}", "--target", "onnxruntime", "-o", "{tmp}/e", "--codes"],
            "share its weights first",
        ),
        (["evaluate", "{folder}/m.lzc", "--runtime", "onnxruntime"], "lianzhi export"),
        (["measure", "{folder}/m.lzc", "--runtime", "onnxruntime"], "lianzhi export"),
    ],
)
def test_wrong_calls_end_with_two_and_write_nothing(folder, tmp_path, capsys, arguments, message):
    lz.codebook.pack({"x": torch.ones(3)}, tmp_path / "bare.lzc")
    if "m.lzc --runtime" in " ".join(arguments):
        lz.codebook.pack(folder, folder / "m.lzc")
    before = sorted(tmp_path.rglob("*"))
    code, error = run(capsys, *[part.format(folder=folder, tmp=tmp_path) for part in arguments])
    assert code == 2
    assert message in error["error"]
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_is_replaced_without_force(folder, tmp_path, capsys):
    save_file({"x": torch.ones(3)}, tmp_path / "w.safetensors")
    assert run(capsys, "pack", tmp_path / "w.safetensors", "-o", tmp_path / "m.lzc")[0] == 0
    code, error = run(capsys, "pack", tmp_path / "w.safetensors", "-o", tmp_path / "m.lzc")
    assert code == 2
    assert "--force" in error["error"]
    code, error = run(capsys, "unpack", tmp_path / "m.lzc", "-o", tmp_path / "w.safetensors")
    assert code == 2
    assert "--force" in error["error"]
    assert run(capsys, "unpack", tmp_path / "m.lzc", "-o", tmp_path / "w.safetensors", "--force")[0] == 0
    code, error = run(capsys, "unpack", tmp_path / "m.lzc", "-o", tmp_path / "folder")
    assert code == 2
    assert "holds tensors only" in error["error"]
    assert not (tmp_path / "folder").exists()
