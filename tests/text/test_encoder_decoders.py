"""Encoders with a decoder behind them (BART, T5): they take the last of the rows that a mask picks, and give more than logits."""

from __future__ import annotations

import json

import pytest
import torch
from tiny_text import WORDS, write_sst2
from torch.utils.flop_counter import FlopCounterMode

import lianzhi as lz
from lianzhi import cli, deploy, graph, measure
from lianzhi.distill.lengths import fitting
from lianzhi.errors import DataError, GraphError

SAME = {"vocab_size": len(WORDS), "d_model": 32, "pad_token_id": 0, "eos_token_id": 3}
SIDES = {
    f"{side}_{name}": value
    for side in ("encoder", "decoder")
    for name, value in {"layers": 1, "attention_heads": 2, "ffn_dim": 64}.items()
}
CONFIGS = {
    "bart": {"model_type": "bart", "max_position_embeddings": 64, **SIDES, **SAME},
    "mbart": {"model_type": "mbart", "max_position_embeddings": 64, **SIDES, **SAME},
    "t5": {"model_type": "t5", "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, **SAME},
}  # fmt: skip


def made(kind):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return lz.model("huggingface", config=CONFIGS[kind], num_classes=2).eval()


def texts(batch, length):
    """Sentences that end in the token that such a classifier looks for."""
    ids = torch.randint(4, len(WORDS), (batch, length), generator=torch.Generator().manual_seed(length))
    mask = torch.ones_like(ids)
    for row in range(batch):
        last = length - 1 - row % 3
        ids[row, last], ids[row, last + 1 :], mask[row, last + 1 :] = 3, 0, 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("kind", CONFIGS)
def test_products_are_counted(kind):
    model, inputs = made(kind), texts(1, 9)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(**inputs)
    # what the counter does not know: of each attention the scores, and the sum that they weigh
    attentions = {"bart": 3, "mbart": 3, "t5": 6}[kind] * 2 * 9 * 9 * 32
    assert measure.macs(model, inputs) == counter.get_total_flops() / 2 + attentions


@pytest.mark.parametrize("kind", CONFIGS)
def test_saved_and_exported_they_say_the_same_of_any_batch_and_length(kind, tmp_path):
    model = made(kind)
    lz.save(model, tmp_path / "m", example_inputs=texts(1, 9))
    deploy.export_onnx(model, texts(1, 9), tmp_path / "m.onnx")
    found, session = lz.load(tmp_path / "m"), deploy.load(tmp_path / "m.onnx", runtime="onnxruntime")
    assert type(found) is type(model)
    for batch, length in ((1, 5), (2, 9), (4, 14)):
        inputs = texts(batch, length)
        wanted = model(**inputs).logits
        assert torch.equal(found(**inputs).logits, wanted)
        answers = session.by_name(inputs)
        assert answers.keys() == {"logits", "encoder_last_hidden_state"}
        torch.testing.assert_close(answers["logits"], wanted, rtol=1e-4, atol=1e-5)
    inputs = texts(2, 6)
    inputs["input_ids"][1, [1, 3]] = 3  # three ends in one text and one in the other: as many as two a text
    assert int(inputs["input_ids"].eq(3).sum()) == 4
    one_by_one = [model(**{name: value[[row]] for name, value in inputs.items()}).logits for row in range(2)]
    torch.testing.assert_close(session(inputs)[0], torch.cat(one_by_one), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_captured_one_runs_on_one_text(kind):
    """It is traced with two, and the tracer's checks hold for no fewer."""
    model = made(kind)
    captured = graph.capture(model, texts(1, 9), dynamic_length=True)
    for batch, length in ((1, 5), (3, 7)):
        inputs = texts(batch, length)
        torch.testing.assert_close(captured.module(**inputs).logits, model(**inputs).logits)


def test_texts_are_cut_to_the_positions_of_bart(bert, tmp_path):
    data = {"data": str(write_sst2(tmp_path / "data", 90, 20)), "tokenizer": str(bert), "max_length": 64}
    task = lz.task("sst2", segments=False, **data)
    short = lz.model("huggingface", config={**CONFIGS["bart"], "max_position_embeddings": 24}, num_classes=2)
    assert fitting(task, short).preprocess.max_length == 24


@pytest.mark.parametrize("runtime", ["pytorch", "onnxruntime"])
def test_states_of_other_lengths_are_none_of_a_metrics_business(runtime, bert, tmp_path):
    """Batches are as long as their longest text, and so are the encoder's states."""
    data = {"data": str(write_sst2(tmp_path / "data", 90, 40)), "tokenizer": str(bert), "max_length": 24}
    task, model = lz.task("sst2", segments=False, **data), made("bart")
    lengths = {batch.inputs["input_ids"].shape[1] for batch in task.batches("test", 8)}
    assert len(lengths) > 1
    if runtime == "onnxruntime":
        model = deploy.load(
            deploy.export_onnx(model, task.example_inputs, tmp_path / "m.onnx"), runtime=runtime
        )
    found = [measure.evaluate(model, task, batch_size=size).metrics for size in (8, 40)]
    assert found[0] == pytest.approx(found[1])
    batches = [(texts(2, length), torch.tensor([0, 1])) for length in (5, 9)]
    own = lz.Task(test=batches, metrics={"none": lambda outputs, labels: 0.0})
    with pytest.raises(DataError, match=r"cannot be joined.*condense"):
        measure.evaluate(model, own)


def test_t5_begins_with_the_padding_token_or_what_its_config_says():
    assert made("t5").config.decoder_start_token_id == 0
    config = {**CONFIGS["t5"], "decoder_start_token_id": 5}
    assert lz.model("huggingface", config=config, num_classes=2).config.decoder_start_token_id == 5


def test_an_input_that_forward_does_not_take_is_named(bert, tmp_path):
    """A tokenizer of BERT's says which of two texts a token is of, and the library's other models drop that in silence."""
    task = lz.task("sst2", data=str(write_sst2(tmp_path / "data")), tokenizer=str(bert), max_length=24)
    with pytest.raises(
        GraphError, match=r"its forward has no argument 'token_type_ids' of its own; .*segments: false"
    ):
        lz.compress(made("t5"), task, [lz.Train(epochs=1)], output=tmp_path / "out", target="onnxruntime")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kind", "target"), [("bart", "openvino"), pytest.param("t5", "onnxruntime", marks=pytest.mark.slow)]
)
def test_one_is_pruned_distilled_and_quantized(kind, target, bert, tmp_path, capsys):
    data = {"data": str(write_sst2(tmp_path / "data", 90, 20)), "tokenizer": str(bert), "max_length": 24}
    task = lz.task("sst2", segments=False, **data)
    training = {"epochs": 1, "lr": 1e-3, "optimizer": "adamw"}
    steps = [
        lz.Prune(ratio=0.3, criterion="l1"),
        lz.Distill(**training),
        lz.Quantize(calibration=16),
    ]
    measured = {"target": target, "precision": "int8", "measure": lz.Measure(batches=(1,), repeats=2)}
    result = lz.compress(made(kind), task, steps, output=tmp_path / "out", progress=False, **measured)
    rows = result.report.rows
    assert rows[-1]["parameters"] < 0.9 * rows[0]["parameters"]
    wanted = measure.evaluate(lz.load(tmp_path / "out"), task).value
    assert rows[-1]["value"] == pytest.approx(wanted, abs=0.1)
    assert cli.main(["predict", str(tmp_path / "out"), "good film", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert sum(found["probability"] for found in said[0]["classes"]) == pytest.approx(1)


def test_layers_of_two_stacks_are_not_counted(bert, tmp_path):
    data = {"data": str(write_sst2(tmp_path / "data", 90, 20)), "tokenizer": str(bert), "max_length": 24}
    step = lz.Distill(epochs=1, student={"layers": 1})
    with pytest.raises(
        GraphError, match=r"of one stack, and .* has 2 lists of blocks .*; give a student of its"
    ):
        lz.compress(made("t5"), lz.task("sst2", segments=False, **data), [step], output=tmp_path / "out")
