"""Embedding tables: rounded a row at a time, stored as integers, looked up as integers."""

import json

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from table_nets import CPU, WIDTH, WORDS, Plain, Tied, Tokens, made, quantized, rows_of, stored

from lianzhi import deploy, measure
from lianzhi.errors import DataError, RecipeError
from lianzhi.graph import deserialize, serialize
from lianzhi.quantize import lint, make_trainable, quantize, sensitivity, trained
from lianzhi.quantize.affine import MIN_SCALE
from lianzhi.quantize.lower import lower
from lianzhi.quantize.rows import rounded_weight
from lianzhi.quantize.tables import TABLE, row_scales

# -- rounding ---------------------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(
    rows=st.integers(2, 40),
    width=st.integers(1, 33),
    spread=st.floats(-30, 30),
    seed=st.integers(0, 2**16),
)
def test_any_table_is_rounded_to_half_a_step_of_its_row(tmp_path_factory, rows, width, spread, seed):
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(rows, width, generator=generator) * 10 ** torch.empty(rows, 1).uniform_(
        -abs(spread), spread, generator=generator
    )
    table[0] = 0.0
    ids = torch.randint(0, rows, (3, 5), generator=generator)
    form = quantize(Plain(table).eval(), ids, [ids])
    scale = table.abs().amax(1, keepdim=True).double() / 127
    found = form.model(ids)
    wrong = (found.double() - table[ids].double()).abs()
    assert (wrong <= 0.5001 * scale.clamp(min=MIN_SCALE)[ids]).all()
    assert not found[ids == 0].any()
    path = form.export(tmp_path_factory.mktemp("table") / "model.onnx")
    for runtime in CPU:
        np.testing.assert_array_equal(
            deploy.load(path, runtime=runtime, threads=1)(ids).numpy(), found.numpy()
        )


def test_rows_have_scales_of_their_own():
    table = torch.tensor([[1.27, 0.0], [0.0, -1270.0], [0.0, 0.0]])
    assert row_scales(table).tolist() == pytest.approx([0.01, 10.0, MIN_SCALE])
    ids = torch.tensor([[2, 1, 0]])
    found = quantize(Plain(table).eval(), ids, [ids]).model(ids)
    torch.testing.assert_close(found, torch.tensor([[[0.0, 0.0], [0.0, -1270.0], [1.27, 0.0]]]))


# -- the file ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [*CPU, "pytorch"])
def test_the_file_computes_what_the_module_does(target, tmp_path):
    model, ids, form = quantized(target=target)
    assert set(rows_of(form)) == {"word", "place", "kind"}
    assert all(row["weight_sqnr_db"] > 40 and row["output_sqnr_db"] > 40 for row in rows_of(form).values())
    path = form.export(tmp_path / "model.onnx")
    assert lint(path, target if target in CPU else "onnxruntime") == []
    for count in (1, 5, 24):
        tokens = torch.randint(0, WORDS, (count, ids.shape[1]))
        with torch.no_grad():
            expected, exact = form.model(tokens), model(tokens)
            torch.testing.assert_close(lower(form.model)(tokens), expected, rtol=1e-6, atol=1e-6)
        assert (expected - exact).square().mean() < 0.002 * exact.square().mean()
        for runtime in CPU:
            found = deploy.load(path, runtime=runtime, threads=1)(tokens)
            assert (found - expected).square().mean() < 1e-4 * expected.square().mean(), runtime


def test_integers_are_stored_once_and_are_not_made_floats_at_load(tmp_path):
    import onnxruntime

    _, _, form = quantized()
    path = form.export(tmp_path / "model.onnx")
    int8, floats = onnx.TensorProto.INT8, onnx.TensorProto.FLOAT
    expected = {"word.weight_int8": (int8, (WORDS, WIDTH)), "word.weight_row_scale": (floats, (WORDS, 1))}
    assert stored(path) == expected
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    assert stored(tmp_path / "optimized.onnx") == expected
    kinds = [node.op_type for node in onnx.load(path).graph.node if "word.weight_int8" in node.input]
    assert kinds == ["Gather", "Gather"]


def test_a_file_of_fixed_size(tmp_path):
    model, ids = made()
    form = quantize(model, ids[:2], [ids[:2]])
    fixed = deploy.load(form.export(tmp_path / "model.onnx"), runtime="onnxruntime")
    with torch.no_grad():
        torch.testing.assert_close(fixed(ids[:2]), form.model(ids[:2]), rtol=1e-4, atol=1e-4)


def test_the_quantized_model_is_saved_and_loaded():
    model, ids, form = quantized()
    text = json.dumps(serialize.to_json(form.model))
    again = deserialize.from_json(json.loads(text), dict(form.model.state_dict()))
    with torch.no_grad():
        torch.testing.assert_close(again(ids), form.model(ids), rtol=0, atol=0)
    assert measure.macs(again, ids[:1]) == measure.macs(model, ids[:1])


def test_tensorrt_keeps_tables_in_float_and_says_so(tmp_path):
    _, _, form = quantized(target="tensorrt")
    left = {item["name"]: item["reason"] for item in form.report["left_float"]}
    assert all("makes the whole table float" in left[name] for name in ("word", "place", "kind"))
    assert not rows_of(form)
    path = form.export(tmp_path / "model.onnx")
    assert lint(path, "tensorrt") == []
    assert {kind for kind, _ in stored(path).values()} == {onnx.TensorProto.FLOAT}


def test_tensorrt_s_builder_takes_no_stored_integers_before_a_look_up(tmp_path):
    """The reason of the rule above; the day that it fails, tables can be int8 there as well."""
    pytest.importorskip("tensorrt_rtx_bindings")
    _, _, form = quantized(target="onnxruntime", activations="float")
    path = form.export(tmp_path / "model.onnx")
    assert deploy.tensorrt.check(path) == []
    with pytest.raises(deploy.tensorrt.builder.TargetError, match="only allowed before DQ"):
        deploy.tensorrt.build(path, tmp_path / "model.rtx.engine")


# -- which tables, and in which precision -----------------------------------------------------------------


@pytest.mark.parametrize("options", [{"ignore": ["word"]}, {"layers": {"wo*": "float"}}])
def test_a_table_that_is_named_stays_float(options, tmp_path):
    _, _, form = quantized(**options)
    assert set(rows_of(form)) == {"place", "kind"}
    assert {"name": "word", "reason": "ignored, as asked"} in form.report["left_float"]
    assert stored(form.export(tmp_path / "model.onnx")) == {
        "word.weight": (onnx.TensorProto.FLOAT, (WORDS, WIDTH))
    }


@pytest.mark.parametrize(
    "options",
    [
        {"weights": "int4", "activations": "float"},
        {"weights": "int4", "activations": "float", "group_size": 32},
        {"layers": {"*": "int4"}},
    ],
)
def test_tables_are_int8_where_weights_are_int4(options, tmp_path):
    _, ids, form = quantized(**options)
    assert any(
        "embedding tables are int8, not int4: word, kind, place" in note
        or "embedding tables are int8, not int4: word, place, kind" in note
        for note in form.report["notes"]
    )
    assert all(row["weight_sqnr_db"] > 40 for row in rows_of(form).values())
    path = form.export(tmp_path / "model.onnx")
    assert stored(path)["word.weight_int8"][0] == onnx.TensorProto.INT8
    with torch.no_grad():
        expected = form.model(ids)
    found = deploy.load(path, runtime="onnxruntime", threads=1)(ids)
    assert (found - expected).square().mean() < 1e-3 * expected.square().mean()


def test_a_table_takes_no_int4():
    with pytest.raises(
        RecipeError, match="'word' is an embedding table, which takes int8 or float, not int4"
    ):
        quantized(layers={"word": "int4"})


@pytest.mark.parametrize("activations", ["int8", "float"])
@pytest.mark.parametrize("ignore", [["out"], ["out", "place"]])  # rows of "place" are looked up at export
def test_a_file_whose_only_integers_are_tables_is_not_called_float(activations, ignore, tmp_path):
    _, _, form = quantized(ignore=ignore, activations=activations)
    assert deploy.held_precision(form.export(tmp_path / "model.onnx")) == "int8-weights"


def test_tables_do_not_make_4_bits_mixed(tmp_path):
    _, _, form = quantized(weights="int4", activations="float")
    assert deploy.held_precision(form.export(tmp_path / "model.onnx")) == "int4-weights"


def test_seven_bits_are_for_products():
    _, _, form = quantized(reduce_range=True)
    assert all(row["weight_sqnr_db"] > 40 for row in rows_of(form).values())


@pytest.mark.parametrize("bad", [torch.full((2, 7), WORDS), torch.full((2, 7), -1)])
@pytest.mark.parametrize(
    "options",
    [{}, {"weights": "int4", "activations": "float"}, {"weights": "float16", "activations": "float"}],
)
def test_calibration_ids_that_the_model_does_not_take(bad, options):
    model, ids = made()
    with pytest.raises(DataError, match=r"calibration batch 1: the model does not run on it .*vocabulary"):
        quantize(model, ids[:2], [ids[:2], bad], **options)
    with pytest.raises(DataError, match="calibration batch 0: the model does not run on it"):
        sensitivity(model, ids[:2], [bad])


@pytest.mark.parametrize("weights", ["float16", "bfloat16"])
def test_floats_of_16_bits_hold_tables_too(weights):
    _, _, form = quantized(weights=weights, activations="float")
    assert all(row["weight_sqnr_db"] > 40 for row in rows_of(form).values())


def test_accuracy_control_returns_a_table(tmp_path):
    model, ids = made()
    with torch.no_grad():
        model.word.weight[:, 0] = 100.0  # what is beside it is rounded away, and the norm takes the mean off
        model.norm.weight[0] = 0.0
        model.place.weight.zero_()
        model.kind.weight.zero_()
        exact = model(ids)

    def evaluate(module):
        with torch.no_grad():
            return 1 - float((module(ids) - exact).square().mean() / exact.square().mean())

    plain = quantize(model, ids[:2], [ids], evaluate=evaluate).report["accuracy"]["quantized"]
    form = quantize(model, ids[:2], [ids], evaluate=evaluate, max_drop=(1 - plain) / 4)
    assert form.report["control"]["returned"] == ["word"]
    assert form.report["control"]["met"]
    assert set(rows_of(form)) == {"place", "kind"}
    assert {"name": "word", "reason": "accuracy control"} in form.report["left_float"]
    path = form.export(tmp_path / "model.onnx")
    assert stored(path) == {"word.weight": (onnx.TensorProto.FLOAT, (WORDS, WIDTH))}
    alone = quantize(model, ids[:2], [ids], ignore=["word"])
    with torch.no_grad():
        torch.testing.assert_close(form.model(ids), alone.model(ids), rtol=1e-3, atol=1e-3)


# -- tied tables ------------------------------------------------------------------------------------------


def test_a_tied_table_is_stored_once(tmp_path):
    _model, ids, form = quantized(Tied)
    assert set(rows_of(form)) == {"decoder"} == set(rows_of(form, "linear")) - {"hidden"}
    path = form.export(tmp_path / "model.onnx")
    integers = {name for name, (kind, _) in stored(path).items() if kind == onnx.TensorProto.INT8}
    assert integers == {"decoder.weight_int8"}
    with torch.no_grad():
        expected = form.model(ids)
    for runtime in CPU:
        found = deploy.load(path, runtime=runtime, threads=1)(ids)
        assert (found - expected).square().mean() < 1e-4 * expected.square().mean(), runtime


@pytest.mark.parametrize(
    "options", [{"ignore": ["decoder"]}, {"ignore": ["hidden"]}, {"layers": {"decoder": "float"}}]
)
def test_a_tied_table_goes_with_its_decoder(options):
    _, _, form = quantized(Tied, **options)
    assert ("decoder" in rows_of(form)) == ("decoder" in rows_of(form, "linear"))
    names = [item["name"] for item in form.report["left_float"]]
    assert len(names) == len(set(names)) == 1


def test_a_table_stays_float_beside_an_op_that_reads_all_of_it_in_float():
    class Scores(Tied):
        def forward(self, ids):
            return torch.matmul(self.hidden(self.norm(self.word(ids))), self.word.weight.T)

    _, _, form = quantized(Scores)
    assert not rows_of(form)
    assert any("reads the same table in float" in item["reason"] for item in form.report["left_float"])


def test_a_decoder_of_4_bits_leaves_the_table_its_own_8(tmp_path):
    _, _, form = quantized(Tied, layers={"decoder": "int4"})
    assert (
        rows_of(form)["decoder"]["weight_sqnr_db"] > 40 > rows_of(form, "linear")["decoder"]["weight_sqnr_db"]
    )
    kinds = {kind for kind, _ in stored(form.export(tmp_path / "model.onnx")).values()}
    assert onnx.TensorProto.INT8 in kinds
    assert onnx.TensorProto.INT4 in kinds


# -- training ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", [Tokens, Tied])
@pytest.mark.parametrize("lsq", [True, False])
def test_tables_train_on_their_grid(net, lsq, tmp_path):
    _, ids, form = quantized(net)
    module = make_trainable(form, lsq=lsq)
    with torch.no_grad():
        torch.testing.assert_close(module(ids), form.model(ids), rtol=1e-5, atol=1e-5)
    name = "decoder.weight" if net is Tied else "word.weight"
    weight = module.get_parameter(name)
    before = weight.detach().clone()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    module.train()
    for _ in range(3):
        optimizer.zero_grad()
        module(ids[:8]).square().sum().backward()
        optimizer.step()
    assert (weight.detach() - before).abs().max() > 0
    if net is Tokens:
        unseen = [row for row in range(WORDS) if row not in ids[:8]]
        assert torch.equal(weight.detach()[unseen], before[unseen])
        assert torch.equal(weight.detach()[0], before[0])  # of padding, which has no gradient
    module.eval()
    result = trained(form, module)
    path = result.export(tmp_path / "model.onnx")
    with torch.no_grad():
        expected = module(ids)
        torch.testing.assert_close(result.model(ids), expected, rtol=1e-5, atol=1e-5)
    found = deploy.load(path, runtime="onnxruntime", threads=1)(ids)
    assert (found - expected).square().mean() < 1e-4 * expected.square().mean()


def test_the_grid_of_a_table_is_that_of_a_weight():
    table = torch.randn(9, 5)
    ids = torch.arange(9)[None]
    form = quantize(Plain(table).eval(), ids, [ids])
    torch.testing.assert_close(form.model(ids)[0], rounded_weight(table, TABLE), rtol=1e-6, atol=1e-6)


# -- a BERT -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", CPU)
def test_a_bert(target, tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=700, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=40, num_labels=3,
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config).eval()

    def tokens(batch, length):
        ids = torch.randint(1, 700, (batch, length))
        kinds = (torch.arange(length) > length // 2).long().expand(batch, length)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": kinds}

    form = quantize(model, tokens(2, 9), [tokens(8, length) for length in (5, 12)], target=target)
    home = "bert.embeddings"
    tables = [f"{home}.{name}_embeddings" for name in ("word", "position", "token_type")]
    assert set(rows_of(form)) == set(tables)
    path = form.export(tmp_path / "model.onnx")
    assert lint(path, target) == []
    floats = quantize(model, tokens(2, 9), [tokens(8, 9)], target=target, ignore=[f"{home}.*"])
    larger = floats.export(tmp_path / "float-tables.onnx")
    saved = measure.size(larger) - measure.size(path)
    assert saved > 0.9 * (700 + 40) * (3 * 32 - 4)  # a byte a number and a scale a row instead of four bytes
    for batch, length in ((1, 6), (4, 20)):
        inputs = tokens(batch, length)
        with torch.no_grad():
            expected = form.model(**inputs)["logits"]
        for runtime in CPU:
            found = deploy.load(path, runtime=runtime, threads=1)(inputs)
            assert (found - expected).square().mean() < 1e-3 * expected.square().mean(), runtime
