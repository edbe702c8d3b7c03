"""Steps that change tokens or structure, one after another: what comes later reads and resumes as it should."""

from __future__ import annotations

import copy
import string

import pytest
import torch
from tiny_text import SIZES, WORDS, write_sst2, write_tokenizer

import lianzhi as lz
from lianzhi import artifact, train
from lianzhi.distill.methods import kd
from lianzhi.errors import ArtifactError, DataError, RecipeError
from lianzhi.tasks import TextPreprocess
from lianzhi.tasks.texts import texts_of

SIGNS = [*string.ascii_lowercase, *string.punctuation]
VOCABULARY = list(dict.fromkeys([*WORDS, *SIGNS, *(f"##{sign}" for sign in SIGNS)]))
SIZE = len(VOCABULARY) - 10
FAST = {"optimizer": "adamw", "lr": 1e-3, "batch_size": 32, "epochs": 1}
LSTM = {"width": 8, "hidden": 8, "linear": 8}


def bert(layers=2, classes=2, **changes):
    torch.manual_seed(3)
    config = {**SIZES, "vocab_size": len(VOCABULARY), "num_hidden_layers": layers, **changes}
    return lz.model("huggingface", config=config, num_classes=classes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("chains")
    write_sst2(place / "SST-2", train=96, dev=32)
    write_tokenizer(place / "tokenizer", VOCABULARY)
    write_tokenizer(place / "other", [*VOCABULARY[:4], *reversed(VOCABULARY[4:])])
    return place


@pytest.fixture
def task(folder):
    return text_task(folder)


def text_task(folder, tokenizer="tokenizer", **changes):
    options = {"max_length": 32, "validation": 16, "calibration": 16, **changes}
    return lz.task("sst2", data=str(folder / "SST-2"), tokenizer=str(folder / tokenizer), **options)


def compress(model, task, steps, output, **options):
    measured = lz.Measure(batches=(1,), repeats=1, threads=1)
    return lz.compress(
        model,
        task,
        steps,
        output=output,
        measure=measured,
        progress=False,
        **{"target": "pytorch", **options},
    )


def saved(folder, task, model, labels=None):
    artifact.save(
        model,
        folder,
        example_inputs=task.example_inputs,
        preprocess=task.preprocess,
        labels=labels or task.labels,
        tokenizer=task.preprocess.members,
    )
    return str(folder)


def said(model, preprocess, text):
    """The logits of one text, as it was read."""
    inputs = {name: torch.as_tensor(value) for name, value in preprocess(text).items()}
    with torch.no_grad():
        return model.eval()(**inputs)["logits"][0]


def test_shared_weights_learn_from_a_teacher_that_reads_other_tokens(task, tmp_path, monkeypatch):
    """The teacher sees the texts as its own tokenizer has them, whatever the student's ids are."""
    seen = []
    real = kd.make_step

    def noted(teacher, **options):
        step = real(teacher, **options)

        def call(model, batch):
            seen.append((batch.ids, step.source(batch, torch.device("cpu"))))
            return step(model, batch)

        return call

    monkeypatch.setattr(kd, "make_step", noted)
    model = bert()
    steps = [lz.ReduceVocabulary(size=SIZE), lz.ShareWeights(bits=4, **FAST)]
    compress(model, task, steps, tmp_path / "out")
    assert seen
    texts = texts_of(task, "train").texts
    for ids, found in seen[:2]:
        for number, logits in zip(ids.tolist(), found, strict=True):
            assert torch.allclose(logits, said(model, task.preprocess, texts[number]), atol=2e-3)


def test_a_method_that_looks_inside_the_teacher_is_refused_at_once_behind_other_tokens(task, tmp_path):
    steps = [lz.ReduceVocabulary(size=SIZE), lz.Distill(method="minilm", student={"layers": 1}, **FAST)]
    with pytest.raises(RecipeError, match=r"steps\.1 .*teacher of the same tokenizer"):
        compress(bert(), task, steps, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("method", "options"), [("bilstm", LSTM), ("theseus", {})])
def test_no_other_model_comes_out_of_refining(task, tmp_path, method, options):
    refine = lz.Distill(method=method, options=options, **FAST)
    step = lz.Prune(granularity="heads", ratio=0.5, iterations=2, refine=refine)
    with pytest.raises(RecipeError, match=f"'{method}' leaves another model than the one that is pruned"):
        compress(bert(), task, [step], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_student_that_reads_other_tokens_or_has_other_classes_is_refused(folder, task, tmp_path):
    other = text_task(folder, "other")
    wrong = {
        "reads other tokens": saved(tmp_path / "tokens", other, bert()),
        "same classes in the same order": saved(tmp_path / "order", task, bert(), task.labels[::-1]),
        "has 3 classes": saved(tmp_path / "three", task, bert(classes=3), ["a", "b", "c"]),
    }
    for message, place in wrong.items():
        with pytest.raises(RecipeError, match=message):
            compress(bert(), task, [lz.Distill(student={"artifact": place}, **FAST)], tmp_path / "out")
    step = lz.Distill(teacher=wrong["has 3 classes"], **FAST)
    with pytest.raises(RecipeError, match="has 3 classes by name"):
        compress(bert(classes=3), task, [step], tmp_path / "out")
    assert not (tmp_path / "out").exists()


CHAIN = [
    lz.Distill(student={"layers": 1}, **FAST),
    lz.Prune(granularity="heads", ratio=0.5),
    lz.ReduceVocabulary(size=SIZE),
    lz.Distill(**FAST),
]


class Stopped(Exception):
    """The run ends here, as if it were killed."""


@pytest.mark.slow
def test_a_chain_ends_with_the_same_weights_when_it_was_stopped(task, tmp_path, monkeypatch):
    model = bert()
    before = copy.deepcopy(model.state_dict())
    whole = compress(model, task, CHAIN, tmp_path / "whole")
    real, count = train.fit, []

    def fit(*given, **rest):
        def stop(_):
            count.append(1)
            if len(count) == 4:  # in the second of two steps that train
                raise Stopped

        return real(*given, **{**rest, "after_step": stop})

    with monkeypatch.context() as patch:
        patch.setattr(train, "fit", fit)
        with pytest.raises(Stopped):
            compress(model, task, CHAIN, tmp_path / "stopped")
    resumed = compress(model, task, CHAIN, tmp_path / "stopped", resume=True)
    ours, theirs = resumed.model.state_dict(), whole.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.slow
def test_words_and_what_comes_behind_them(task, tmp_path):
    """After the BiLSTM the task is of words: a second teacher reads its own tokens, and what ships its words."""
    teacher = saved(tmp_path / "teacher", task, bert())
    steps = [
        lz.Distill(method="bilstm", options=LSTM, **FAST),
        lz.Distill(**FAST),
        lz.Distill(teacher=teacher, **FAST),
        lz.Quantize(calibration=16),
        lz.Pack(),
    ]
    compress(bert(), task, steps, tmp_path / "out", target="onnxruntime")
    words = TextPreprocess.load(tmp_path / "out")
    assert words.tokenizer.encode("a very good film").tokens == ["a", "very", "good", "film"]


def test_the_same_tokenizer_of_another_length_is_called_so(folder, task, tmp_path):
    teacher = saved(tmp_path / "teacher", text_task(folder, max_length=24), bert())
    step = lz.Distill(method="minilm", teacher=teacher, student={"layers": 1}, **FAST)
    with pytest.raises(
        RecipeError, match=r"reads up to 24 tokens .* student 32; set the task's max_length: 24"
    ):
        compress(bert(), task, [step], tmp_path / "out")
    teacher = saved(tmp_path / "other", text_task(folder, segments=True), bert())
    step = lz.Distill(method="minilm", teacher=teacher, student={"layers": 1}, **FAST)
    with pytest.raises(RecipeError, match=r"the teacher reads .*token_type_ids and the student .*'segments'"):
        compress(bert(), task, [step], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "second",
    [lz.Distill(student={"layers": 1}, **FAST), lz.ShareWeights(bits=4, epochs=1)],
    ids=["distill", "share_weights"],
)
def test_logits_that_cannot_be_kept_are_refused_before_anything_is_trained(
    second, folder, task, tmp_path, monkeypatch
):
    """They are kept without being asked for where the teacher reads other tokens."""
    teacher = saved(tmp_path / "teacher", text_task(folder, "other"), bert())
    (tmp_path / "cache").write_text("no folder")
    monkeypatch.setenv("LIANZHI_CACHE", str(tmp_path / "cache"))
    steps = [lz.Train(**FAST), second.model_copy(update={"teacher": teacher})]
    with pytest.raises(ArtifactError, match=r"steps\.1 .*cache is a file"):
        compress(bert(), task, steps, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_corpus_of_masked_words_without_a_mask_is_refused_before_anything_is_trained(task, tmp_path):
    (tmp_path / "corpus.txt").write_text("a good film\nthe plot is dull\n")
    options = {"corpus": {"data": str(tmp_path / "corpus.txt")}}
    steps = [lz.Train(**FAST), lz.Distill(method="minilm", student={"layers": 1}, options=options, **FAST)]
    with pytest.raises(DataError, match=r"steps\.1 .*no mask token; give another, or masked: 0"):
        compress(bert(), task, steps, tmp_path / "out")
    assert not (tmp_path / "out").exists()
