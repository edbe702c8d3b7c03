import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lianzhi as lz
from lianzhi.codebook import coding, container, huffman
from lianzhi.codebook.tensors import NAMES, from_bits, to_bits
from lianzhi.errors import ArtifactError, DataError, RecipeError

DTYPES = list(NAMES)
SHAPES = [(), (0,), (1,), (7,), (3, 0, 2), (5, 9), (2, 3, 4, 5)]


def tensor_of(dtype, shape, seed, distinct, zeros):
    """Random bits of a type: NaN payloads, denormals, infinities and negative zeros are among them."""
    generator = np.random.default_rng(seed)
    count = math.prod(shape)
    kind = np.dtype(f"<u{dtype.itemsize}")
    if dtype == torch.bool:
        bits = generator.integers(0, 2, count).astype(np.uint8)
    else:
        pool = np.frombuffer(generator.bytes(distinct * dtype.itemsize), kind)
        bits = pool[generator.integers(0, distinct, count)]
    bits = np.where(generator.random(count) < zeros, 0, bits).astype(kind)
    return from_bits(bits, dtype, shape)


def same(one, other):
    return (
        one.dtype == other.dtype
        and one.shape == other.shape
        and np.array_equal(to_bits(one, ""), to_bits(other, ""))
    )


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(DTYPES),
    st.one_of(st.sampled_from(SHAPES), st.tuples(st.integers(0, 90), st.integers(0, 90))),
    st.integers(0, 1 << 30),
    st.sampled_from([1, 2, 5, 40, 5000]),
    st.sampled_from([0, 0.3, 0.9, 0.999, 1]),
)
def test_every_bit_comes_back_and_packing_again_changes_nothing(
    tmp_path_factory, dtype, shape, seed, distinct, zeros
):
    folder = tmp_path_factory.mktemp("pack")
    tensor = tensor_of(dtype, shape, seed, distinct, zeros)
    report = lz.codebook.pack({"x": tensor}, folder / "a.lzc")
    found = lz.codebook.unpack(folder / "a.lzc")["x"]
    assert same(found, tensor)
    lz.codebook.pack({"x": found}, folder / "b.lzc")
    assert (folder / "a.lzc").read_bytes() == (folder / "b.lzc").read_bytes()
    assert report.bytes == (folder / "a.lzc").stat().st_size


@pytest.mark.parametrize(
    "values",
    [
        [0.0, -0.0],
        [float("nan"), float("inf"), -float("inf")],
        [1e-45, -1e-45, 1e-40],
        [3.5] * 100,
        [0.0] * 100,
    ],
)
def test_special_values(tmp_path, values):
    tensor = torch.tensor(values)
    lz.codebook.pack({"x": tensor}, tmp_path / "a.lzc")
    assert same(lz.codebook.unpack(tmp_path / "a.lzc")["x"], tensor)


@pytest.mark.parametrize("length", [1, 4, 8, 31, 32, 254, 255, 256, 511, 5000])
def test_gaps_of_any_length(length):
    bits = np.zeros(20 * length + 7, np.uint32)
    bits[length::length] = np.arange(1, len(bits[length::length]) + 1)
    filled = np.flatnonzero(bits)
    for section in coding._gaps(filled, coding.values.write(bits[filled], floats=True)[0]):
        data = section.data + bytes(max(0, bits.nbytes // coding.EXPANSION + 1 - len(section.data)))
        assert np.array_equal(coding.decode("gaps", data, len(bits), 4), bits)


@pytest.mark.parametrize(
    ("density", "distinct", "expected"),
    [(0.05, 31, "gaps"), (0.5, 31, "mask"), (1, 31, "codes"), (1, 1 << 20, "raw")],
)
def test_the_shortest_coding(density, distinct, expected):
    generator = np.random.default_rng(0)
    pool = generator.integers(1, 1 << 32, distinct).astype(np.uint32)
    bits = np.where(generator.random(50_000) < density, pool[generator.integers(0, distinct, 50_000)], 0)
    section = coding.encode(bits.astype(np.uint32), floats=True)
    assert section.coding == expected
    assert np.array_equal(coding.decode(section.coding, section.data, 50_000, 4), bits)


def test_float32_that_fits_in_half_is_stored_in_half(tmp_path):
    values = torch.randn(4000)
    for tensor in (values.half().float(), values.bfloat16().float()):
        report = lz.codebook.pack({"x": tensor}, tmp_path / "a.lzc")
        assert report.bytes < 2.1 * len(tensor)
        assert same(lz.codebook.unpack(tmp_path / "a.lzc")["x"], tensor)


def test_half_for_the_rest_is_asked_for(tmp_path):
    state = {"x": torch.randn(4000), "big": torch.tensor([1e6])}
    with pytest.raises(ArtifactError, match="'big' has values that float16 has not"):
        lz.codebook.pack(state, tmp_path / "a.lzc", other="float16")
    assert not (tmp_path / "a.lzc").exists()
    lz.codebook.pack({"x": state["x"]}, tmp_path / "a.lzc", other="float16")
    assert torch.equal(lz.codebook.unpack(tmp_path / "a.lzc")["x"], state["x"].half().float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_tensor_of_tiny_values_alone_is_not_rounded_to_half(tmp_path, dtype):
    state = {
        "tiny": torch.full((5,), 1e-8),
        "norm": torch.tensor([1.0, 0.5, 1e-12, -1e-8]),  # some weights trained away
        "zero": torch.zeros(3),
        "mask": torch.tensor([0.0, -torch.inf, 1e-7]),
        "exact": torch.tensor([2.0**-20]),
    }
    state = {name: tensor.to(dtype) for name, tensor in state.items()}
    report = lz.codebook.pack(state, tmp_path / "a.lzc", other="float16")
    found = lz.codebook.unpack(tmp_path / "a.lzc")
    for name in ("tiny", "mask", "exact", "zero"):
        assert same(found[name], state[name])
    assert torch.equal(found["norm"], state["norm"].half().to(dtype))
    assert report.note.endswith("all their values are below 6.1e-5: 'tiny', 'mask'")
    assert not lz.codebook.pack({"norm": state["norm"]}, tmp_path / "b.lzc", other="float16").note


def test_of_a_module_only_parameters_are_pruned_and_shared(tmp_path):
    model = nn.Linear(30, 20)
    model.register_buffer("mask", torch.full((20, 20), -torch.inf).triu(1))
    lz.codebook.pack(model, tmp_path / "a.lzc", bits=3, sparsity=0.5, other="float16")
    found = lz.codebook.unpack(tmp_path / "a.lzc")
    assert same(found["mask"], model.mask)
    assert len(found["weight"].unique()) <= 8
    with pytest.raises(DataError, match="'mask'"):
        lz.codebook.pack(model.state_dict(), tmp_path / "b.lzc", bits=3)


def test_a_tensor_s_ratio_begins_where_the_file_s_does(tmp_path):
    """With float32: a tensor in half precision that cannot be packed is half of it already."""
    kinds = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8)
    state = {str(kind): torch.randn(40, 50).to(kind) for kind in kinds}
    report = lz.codebook.pack(state, tmp_path / "a.lzc")
    assert sum(layer.bytes_float for layer in report.layers) == report.bytes_float == 2000 * (4 * 4 + 1)
    assert all(layer.ratio == layer.bytes_float / layer.bytes for layer in report.layers)
    assert report.layers[0].ratio == pytest.approx(2, abs=0.05)


def test_tied_tensors_are_stored_once_and_stay_tied(tmp_path):
    weight = torch.randn(100, 30)
    state = {"a": weight, "b": torch.zeros(3), "c": weight, "d": weight[:50]}
    once = lz.codebook.pack({"a": weight, "b": state["b"], "d": state["d"]}, tmp_path / "once.lzc")
    twice = lz.codebook.pack(state, tmp_path / "twice.lzc")
    assert twice.bytes - once.bytes < 60
    assert twice.bytes_float == once.bytes_float
    found = lz.codebook.unpack(tmp_path / "twice.lzc")
    assert found["a"] is found["c"]
    assert list(found) == list(state)
    assert all(same(found[name], state[name]) for name in state)


def test_a_tied_tensor_takes_its_bits_by_any_of_its_names(tmp_path):
    weight = torch.randn(100, 30)
    state = {"embed.weight": weight, "norm": torch.ones(3), "head.weight": weight}
    for pattern in ("embed*", "head*", "head", "*ead.weight"):
        lz.codebook.pack(state, tmp_path / "a.lzc", bits={pattern: 3})
        found = lz.codebook.unpack(tmp_path / "a.lzc")
        assert found["head.weight"] is found["embed.weight"]
        assert len(found["head.weight"].unique()) <= 7


def test_views_transposes_and_parameters(tmp_path):
    base = torch.randn(20, 30)
    state = {"t": base.t(), "step": base[::3, ::2], "row": base[0].expand(5, 30), "p": nn.Parameter(base)}
    lz.codebook.pack(state, tmp_path / "a.lzc")
    found = lz.codebook.unpack(tmp_path / "a.lzc")
    assert all(same(found[name], state[name].detach()) for name in state)


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.zeros(3, dtype=torch.complex128))


def test_what_cannot_be_packed_is_said(tmp_path):
    for value in (
        torch.zeros(3, dtype=torch.complex128),
        torch.eye(3).to_sparse(),
        torch.empty(3, device="meta"),
    ):
        with pytest.raises(ArtifactError, match=r"'x' of type .* cannot be packed"):
            lz.codebook.pack({"x": value}, tmp_path / "a.lzc")
    with pytest.raises(ArtifactError, match="give tensors by name"):
        lz.codebook.pack({"x": 3}, tmp_path / "a.lzc")
    with pytest.raises(ArtifactError, match=r"'x' of type .* cannot be packed"):
        lz.codebook.pack(Complex(), tmp_path / "a.lzc")
    for value in (None, 3, [torch.ones(2)]):
        with pytest.raises(ArtifactError, match="cannot be packed; give a module"):
            lz.codebook.pack(value, tmp_path / "a.lzc")
    for bits, sparsity in ((3, None), (None, 0.5)):
        bad = {"a": torch.ones(3, 3), "b.weight": torch.full((3, 3), math.nan)}
        with pytest.raises(DataError, match=r"'b\.weight': .* NaN"):
            lz.codebook.pack(bad, tmp_path / "a.lzc", bits=bits, sparsity=sparsity)
    for options in (
        {"bits": 0},
        {"bits": 17},
        {"bits": True},
        {"bits": {3: 3}},
        {"sparsity": 1.0},
        {"sparsity": "0.5"},
        {"sparsity": False},
        {"other": "int8"},
    ):
        with pytest.raises(RecipeError, match=next(iter(options))):
            lz.codebook.pack({"x": torch.ones(2)}, tmp_path / "a.lzc", **options)
    with pytest.raises(RecipeError, match="did you mean 'weight'"):
        lz.codebook.pack({"weight": torch.ones(2, 2)}, tmp_path / "a.lzc", bits={"weigth": 4})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("x", lambda: torch.ones([1] * 17 + [4]), "'x' of 18 dimensions cannot be packed; reshape it to 16"),
        ("x", lambda: torch.empty(0, 2**60), "'x' of shape .* cannot be packed; give fewer than"),
        ("x", lambda: torch.ones(1, 1).expand(2**30, 2**30), "'x' of shape .* cannot be packed"),
        ("\ud800", lambda: torch.ones(2, 2), "half a character; rename it"),
        ("x", lambda: torch.eye(4).to_sparse(), "sparse_coo, cpu. cannot be packed"),
        ("x", lambda: torch.empty(3, 3, device="meta"), "strided, meta. cannot be packed"),
        (
            "x",
            lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
            "nested, cpu. cannot be packed",
        ),
        ("x", lambda: torch.ones(3, 3, dtype=torch.complex128), "complex128 .* cannot be packed"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"bits": 2}, {"sparsity": 0.5}, {"other": "float16"}])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_tensors_that_no_file_can_hold_are_refused_before_anything_is_computed(
    tmp_path, name, make, message, options
):
    seen = []
    with pytest.raises(ArtifactError, match=message):
        lz.codebook.pack(
            {"first": torch.ones(2, 2), name: make()},
            tmp_path / "a.lzc",
            progress=lambda *now: seen.append(now),
            **options,
        )
    assert not seen
    assert not list(tmp_path.iterdir())


def test_weights_beyond_float32_are_pruned_and_refused_where_they_are_to_be_shared(tmp_path):
    weight = {"x": torch.tensor([[1e300, -3e300], [2e300, 4e300]], dtype=torch.float64)}
    lz.codebook.pack(weight, tmp_path / "a.lzc", sparsity=0.5)
    assert lz.codebook.unpack(tmp_path / "a.lzc")["x"].tolist() == [[0, -3e300], [0, 4e300]]
    with pytest.raises(DataError, match=r"'x': .*beyond float32"):
        lz.codebook.pack(weight, tmp_path / "b.lzc", bits=2)


@pytest.mark.parametrize("dtype", [dtype for dtype in NAMES if dtype.is_floating_point])
def test_every_floating_type_is_pruned_and_shared(tmp_path, dtype):
    state = {"weight": torch.randn(40, 30).to(dtype), "bias": torch.randn(40).to(dtype)}
    lz.codebook.pack(state, tmp_path / "a.lzc", bits=2, sparsity=0.5, other="float16")
    found = lz.codebook.unpack(tmp_path / "a.lzc")
    assert {tensor.dtype for tensor in found.values()} == {dtype}
    weight = found["weight"].float()
    assert int((weight == 0).sum()) >= 600
    assert len(weight.unique()) <= 4
    assert same(found["bias"], state["bias"]) == (dtype.itemsize <= 2)


def test_a_path_that_cannot_be(tmp_path):
    with pytest.raises(ArtifactError, match="null byte"):
        lz.codebook.pack({"x": torch.ones(2)}, "a\0b.lzc")


def test_a_model_comes_back_as_a_module(tmp_path):
    model = lz.model("resnet20", num_classes=10).eval()
    inputs = torch.randn(2, 3, 32, 32)
    lz.codebook.pack(model, tmp_path / "m.lzc", example_inputs=inputs[:1])
    loaded = lz.load(tmp_path / "m.lzc")
    assert type(loaded) is type(model)
    with torch.no_grad():
        assert torch.equal(loaded(inputs), model(inputs))


def test_a_model_of_the_zoo_knows_what_it_takes(tmp_path):
    model = lz.model("lenet5", image_size=20, in_channels=3).eval()
    lz.codebook.pack(model, tmp_path / "m.lzc", bits=4)
    loaded = lz.load(tmp_path / "m.lzc")
    assert lz.codebook.example_inputs(tmp_path / "m.lzc").shape == (1, 3, 20, 20)
    assert len(loaded.fc1.weight.unique()) <= 16
    assert torch.equal(loaded.fc1.bias, model.fc1.bias)


def test_a_module_without_an_example_is_packed_as_tensors(tmp_path):
    model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 6, bias=False)).half()
    model[2].weight = model[0].weight
    report = lz.codebook.pack(model, tmp_path / "m.lzc")
    found = lz.codebook.unpack(tmp_path / "m.lzc")
    assert {name: same(found[name], value) for name, value in model.state_dict().items()} == dict.fromkeys(
        found, True
    )
    assert found["2.weight"] is found["0.weight"]
    assert "example_inputs" in report.note
    assert report.to_dict()["note"] == report.note
    assert str(report).splitlines()[-1] == f"note: {report.note}"
    assert "note" not in str(lz.codebook.pack(model.state_dict(), tmp_path / "s.lzc"))
    with pytest.raises(ArtifactError, match="unpack"):
        lz.load(tmp_path / "m.lzc")


def test_an_artifact_folder_is_packed_as_it_is(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 6)
            self.two.weight = self.one.weight

        def forward(self, x):
            return self.two(self.one(x))

    model = Tied().eval()
    lz.save(model, tmp_path / "folder", example_inputs=torch.zeros(1, 6))
    lz.codebook.pack(tmp_path / "folder", tmp_path / "m.lzc")
    loaded = lz.load(tmp_path / "m.lzc")
    x = torch.randn(3, 6)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))
    again = tmp_path / "again.lzc"
    lz.codebook.pack(loaded, again, example_inputs=torch.zeros(1, 6))
    with torch.no_grad():
        assert torch.equal(lz.load(again)(x), model(x))


def test_tensors_alone_are_no_model(tmp_path):
    lz.codebook.pack({"x": torch.ones(2)}, tmp_path / "a.lzc")
    with pytest.raises(ArtifactError, match="unpack"):
        lz.load(tmp_path / "a.lzc")
    (tmp_path / "b.lzc").write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(ArtifactError, match=r"not a \.lzc file"):
        lz.load(tmp_path / "b.lzc")


def test_one_tensor_can_be_read_alone(tmp_path):
    state = {"a": torch.randn(10), "b": torch.arange(5), "c": torch.randn(3, 3)}
    lz.codebook.pack(state, tmp_path / "a.lzc")
    with container.Reader(tmp_path / "a.lzc") as reader:
        assert torch.equal(reader.read("c"), state["c"])
        assert reader.entries["b"].info.shape == (5,)


def test_pruned_and_shared_on_the_way(tmp_path):
    state = {"weight": torch.randn(80, 60), "bias": torch.randn(80), "steps": torch.tensor(3)}
    before = {name: tensor.clone() for name, tensor in state.items()}
    report = lz.codebook.pack(state, tmp_path / "a.lzc", bits=4, sparsity=0.9)
    found = lz.codebook.unpack(tmp_path / "a.lzc")
    assert all(same(state[name], before[name]) for name in state)
    assert same(found["bias"], state["bias"])
    assert same(found["steps"], state["steps"])
    kept = found["weight"] != 0
    assert int(kept.sum()) == pytest.approx(480, abs=1)
    assert len(found["weight"].unique()) <= 16
    assert (found["weight"] - state["weight"])[kept].abs().max() < 0.5
    layer = report.layers[0]
    assert (layer.bits, layer.coding) == (4, "gaps")
    assert layer.kept == pytest.approx(0.1, abs=0.001)
    values = found["weight"][kept]
    _, counts = values.unique(return_counts=True)
    assert layer.entropy == pytest.approx(huffman.entropy(counts.numpy()) / len(values))
    assert layer.entropy <= layer.coded < 4
    assert 0 < layer.index_entropy <= layer.index_coded <= layer.index_bits
    named = lz.codebook.pack(state, tmp_path / "b.lzc", bits={"weight": 3})
    assert len(lz.codebook.unpack(tmp_path / "b.lzc")["weight"].unique()) <= 8
    assert named.layers[0].bits == 3
