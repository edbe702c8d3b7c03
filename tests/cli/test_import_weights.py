"""`lianzhi import-weights`: what is written, what is said, and that nothing is written on bad input."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import lianzhi as lz
from lianzhi.cli import main
from lianzhi.deploy import oneflow
from lianzhi.models.checkpoints.opening import open_checkpoint

BERT = Path(__file__).parents[1] / "models" / "checkpoints" / "data" / "tensorflow" / "bert.ckpt"


def run(capsys, *arguments):
    """Exit code and JSON of the command."""
    code = main(["import-weights", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_oneflow_checkpoint_into_the_zoo(tmp_path, capsys):
    state = lz.model("lenet5").state_dict()
    oneflow.write(state, tmp_path / "flow")
    code, said = run(capsys, tmp_path / "flow", "-o", tmp_path / "w.safetensors")
    assert code == 0
    assert (said["kind"], said["tensors"], said["renamed"], said["left_out"]) == (
        "oneflow",
        len(state),
        {},
        {},
    )
    assert said["parameters"] == sum(tensor.numel() for tensor in state.values())
    assert said["bytes"] == (tmp_path / "w.safetensors").stat().st_size
    model = lz.model("lenet5", weights=tmp_path / "w.safetensors")
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_tensorflow_with_names_and_reasons(tmp_path, capsys):
    code, said = run(capsys, BERT, "-o", tmp_path / "w.safetensors", "--from", "tensorflow")
    assert code == 0
    wanted = open_checkpoint(BERT)
    found = load_file(tmp_path / "w.safetensors")
    assert said["renamed"]["classifier.weight"] == "output_weights"
    assert said["left_out"] == wanted.left_out
    assert found.keys() == wanted.tensors.keys()
    assert all(torch.equal(found[name], value) for name, value in wanted.tensors.items())


def test_the_summary_and_all_of_it(tmp_path, capsys):
    output = tmp_path / "w.safetensors"
    assert main(["import-weights", str(BERT), "-o", str(output), "--quiet"]) == 0
    said = capsys.readouterr().out
    assert f"{output}: 45 tensors" in said
    assert "renamed: 45\n" in said
    assert "  bert/embeddings/LayerNorm/beta -> bert.embeddings.LayerNorm.bias\n" in said
    assert "… and 41 more (--verbose)" in said
    assert "left out: 3\n  2 kept by the optimizer (bert/pooler/dense/kernel/adam_m)\n  1 a counter" in said
    assert main(["import-weights", str(BERT), "-o", str(output), "--quiet", "--force", "--verbose"]) == 0
    whole = capsys.readouterr().out
    assert "more" not in whole
    assert "  global_step: a counter of training steps" in whole
    assert "  output_weights -> classifier.weight" in whole


def test_a_file_that_is_there_stays(tmp_path, capsys):
    output = tmp_path / "w.safetensors"
    output.write_bytes(b"mine")
    code, said = run(capsys, BERT, "-o", output)
    assert code == 2
    assert "is there already; give another name, or add --force" in said["error"]
    assert output.read_bytes() == b"mine"
    assert run(capsys, BERT, "-o", output, "--force")[0] == 0
    assert len(load_file(output)) == 45


def test_few_values_that_would_fill_the_disk_are_refused(tmp_path, capsys):
    weight = torch.ones(100)
    oneflow.write({str(number): weight for number in range(65)}, tmp_path / "names")
    torch.save({"a": torch.ones(1).expand(10**10)}, tmp_path / "shape.pt")
    for source, written in (("names", "26,000"), ("shape.pt", "40,000,000,000")):
        code, said = run(capsys, tmp_path / source, "-o", tmp_path / "w.safetensors")
        assert code == 2
        assert f"would have {written}; it is damaged" in said["error"]
    oneflow.write({str(number): weight for number in range(64)}, tmp_path / "fewer")
    assert run(capsys, tmp_path / "fewer", "-o", tmp_path / "w.safetensors")[0] == 0


class Attack:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def make(folder: Path, name: str) -> Path:
    """A bad source."""
    place = folder / name
    if name == "hostile.pt":
        torch.save({"a": torch.ones(1), "b": Attack(folder / "ran")}, place)
    if name == "hostile":
        place.mkdir()
        (place / "pickled_data").write_bytes(
            pickle.dumps({"protocol_version": 1, "data": Attack(folder / "ran")})
        )
    if name == "cut.ckpt.index":
        place.write_bytes(BERT.with_name("bert.ckpt.index").read_bytes()[:-9])
    return place


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gone", [], "gone: no such weights file or checkpoint"),
        ("hostile.pt", [], "could run code and was not opened"),
        ("hostile", [], "pickled_data"),
        ("cut.ckpt.index", [], "it is cut off"),
        (
            "gone",
            ["--from", "caffe"],
            "'caffe' is no kind of checkpoint; known: oneflow, pytorch, tensorflow",
        ),
    ],
)
def test_bad_input_writes_nothing(tmp_path, capsys, name, options, message):
    source = make(tmp_path, name)
    before = sorted(tmp_path.rglob("*"))
    code, said = run(capsys, source, "-o", tmp_path / "w.safetensors", *options)
    assert code == 2
    assert message in said["error"]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("output", "message"), [("w.bin", "ends in .safetensors"), ("no/w.safetensors", "there is no folder")]
)
def test_an_output_that_cannot_be(tmp_path, capsys, output, message):
    code, said = run(capsys, BERT, "-o", tmp_path / output)
    assert code == 2
    assert message in said["error"]
    assert not list(tmp_path.iterdir())


def test_heads_are_asked_for(tmp_path, capsys):
    name = "bert.encoders.0.self_attention.query_key_value.bias"
    torch.save(
        {"bert.embeddings.vocab_embeddings.weight": torch.zeros(3, 4), name: torch.arange(12.0)},
        tmp_path / "m.pt",
    )
    code, said = run(capsys, tmp_path / "m.pt", "-o", tmp_path / "w.safetensors")
    assert code == 2
    assert "m.pt" in said["error"]
    assert "(--heads)" in said["error"]
    code, said = run(capsys, tmp_path / "m.pt", "-o", tmp_path / "w.safetensors", "--heads", "2")
    assert code == 0
    assert "apply_residual_post_layernorm=True" in said["notes"][0]
    assert load_file(tmp_path / "w.safetensors")["bert.encoder.layer.0.attention.self.key.bias"].tolist() == [
        2,
        3,
        8,
        9,
    ]


def test_a_home_that_nobody_has_is_a_place_that_is_not_there(tmp_path, capsys):
    code, said = run(capsys, "~no-such-user/model", "-o", tmp_path / "w.safetensors")
    assert code == 2
    assert "~no-such-user/model" in json.dumps(said)
