"""Plain numbers with few zeros take the shortest coding, and names that mean something elsewhere are names."""

import io

import numpy as np
import pytest
import torch
from rich.console import Console

import lianzhi as lz
from lianzhi import files
from lianzhi.cli import common, main
from lianzhi.codebook import coding, values
from lianzhi.codebook.bits import bits_by_name
from lianzhi.errors import ArtifactError

NAMES = ("a[/b].weight", "[bold]x", "[0].weight")


def plain(zeros, count=40_000):
    """Random floats, so many of a hundred of them zero."""
    generator = np.random.default_rng(0)
    found = generator.standard_normal(count).astype(np.float32)
    found[generator.random(count) < zeros / 100] = 0
    return found.view(np.uint32)


@pytest.mark.parametrize("zeros", [1, 3, 10, 20, 24, 26, 50])
def test_no_coding_of_plain_numbers_is_shorter(zeros, monkeypatch):
    bits = plain(zeros)
    found = coding.encode(bits, floats=True)
    monkeypatch.setattr(coding, "DENSE", 1.0)
    every = coding.encode(bits, floats=True)
    assert len(found.data) == len(every.data)
    assert np.array_equal(coding.decode(found.coding, found.data, len(bits), 4), bits)
    if zeros >= 10:
        assert len(found.data) < (1 - zeros / 100 + 0.05) * bits.nbytes


def test_where_it_cannot_pay_nothing_more_is_tried(monkeypatch):
    asked = []
    write = values.write

    def counted(bits, **options):
        asked.append(len(bits))
        return write(bits, **options)

    monkeypatch.setattr(values, "write", counted)
    bits = plain(0)
    bits[:5] = 0
    assert coding.encode(bits, floats=True).coding == "raw"
    assert asked == [len(bits)]


def test_a_few_zeros_make_the_file_smaller(tmp_path):
    weights = {"w": torch.randn(200, 500, generator=torch.Generator().manual_seed(0))}
    report = lz.codebook.pack(weights, tmp_path / "w.lzc", sparsity=0.1)
    assert report.bytes < 0.92 * 400_000
    assert (lz.codebook.unpack(tmp_path / "w.lzc")["w"] == 0).float().mean().item() == pytest.approx(
        0.1, abs=1e-3
    )


@pytest.mark.parametrize(
    "more", [{"sparsity": 0.0}, {"sparsity": 0.3}, {"bits": {"v": 3}}, {"rate": {"v": 2.5}}, {}]
)
def test_float16_is_of_all_that_is_not_shared(tmp_path, more):
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.randn(40, 50, generator=generator) for name in ("v", "w")}
    lz.codebook.pack(state, tmp_path / "a.lzc", other="float16", **more)
    found = lz.codebook.unpack(tmp_path / "a.lzc")
    assert torch.equal(found["w"], found["w"].half().float())
    kept = found["w"] != 0
    assert torch.equal(found["w"][kept], state["w"].half().float()[kept])


@pytest.mark.parametrize("name", NAMES)
def test_names_in_brackets_are_shown_as_they_are(name, monkeypatch, tmp_path):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100)
    monkeypatch.setattr(common, "error_console", lambda: console)
    with common.bar("pack", shown=True) as report:
        report(name, 1, 2)
    assert name in stream.getvalue()
    monkeypatch.setattr("rich.console.Console", lambda **options: console)
    lz.codebook.pack({name: torch.ones(3)}, tmp_path / "a.lzc", progress=True)
    assert list(lz.codebook.unpack(tmp_path / "a.lzc")) == [name]


def test_a_whole_name_is_a_pattern_whatever_stands_in_it():
    assert bits_by_name(["a[0].weight", "a0.weight"], {"a[0].weight": 3}) == {"a[0].weight": 3}
    assert bits_by_name(["a0.weight", "a1.weight"], {"a[0].weight": 3}) == {"a0.weight": 3}
    assert bits_by_name(["a[0].weight", "b"], {"a[0]": 3, "b": 2}) == {"a[0].weight": 3, "b": 2}


def test_a_name_that_safetensors_has_for_itself_is_refused(tmp_path, capsys):
    lz.codebook.pack({"__metadata__": torch.ones(3)}, tmp_path / "a.lzc")
    assert main(["unpack", str(tmp_path / "a.lzc"), "-o", str(tmp_path / "a.safetensors")]) == 2
    assert "'__metadata__'" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["a.lzc"]


def test_a_path_that_names_no_file(tmp_path, capsys):
    with pytest.raises(ArtifactError, match="names no file"):
        lz.codebook.pack({"a": torch.ones(3)}, "")
    (tmp_path / "d.lzc").mkdir()
    files.write_tensors(tmp_path / "w.safetensors", {"a": torch.ones(3)})
    code = main(["pack", str(tmp_path / "w.safetensors"), "-o", str(tmp_path / "d.lzc"), "--force"])
    assert code == 2
    assert "is a folder; give the name of a file" in " ".join(capsys.readouterr().err.split())
