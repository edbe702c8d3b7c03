"""From OneFlow and back: trained or filled there, read and made smaller here, written, and run there by itself.

Outputs agree to 1e-4 on both ways, and every sample has the same class.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oneflow_as_torch import same_lines
from PIL import Image
from tiny_text import SIZES, WORDS, sentences, tokenizer, tokens, write_sst2, write_tokenizer
from under_oneflow import INPUTS, OUTPUTS, assert_agree, read, save

import lianzhi as lz
from lianzhi import cli, jobs, models

pytestmark = pytest.mark.oneflow
MEASURE = lz.Measure(batches=(1,), repeats=2)
SHAPES = {"lenet5": (1, 28, 28), "resnet20": (3, 16, 16)}
UPDATES = {"lenet5": 40, "resnet20": 25}
BERT = {**SIZES, "vocab_size": len(WORDS) + 1, "num_hidden_layers": 3}
SENTENCES = [text for text, _ in sentences(12, 7)]


def compress(model, task, steps, output):
    return lz.compress(
        model, task, steps, target="oneflow", output=output, measure=MEASURE, progress=False
    ).path


def back(oneflow, folder, inputs):
    """The folder's model gives in OneFlow what it gives here."""
    model = lz.load(folder)
    with torch.no_grad():
        expected = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    found = oneflow.outputs(folder, inputs)
    assert_agree(found, expected)
    logits = expected["logits"] if isinstance(inputs, dict) else expected
    assert torch.equal(found[0].argmax(1), logits.argmax(1))
    return model


@pytest.fixture(scope="module")
def trained(oneflow, tmp_path_factory):
    """A network's name → its task, the folder where OneFlow trained it, and the images that it was asked about."""
    made = {}

    def train(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            task = lz.task("synthetic", samples=256, classes=4, shape=SHAPES[name])
            batch = next(iter(task.batches("train", 192)))
            np.savez(folder / "data.npz", images=batch.inputs.numpy(), labels=batch.labels.numpy())
            images = next(iter(task.batches("test", 64))).inputs
            save(folder / INPUTS, images)
            first, last = map(float, oneflow.run("train", name, folder, UPDATES[name]).split()[-2:])
            assert last < first / 2
            made[name] = task, folder, images
        return made[name]

    return train


@pytest.mark.parametrize("name", SHAPES)
def test_a_network_trained_in_oneflow_comes_back_pruned(oneflow, trained, tmp_path, name):
    task, folder, images = trained(name)
    model = lz.model(name, num_classes=4, weights=str(folder / "checkpoint")).eval()
    with torch.no_grad():
        assert_agree(read(folder / OUTPUTS), model(images))
    steps = [lz.Prune(ratio=0.4), lz.Train(epochs=1, batch_size=32, lr=0.01)]
    out = compress(model, task, steps, tmp_path / "out")
    smaller = back(oneflow, out, images)
    assert lz.measure.parameters(smaller) < 0.8 * lz.measure.parameters(model)
    file = tmp_path / "one.png"
    pixels = np.random.default_rng(0).integers(0, 255, (*SHAPES[name][1:], 3), np.uint8)
    Image.fromarray(pixels).save(file)
    lines = [line.split("\t") for line in oneflow.run(out / "run_in_oneflow.py", file).splitlines()]
    same_lines(lines, jobs.predict(out, [str(file)]))


def test_shared_weights_stay_shared(oneflow, trained, tmp_path):
    task, folder, images = trained("lenet5")
    model = lz.model("lenet5", num_classes=4, weights=str(folder / "checkpoint")).eval()
    steps = [
        lz.Prune(granularity="weight", ratio=0.6),
        lz.ShareWeights(bits=4, epochs=1, batch_size=32),
        lz.Pack(),
    ]
    out = compress(model, task, steps, tmp_path / "out")
    shared = back(oneflow, out, images)
    assert len(shared.fc1.weight.unique()) <= 17
    assert (
        cli.main(["export", str(out / "model.lzc"), "--target", "oneflow", "-o", str(tmp_path / "packed")])
        == 0
    )
    with torch.no_grad():
        assert_agree(oneflow.outputs(tmp_path / "packed", images), shared(images))


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A small SST-2, and a tokenizer that knows a mask."""
    glue = tmp_path_factory.mktemp("glue")
    write_sst2(glue / "SST-2")
    place = write_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    made = tokenizer()
    made.add_special_tokens(["[MASK]"])
    made.save(str(place / "tokenizer.json"))
    return {"data": glue, "tokenizer": str(place)}


@pytest.fixture(scope="module")
def bert(oneflow, tmp_path_factory):
    """A BERT of three layers that OneFlow filled."""
    folder = tmp_path_factory.mktemp("bert")
    fresh = lz.model("huggingface", config=BERT, num_classes=2)
    lz.save(fresh, folder / "fresh", example_inputs=tokens(1, 7))
    assert cli.main(["export", str(folder / "fresh"), "--target", "oneflow", "-o", str(folder / "made")]) == 0
    save(folder / "made" / INPUTS, tokens(4, 9))
    oneflow.run("fill", folder / "made")
    model = lz.model(
        "huggingface", config=BERT, num_classes=2, weights=str(folder / "made" / "checkpoint")
    ).eval()
    with torch.no_grad():
        assert_agree(read(folder / "made" / OUTPUTS), model(**tokens(4, 9)))
    return model


def said_alike(oneflow, folder):
    lines = [line.split("\t") for line in oneflow.run(folder / "run_in_oneflow.py", *SENTENCES).splitlines()]
    same_lines(lines, jobs.predict(folder, SENTENCES))


@pytest.mark.parametrize("granularity", [("heads", "ffn"), "hidden", "layers"])
def test_a_bert_filled_in_oneflow_comes_back_smaller(oneflow, bert, words, tmp_path, granularity):
    task = lz.task("sst2", **words)
    steps = [lz.Prune(granularity=granularity, ratio=0.5), lz.Distill(method="kd", epochs=1, batch_size=64)]
    out = compress(bert, task, steps, tmp_path / "out")
    smaller = back(oneflow, out, {name: tokens(4, 9)[name] for name in task.preprocess.inputs})
    assert lz.measure.parameters(smaller) < lz.measure.parameters(bert)
    said_alike(oneflow, out)


def test_a_bert_of_fewer_tokens(oneflow, bert, words, tmp_path):
    out = compress(bert, lz.task("sst2", **words), [lz.ReduceVocabulary()], tmp_path / "out")
    said_alike(oneflow, out)


def test_a_bilstm_that_learned_from_it(oneflow, bert, words, tmp_path):
    options = {
        "width": 6,
        "hidden": 8,
        "linear": 8,
        "augmentation": {"times": 1, "mask": 0.3, "same_tag": 0.0},
    }
    step = lz.Distill(method="bilstm", epochs=1, batch_size=64, options=options)
    out = compress(bert, lz.task("sst2", **words), [step], tmp_path / "out")
    assert models.describe(lz.load(out))["name"] == "bilstm"
    said_alike(oneflow, out)
