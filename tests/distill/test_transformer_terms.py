"""The terms of pkd, minilm and distilbert by hand, and what is particular to each."""

from __future__ import annotations

import lessons
import numpy as np
import pytest
import torch
from lessons import STILL, carried_out, first_batch, of_teacher_layers, setting, taught, terms_of
from small_transformers import bert
from torch.nn import functional

from lianzhi import train
from lianzhi.distill.capture import capture
from lianzhi.distill.transformer import layers_of
from lianzhi.errors import DataError, RecipeError

transformers = pytest.importorskip("transformers")


def seen_inside(model, batch, layers):
    with capture(model, layers, attention=layers) as seen, torch.no_grad():
        outputs = model(**batch.inputs)
    return outputs.logits, seen


def soft_by_hand(student, teacher, temperature):
    p, q = ((x.double() / temperature).softmax(-1).numpy() for x in (teacher, student))
    return temperature**2 * (p * np.log(p / q)).sum(-1).mean()


def test_pkd_by_hand():
    given = setting()
    batch = first_batch(given)
    result = (
        taught(given, "pkd", alpha=0.2, temperature=10.0, patience=50.0).stages[0].step(given.student, batch)
    )
    student, seen = seen_inside(given.student, batch, layers_of(given.student))
    teacher, theirs = seen_inside(given.teacher, batch, layers_of(given.teacher))
    one, other = (
        side[name][:, 0].double().numpy()
        for side, name in ((seen, layers_of(given.student)[0]), (theirs, layers_of(given.teacher)[1]))
    )
    one, other = (item / np.linalg.norm(item, axis=1, keepdims=True) for item in (one, other))
    terms = terms_of(result)
    assert terms["patience"] == pytest.approx(((one - other) ** 2).mean(), rel=1e-5)
    assert terms["patience_weighted"] == pytest.approx(50 * terms["patience"])
    assert terms["soft_weighted"] == pytest.approx(0.2 * soft_by_hand(student, teacher, 10), rel=1e-3)
    hard = functional.cross_entropy(student, batch.labels).item()
    assert terms["hard_weighted"] == pytest.approx(0.8 * hard, rel=1e-5)


def test_pkd_over_all_tokens_of_all_layers():
    given = setting()
    batch = first_batch(given)
    step = taught(given, "pkd", map="uniform", tokens="all").stages[0].step
    _, seen = seen_inside(given.student, batch, layers_of(given.student))
    _, theirs = seen_inside(given.teacher, batch, layers_of(given.teacher))
    values = []
    for one, other in ((0, 1), (1, 3)):
        pair = [
            seen[layers_of(given.student)[one]].double().numpy(),
            theirs[layers_of(given.teacher)[other]].double().numpy(),
        ]
        a, b = (item / np.linalg.norm(item, axis=-1, keepdims=True) for item in pair)
        samples = [
            ((a - b) ** 2)[row, : int(batch.inputs["attention_mask"][row].sum())].mean() for row in range(8)
        ]
        values.append(np.mean(samples))
    assert terms_of(step(given.student, batch))["patience"] == pytest.approx(np.mean(values), rel=1e-4)


def test_pkd_without_lengths_of_one():
    given = setting()
    batch = first_batch(given)
    pairs = [[0, 0], [1, 2], [2, 4]]
    step = taught(given, "pkd", map=pairs, tokens="all", normalize=False).stages[0].step
    names = [["bert.embeddings", *layers_of(model)] for model in (given.student, given.teacher)]
    with capture(given.student, names[0]) as seen, torch.no_grad():
        given.student(**batch.inputs)
    with capture(given.teacher, names[1]) as theirs, torch.no_grad():
        given.teacher(**batch.inputs)
    mask = batch.inputs["attention_mask"]
    values = []
    for one, other in pairs:
        squares = (seen[names[0][one]] - theirs[names[1][other]]).square().mean(-1)
        values.append(((squares * mask).sum(1) / mask.sum(1)).mean().item())
    assert terms_of(step(given.student, batch))["patience"] == pytest.approx(np.mean(values), rel=1e-5)


def test_pkd_of_the_teachers_own_first_layers_begins_with_no_patience_lost():
    teacher = bert(4, seed=1, **STILL)
    given = setting(teacher, of_teacher_layers(teacher, [1, 2]))
    step = taught(given, "pkd", map=[1, 2]).stages[0].step
    assert terms_of(step(given.student, first_batch(given)))["patience"] == pytest.approx(0, abs=1e-12)


def test_minilm_relations_by_hand():
    given = setting(hidden_size=24, num_attention_heads=3)
    batch = first_batch(given)
    terms = terms_of(taught(given, "minilm").stages[0].step(given.student, batch))
    sides = [(model, layers_of(model)[-1]) for model in (given.student, given.teacher)]
    seen = [(seen_inside(model, batch, [layer])[1], layer) for model, layer in sides]
    for name in ("query", "key", "value"):
        method = {"query": "queries", "key": "keys", "value": "values"}[name]
        parts = [getattr(one, method)(layer).double() for one, layer in seen]
        flat = [part.transpose(1, 2).flatten(2).numpy() for part in parts]  # 24 and 32 wide: 8 heads
        samples = []
        for row in range(8):
            tokens = int(batch.inputs["attention_mask"][row].sum())
            found = []
            for head in range(8):
                probabilities = []
                for item, size in zip(flat, (3, 4), strict=True):
                    part = item[row, :tokens, head * size : (head + 1) * size]
                    scores = torch.from_numpy(part @ part.T / np.sqrt(size))
                    probabilities.append(scores.softmax(-1).numpy())
                q, p = probabilities
                found.append((p * np.log(p / q)).sum(-1).mean())
            samples.append(np.mean(found))
        assert terms[name] == pytest.approx(np.mean(samples), rel=1e-4), name


def test_minilm_has_two_stages_and_the_first_trains_no_head():
    given = setting()
    made = taught(given, "minilm", student_layer=1, teacher_layer=3)
    assert [(stage.name, stage.choose) for stage in made.stages] == [
        ("relations", False),
        ("prediction", True),
    ]
    made.stages[0].step(given.student, first_batch(given))["loss"].backward()
    touched = {name for name, parameter in given.student.named_parameters() if parameter.grad is not None}
    assert touched
    assert all(name.startswith(("bert.embeddings", "bert.encoder.layer.0")) for name in touched)
    given.student.zero_grad()
    batch = first_batch(given)
    with torch.no_grad():
        last = made.stages[1].step(given.student, batch)
        wanted = functional.cross_entropy(given.student(**batch.inputs).logits, batch.labels)
        taught_too = taught(given, "minilm", alpha=0.3, temperature=3.0).stages[1].step(given.student, batch)
        soft = soft_by_hand(*(model(**batch.inputs).logits for model in (given.student, given.teacher)), 3.0)
    torch.testing.assert_close(last["loss"], wanted)
    assert taught_too["loss"].item() == pytest.approx(0.7 * wanted.item() + 0.3 * soft, rel=1e-3)


def test_minilm_relates_the_texts_of_a_corpus(tmp_path, monkeypatch):
    from tiny_corpus import VOCABULARY, sentences, write_tokenizer

    import lianzhi as lz
    from lianzhi.tasks.text_preprocess import TextPreprocess

    monkeypatch.setenv("LIANZHI_CACHE", str(tmp_path / "cache"))
    (tmp_path / "some.txt").write_text("\n".join(sentences(40, 0)))
    reads = TextPreprocess.open(str(write_tokenizer(tmp_path / "bert")), max_length=16)
    inputs, labels = lessons.texts(8)
    data = lz.Task(train=[(inputs, labels)], num_classes=2, preprocess=reads)
    given = setting(bert(3, seed=1), bert(2, seed=2), data)
    corpus = {"data": str(tmp_path / "some.txt"), "masked": 0, "fill": False}
    relations, prediction = taught(given, "minilm", corpus=corpus).stages
    assert prediction.task is None
    made = relations.task()
    assert made is relations.task()
    assert len(VOCABULARY) <= 30
    batch = next(iter(made.batches("train", 4)))
    assert not (batch.inputs["input_ids"] == 4).any(), "words are masked"
    history = train.fit(
        given.student,
        made,
        train.TrainOptions(epochs=3, lr=3e-3, optimizer="adamw"),
        step=relations.step,
        progress=False,
    )
    assert history.epochs[-1]["loss"] < history.epochs[0]["loss"]
    with pytest.raises(RecipeError, match="is not of texts; leave the corpus out"):
        taught(setting(), "minilm", corpus=corpus)
    with pytest.raises(DataError, match="nowhere"):
        taught(given, "minilm", corpus={"data": str(tmp_path / "nowhere")})


def test_minilm_of_a_vision_transformer():
    torch.manual_seed(0)
    images, labels = torch.randn(8, 3, 12, 12), torch.arange(8) % 2
    import lianzhi as lz

    data = lz.Task(train=[({"pixel_values": images}, labels)], num_classes=2)
    given = setting(bert(3, kind="vit"), bert(2, kind="vit", seed=3), data)
    made = taught(given, "minilm", version=1)
    history = carried_out(given, made)[0]
    assert history.epochs[-1]["loss"] < history.epochs[0]["loss"]


def test_distilbert_by_hand():
    given = setting()
    batch = first_batch(given)
    terms = terms_of(taught(given, "distilbert").stages[0].step(given.student, batch))
    student, seen = seen_inside(given.student, batch, layers_of(given.student)[-1:])
    teacher, theirs = seen_inside(given.teacher, batch, layers_of(given.teacher)[-1:])
    one, other = (
        side[layers_of(model)[-1]].double()
        for side, model in ((seen, given.student), (theirs, given.teacher))
    )
    angles = (one * other).sum(-1) / one.norm(dim=-1) / other.norm(dim=-1)
    mask = batch.inputs["attention_mask"]
    wanted = (((1 - angles) * mask).sum(1) / mask.sum(1)).mean().item()
    assert terms["cosine"] == pytest.approx(wanted, rel=1e-5)
    assert terms["cosine_weighted"] == terms["cosine"]
    assert terms["soft_weighted"] == pytest.approx(5 * soft_by_hand(student, teacher, 2), rel=1e-4)
    hard = functional.cross_entropy(student, batch.labels).item()
    assert terms["hard_weighted"] == pytest.approx(2 * hard, rel=1e-5)


def masked_model(layers, seed):
    config = transformers.BertConfig(
        **{"vocab_size": 30, "hidden_size": 32, "num_hidden_layers": layers, "num_attention_heads": 4},
        **{"intermediate_size": 48, "max_position_embeddings": 40, **STILL},
    )
    torch.manual_seed(seed)
    return transformers.BertForMaskedLM(config)


def test_distilbert_on_a_corpus_is_the_triple_loss():
    """Masked words as labels, the vocabulary as classes; padding counts nowhere."""
    import lianzhi as lz
    from lianzhi.tasks.corpus.objective import corpus_loss, masked_accuracy

    inputs, _ = lessons.texts(8)
    labels = inputs["input_ids"].masked_fill(torch.rand(8, 9) > 0.4, -100)
    labels[:, 1] = inputs["input_ids"][:, 1]
    labels[inputs["attention_mask"] == 0] = -100
    data = lz.Task(train=[(inputs, labels)], loss=corpus_loss, metrics={"masked_accuracy": masked_accuracy})
    given = setting(masked_model(3, 1), masked_model(2, 2), data)
    made = taught(given, "distilbert")
    batch = first_batch(given)
    terms = terms_of(made.stages[0].step(given.student.eval(), batch))
    with torch.no_grad():
        student, teacher = (model.eval()(**batch.inputs).logits for model in (given.student, given.teacher))
    samples, hard = [], []
    for row in range(8):
        tokens = int(batch.inputs["attention_mask"][row].sum())
        samples.append(soft_by_hand(student[row, :tokens], teacher[row, :tokens], 2))
        hard.append(functional.cross_entropy(student[row], batch.labels[row]).item())
    assert terms["soft"] == pytest.approx(np.mean(samples), rel=1e-4)
    assert terms["hard"] == pytest.approx(np.mean(hard), rel=1e-5)
    history = carried_out(given, made)[0]
    assert history.epochs[-1]["loss"] < 0.9 * history.epochs[0]["loss"]
    without = taught(given, "distilbert", hard=0, cosine=0).stages[0].step(given.student, batch)
    assert sorted(without["terms"]) == ["soft", "soft_weighted"]
