"""The zoo's BiLSTM: what packed sequences compute, at any batch and length, in every runtime, saved and quantized."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import lianzhi as lz
from lianzhi import deploy, graph, measure, models
from lianzhi.errors import DataError, RecipeError
from lianzhi.models.text.bilstm import BiLSTMConfig, bilstm

WORDS, WIDTH, HIDDEN = 40, 6, 10
SHAPES = [(1, 1), (1, 2), (2, 9), (5, 37), (64, 12)]


def small(**options):
    torch.manual_seed(0)
    config = {"vocabulary": WORDS, "width": WIDTH, "hidden": HIDDEN, "linear": 8, "num_classes": 3, **options}
    return lz.model("bilstm", **config)


def inputs(batch, length, seed=0, pairs=False):
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(min(2, length), length + 1, (batch, 1), generator=generator)
    mask = (torch.arange(length) < counts).long()
    made = {"input_ids": torch.randint(2, WORDS, (batch, length), generator=generator) * mask}
    made["attention_mask"] = mask
    if pairs:
        made["token_type_ids"] = (torch.arange(length) >= (counts + 1) // 2).long() * mask
    return made


def packed(model, ids, counts):
    """The last states by PyTorch's own packed, bidirectional LSTM of the same weights."""
    both = nn.LSTM(2 * WIDTH, HIDDEN, batch_first=True, bidirectional=True)
    tensors = dict(model.forwards.state_dict())
    tensors |= {f"{key}_reverse": value for key, value in model.backwards.state_dict().items()}
    both.load_state_dict(tensors)
    read = torch.cat([model.static(ids), model.tuned(ids)], -1)
    rows = nn.utils.rnn.pack_padded_sequence(read, counts, batch_first=True, enforce_sorted=False)
    states = both(rows)[1][0]
    return torch.cat([states[0], states[1]], -1)


def test_states_are_those_of_packed_sequences():
    model, batch = small(), inputs(7, 12, seed=3)
    with torch.no_grad():
        expected = packed(model, batch["input_ids"], batch["attention_mask"].sum(1))
        found = model.states(batch["input_ids"], batch["attention_mask"])
    assert torch.allclose(found, expected, atol=1e-6)


def test_logits_of_a_pair_are_those_of_its_two_texts_by_hand():
    model = small(pairs=True).eval()
    first, second = torch.tensor([[5, 6, 7]]), torch.tensor([[8, 9]])
    ids = torch.tensor([[5, 6, 7, 8, 9, 0, 0]])
    types, mask = torch.tensor([[0, 0, 0, 1, 1, 0, 0]]), torch.tensor([[1, 1, 1, 1, 1, 0, 0]])
    with torch.no_grad():
        one = packed(model, first, torch.tensor([3])).numpy()
        two = packed(model, second, torch.tensor([2])).numpy()
        joined = np.concatenate([one, two, abs(one - two), one * two], 1)
        weights = {name: value.numpy() for name, value in model.state_dict().items()}
        hidden = np.maximum(joined @ weights["linear.weight"].T + weights["linear.bias"], 0)
        expected = hidden @ weights["classifier.weight"].T + weights["classifier.bias"]
        found = model(ids, mask, types)["logits"].numpy()
    assert np.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_changes_nothing_whatever_is_in_it(pairs, side):
    model, batch = small(pairs=pairs).eval(), inputs(1, 6, seed=4, pairs=pairs)
    batch = {name: value[:, : int(batch["attention_mask"].sum())] for name, value in batch.items()}
    space = (0, 5) if side == "right" else (5, 0)
    padded = {name: nn.functional.pad(value, space) for name, value in batch.items()}
    padded["input_ids"][padded["attention_mask"] == 0] = 7
    with torch.no_grad():
        assert torch.allclose(model(**padded)["logits"], model(**batch)["logits"], atol=1e-6)


def test_no_gradient_comes_from_padding_or_to_the_static_table():
    model, batch = small().train(), inputs(1, 5)
    batch["attention_mask"][:] = torch.tensor([1, 1, 1, 0, 0])
    batch["input_ids"][:] = torch.tensor([4, 5, 6, 7, 8])
    model(**batch)["logits"].sum().backward()
    moved = model.tuned.weight.grad.abs().sum(1)
    assert (moved[[4, 5, 6]] > 0).all()
    assert moved.count_nonzero() == 3
    assert model.static.weight.grad is None
    assert not model.static.weight.requires_grad


def test_a_text_of_no_token_has_states_of_zero():
    model = small()
    with torch.no_grad():
        assert (
            model.states(torch.ones(2, 3, dtype=torch.long), torch.zeros(2, 3, dtype=torch.long)).abs().max()
            == 0
        )


@pytest.mark.parametrize("pairs", [False, True])
def test_sizes_of_the_paper(pairs):
    model = bilstm(BiLSTMConfig(width=300, pairs=pairs))
    tables = 2 * 10_000 * 300
    gates = 4 * 150 * (600 + 150) + 2 * 4 * 150
    head = (1200 if pairs else 300) * 200 + 200 + 200 * 2 + 2
    assert measure.parameters(model) == tables + 2 * gates + head
    assert 2 * gates + 300 * 200 + 602 < 1_000_000


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model of pairs, which does all that one of single texts does, and its file."""
    model = small(pairs=True)
    folder = tmp_path_factory.mktemp("exported")
    return model, deploy.export_onnx(model, inputs(1, 7, pairs=True), folder / "m.onnx")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_any_batch_and_length_in_the_runtimes(exported, runtime):
    pytest.importorskip(runtime)
    model, file = exported
    session = deploy.load(file, runtime=runtime, precision="f32")
    assert list(session.outputs) == ["logits"]
    model.eval()
    for seed, shape in enumerate(SHAPES):
        batch = inputs(*shape, seed=seed, pairs=True)
        with torch.no_grad():
            expected = model(**batch)["logits"]
        assert torch.allclose(session(batch), expected, atol=1e-4), shape


def test_a_captured_lstm_takes_any_length():
    model = small().eval()
    module = graph.capture(model, inputs(1, 7), dynamic_length=True).module
    for seed, shape in enumerate(SHAPES):
        batch = inputs(*shape, seed=seed)
        assert torch.equal(module(**batch)["logits"], model(**batch)["logits"]), shape


def test_saved_and_loaded_it_is_the_same_model_and_trains(tmp_path):
    model, batch = small(), inputs(3, 8)
    folder = lz.save(model, tmp_path / "m", example_inputs=batch)
    loaded = lz.load(folder)
    assert models.describe(loaded) == models.describe(model)
    model.eval()
    assert torch.equal(loaded(**batch)["logits"], model(**batch)["logits"])
    assert not loaded.static.weight.requires_grad
    before = loaded.forwards.weight_hh_l0.detach().clone()
    optimizer = torch.optim.SGD([value for value in loaded.parameters() if value.requires_grad], 0.5)
    loaded.train()(**batch)["logits"].square().sum().backward()
    optimizer.step()
    assert not torch.equal(loaded.forwards.weight_hh_l0, before)


def test_vectors_are_in_both_tables_and_the_rest_is_drawn(tmp_path):
    numbers = np.asarray([[1, 2], [3, 4]], np.float32)
    np.savez(tmp_path / "v.npz", words=np.asarray(["good", "bad"]), vectors=numbers)
    torch.manual_seed(0)
    words = ("[PAD]", "[UNK]", "bad", "good")
    model = lz.model("bilstm", vocabulary=words, vectors=str(tmp_path / "v.npz"))
    assert torch.equal(model.tuned.weight[2:], torch.tensor([[3.0, 4.0], [1.0, 2.0]]))
    assert torch.equal(model.static.weight, model.tuned.weight)
    assert model.tuned.weight[:2].abs().max() <= 0.25
    assert model.tuned.weight[:2].abs().min() > 0
    said = models.remarks(model)[0]
    assert said.startswith("2 of 4 words (50.0%) have a vector in")
    config = models.describe(model)["config"]
    assert (config["vocabulary"], config["vectors"], config["width"]) == (4, None, 2)


def test_what_does_not_go_together(tmp_path):
    np.savez(tmp_path / "v.npz", words=np.asarray(["good"]), vectors=np.ones((1, 2), np.float32))
    place = str(tmp_path / "v.npz")
    with pytest.raises(RecipeError, match="need the words that they are of"):
        lz.model("bilstm", vectors=place)
    with pytest.raises(RecipeError, match="width 3"):
        lz.model("bilstm", vocabulary=("good",), vectors=place, width=3)
    with pytest.raises(DataError, match="none of the vocabulary's 1 words"):
        lz.model("bilstm", vocabulary=("gut",), vectors=place)
    with pytest.raises(RecipeError, match="no words"):
        lz.model("bilstm", vocabulary=())
    with pytest.raises(DataError, match="needs token_type_ids"):
        small(pairs=True)(**inputs(1, 3))


def test_quantized_its_layers_and_tables_are_int8_and_the_lstms_float(tmp_path):
    model, batches = small(hidden=32, linear=32).eval(), [inputs(8, 9, seed=seed) for seed in range(6)]
    made = lz.quantize.quantize(model, batches[0], batches)
    assert {row["name"] for row in made.report["layers"]} == {"static", "tuned", "linear", "classifier"}
    assert [row["name"] for row in made.report["left_float"]] == ["forwards", "backwards"]
    assert "recurrent" in made.report["left_float"][0]["reason"]
    session = deploy.load(made.export(tmp_path / "int8.onnx"), runtime="onnxruntime")
    batch = inputs(5, 21, seed=9)
    with torch.no_grad():
        expected = model(**batch)["logits"]
    assert torch.allclose(session(batch), expected, atol=0.05 * float(expected.std()))


def test_macs_are_those_of_gates_and_layers():
    steps, gates = 7, 4 * HIDDEN * (2 * WIDTH + HIDDEN)
    assert measure.macs(small(), inputs(1, steps)) == steps * 2 * gates + 2 * HIDDEN * 8 + 8 * 3


def test_units_of_the_lstms_are_pruned():
    model, batch = small(hidden=32, linear=32).eval(), inputs(2, 9)
    plan = lz.prune.plan(model, batch, ratio=0.5, scope="layer")
    assert plan.verify() < 1e-4
    pruned = plan.apply()
    assert {pruned.forwards.hidden_size, pruned.backwards.hidden_size, pruned.linear.out_features} == {16}
    assert pruned.linear.in_features == 32
    assert pruned(**inputs(3, 14))["logits"].shape == (3, 3)
