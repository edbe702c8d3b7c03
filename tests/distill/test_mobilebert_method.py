"""The method `mobilebert` on tiny models: terms by hand, who learns in which phase, masked words with a teacher."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from lessons import carried_out, setting, taught
from tiny_corpus import VOCABULARY, exchange_tokens, write_texts, write_tokenizer
from tiny_texts import tiny_task
from torch.nn import functional

import lianzhi as lz
from lianzhi.distill.capture import capture
from lianzhi.distill.methods.phases import Slowed
from lianzhi.distill.transformer import layers_of
from lianzhi.errors import ArtifactError, DataError, RecipeError

transformers = pytest.importorskip("transformers")

STUDENT = {
    "model_type": "mobilebert",
    "vocab_size": len(VOCABULARY),
    "hidden_size": 24,
    "embedding_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intra_bottleneck_size": 8,
    "intermediate_size": 12,
    "num_feedforward_networks": 2,
    "max_position_embeddings": 64,
    "attention_probs_dropout_prob": 0.0,
}
TEACHER = {
    **STUDENT,
    "intra_bottleneck_size": 32,
    "intermediate_size": 48,
    "num_feedforward_networks": 1,
    "num_hidden_layers": 4,
    "hidden_act": "gelu",
}


def classifier(values: dict[str, Any], seed: int, **changes: Any):
    torch.manual_seed(seed)
    model = lz.model("huggingface", config={**values, **changes}, num_classes=2).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


def masked_lm(folder, kind="MobileBertForMaskedLM", **changes):
    torch.manual_seed(9)
    values = {key: value for key, value in {**TEACHER, **changes}.items() if key != "model_type"}
    model = getattr(transformers, kind)(transformers.MobileBertConfig(**values))
    model.save_pretrained(write_tokenizer(folder))
    return str(folder)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LIANZHI_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def given(tmp_path):
    return setting(classifier(TEACHER, 1), classifier(STUDENT, 2), tiny_task(tmp_path))


@pytest.fixture
def corpus(tmp_path):
    return {"data": str(write_texts(tmp_path / "corpus", documents=4)), "max_length": 32}


def batch_of(task, count=8):
    return next(iter(task.batches("train", count, epoch=0)))


def terms_of(result):
    return {name: value.item() for name, value in result["terms"].items()}


def test_the_student_has_all_parts_of_mobilebert():
    model = classifier(STUDENT, 0)
    layer = model.mobilebert.encoder.layer[0]
    assert type(layer.output.LayerNorm).__name__ == "NoNorm"
    x = torch.randn(3, 8)
    norm = layer.output.LayerNorm
    torch.testing.assert_close(norm(x), norm.weight * x + norm.bias)
    assert model.mobilebert.embeddings.embedding_transformation.in_features == 3 * 12
    assert len(layer.ffn) == 1
    assert (layer.bottleneck.input.dense.in_features, layer.bottleneck.input.dense.out_features) == (24, 8)


def test_the_terms_of_a_phase_by_hand(given):
    batch = batch_of(given.task)
    stage = taught(given, "mobilebert", attention=2.0).stages[1]
    terms = terms_of(stage.step(given.student, batch))
    names = [layers_of(given.student)[1], layers_of(given.teacher)[3]]
    seen = []
    for model, name in zip((given.student, given.teacher), names, strict=True):
        with capture(model, [name], attention=[name]) as found, torch.no_grad():
            model(**batch.inputs)
        seen.append((found[name].double().numpy(), found.scores(name).double()))
    (one, mine), (other, theirs) = seen
    lengths = batch.inputs["attention_mask"].sum(1).tolist()
    assert len(set(lengths)) > 1
    normal = [(x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True) for x in (one, other)]
    found: dict[str, list[float]] = {"normalized": [], "mean": [], "variance": [], "attention": []}
    for row, n in enumerate(lengths):
        found["normalized"].append(((normal[0] - normal[1])[row, :n] ** 2).mean())
        found["mean"].append(((one.mean(-1) - other.mean(-1))[row, :n] ** 2).mean())
        found["variance"].append(np.abs(one.var(-1) - other.var(-1))[row, :n].mean())
        q, p = (scores[row, :, :n, :n].softmax(-1).numpy() for scores in (mine, theirs))
        found["attention"].append((p * np.log(p / q)).sum(-1).mean())
    for name, weight in {"normalized": 100, "mean": 5000, "variance": 5, "attention": 2}.items():
        assert terms[name] == pytest.approx(np.mean(found[name]), rel=1e-4), name
        assert terms[f"{name}_weighted"] == pytest.approx(weight * np.mean(found[name]), rel=1e-4), name


def test_stages_from_the_bottom_to_the_top(given, corpus, tmp_path):
    names = [stage.name for stage in taught(given, "mobilebert", phase={"epochs": 0.5}).stages]
    assert names == ["transfer-1", "transfer-2", "fine-tuning"]
    made = taught(given, "mobilebert", corpus=corpus, masked_lm=masked_lm(tmp_path / "lm"), phase={"lr": 0.1})
    assert [stage.name for stage in made.stages] == ["transfer-1", "transfer-2", "masked_lm", "fine-tuning"]
    assert [stage.options for stage in made.stages] == [{"lr": 0.1}, {"lr": 0.1}, {}, {}]
    assert made.stages[0].task() is made.stages[2].task()
    assert [stage.choose for stage in made.stages] == [False, False, False, True]
    assert made.stages[-1].task is None


def moved(given, stage, **options) -> dict[str, float]:
    """How far each part of the student went in one step."""
    before = copy.deepcopy(given.student.state_dict())
    train = {
        "max_steps": 1,
        "lr": 0.01,
        "optimizer": "sgd",
        "momentum": 0.0,
        "nesterov": False,
        "weight_decay": 0.0,
    }
    lz.train.fit(
        stage.model or given.student,
        given.task,
        lz.train.TrainOptions(
            **{"batch_size": 8, "schedule": "constant", "keep": "last", **train, **options}
        ),
        step=stage.step,
        progress=False,
        after_step=stage.after_step,
    )
    parts = {"embeddings": "mobilebert.embeddings.", "head": "classifier."}
    parts |= {str(number): f"mobilebert.encoder.layer.{number}." for number in range(2)}
    after = given.student.state_dict()
    return {
        name: max(float((after[key] - before[key]).abs().max()) for key in before if key.startswith(prefix))
        for name, prefix in parts.items()
    }


def test_who_learns_in_which_phase(given):
    """Plain gradient descent: what is under the layer goes a tenth as far as with a share of 1, what is above nowhere."""
    whole, tenth = copy.deepcopy(given), given
    first, second = taught(tenth, "mobilebert").stages[:2]
    far = moved(whole, taught(whole, "mobilebert", below=1.0).stages[1])
    near = moved(tenth, second)
    assert far["head"] == near["head"] == 0
    assert near["1"] == pytest.approx(far["1"], rel=1e-4)
    for name in ("embeddings", "0"):
        assert near[name] == pytest.approx(0.1 * far[name], rel=1e-2), name
    again = moved(tenth, first)
    assert again["1"] == again["head"] == 0 < again["0"]
    frozen = copy.deepcopy(given)
    still = moved(frozen, taught(frozen, "mobilebert", below=0.0).stages[1], optimizer="adamw")
    assert still["embeddings"] == still["0"] == 0 < still["1"]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop", "lamb"])
def test_a_shortened_step_is_one_of_a_smaller_rate(optimizer):
    from lianzhi.train.optimizers import optimizer as make

    values = torch.randn(5, 3)
    models = [torch.nn.Linear(3, 2) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    options = [lz.train.TrainOptions(optimizer=optimizer, lr=lr, weight_decay=0.1) for lr in (0.1, 0.01)]
    slowed = Slowed(list(models[0].parameters()), 0.1)
    steps = [make(model, one) for model, one in zip(models, options, strict=True)]
    for _ in range(3):
        for number, (model, step) in enumerate(zip(models, steps, strict=True)):
            step.zero_grad()
            model(values).square().sum().backward()
            if number == 0:
                slowed.note()
            step.step()
            if number == 0:
                slowed.shorten()
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_embeddings_are_copied_when_the_first_stage_begins(given):
    made = taught(given, "mobilebert")
    one, other = (
        model.mobilebert.embeddings.word_embeddings.weight for model in (given.student, given.teacher)
    )
    assert not torch.equal(one, other)
    made.stages[0].prepare()
    assert torch.equal(one, other)
    assert made.stages[1].prepare is None
    assert taught(given, "mobilebert", copy_embeddings=False).stages[0].prepare is None


class TestMaskedWords:
    @pytest.fixture
    def stage(self, given, corpus, tmp_path):
        return taught(
            given, "mobilebert", corpus=corpus, masked_lm=masked_lm(tmp_path / "lm"), one_hot=0.3
        ).stages[2]

    def test_the_terms_by_hand(self, given, stage, tmp_path):
        batch = batch_of(stage.task())
        terms = terms_of(stage.step(stage.model, batch))
        teacher = transformers.MobileBertForMaskedLM.from_pretrained(tmp_path / "lm").eval()
        student = copy.deepcopy(teacher)  # the same head, over the student's body
        student.mobilebert = copy.deepcopy(given.student.mobilebert).eval()
        student.cls.predictions.decoder.weight = student.mobilebert.embeddings.word_embeddings.weight
        with torch.no_grad():
            one, other = (model(**batch.inputs).logits for model in (student, teacher))
        hard, soft = [], []
        for row in range(len(batch)):
            asked = batch.labels[row] != -100
            own = one[row, asked].log_softmax(-1)
            hard.append(functional.nll_loss(own, batch.labels[row, asked]).item())
            soft.append(-(other[row, asked].softmax(-1) * own).sum(-1).mean().item())
        assert terms["hard"] == pytest.approx(np.mean(hard), rel=1e-4)
        assert terms["soft"] == pytest.approx(np.mean(soft), rel=1e-4)
        assert terms["hard_weighted"] == pytest.approx(0.3 * np.mean(hard), rel=1e-4)
        assert terms["soft_weighted"] == pytest.approx(0.7 * np.mean(soft), rel=1e-4)

    def test_gradients_go_to_student_and_heads(self, given, stage):
        stage.step(stage.model, batch_of(stage.task()))["loss"].backward()
        touched = {name for name, parameter in stage.model.named_parameters() if parameter.grad is not None}
        assert {"heads.words.bias", "heads.words.rest"} <= touched
        assert "student.mobilebert.embeddings.word_embeddings.weight" in touched
        assert not any("classifier" in name for name in touched)

    def test_what_follows_is_asked_too(self, given, corpus, tmp_path):
        options = {"corpus": {**corpus, "next_sentence": True}, "masked_lm": masked_lm(tmp_path / "lm")}
        stage = taught(given, "mobilebert", **options).stages[2]
        batch = batch_of(stage.task())
        result = stage.step(stage.model, batch)
        with torch.no_grad():
            pooled = given.student.mobilebert(**batch.inputs).pooler_output
            wanted = functional.cross_entropy(stage.model.heads["next"](pooled), batch.labels["next"])
        assert result["terms"]["next"].item() == pytest.approx(wanted.item(), rel=1e-5)


def test_all_stages_are_trained_and_the_teachers_stay(given, corpus, tmp_path):
    before = copy.deepcopy(given.teacher.state_dict())
    made = taught(given, "mobilebert", corpus=corpus, masked_lm=masked_lm(tmp_path / "lm"), alpha=0.5)
    histories = carried_out(given, made, epochs=3)
    for history in histories[:3]:
        assert history.epochs[-1]["loss"] < history.epochs[0]["loss"]
    assert set(histories[3].epochs[0]["terms"]) >= {"soft", "hard"}
    assert all(torch.equal(value, before[key]) for key, value in given.teacher.state_dict().items())


@pytest.mark.parametrize(
    ("teacher", "student", "options", "error", "message"),
    [
        ({}, {"num_attention_heads": 2}, {}, RecipeError, "2 heads and the teacher's"),
        ({}, {"hidden_size": 16}, {}, DataError, "16 wide, the teacher's 24; give both the same hidden_size"),
        ({}, {"embedding_size": 8}, {}, RecipeError, "copy_embeddings: false"),
        ({}, {"num_hidden_layers": 5}, {}, RecipeError, "no more than the teacher"),
        ({}, {}, {"phase": {"epoch": 1}}, RecipeError, "did you mean 'epochs'"),
        ({}, {}, {"map": [[0, 0], [1, 2]]}, RecipeError, "leave the embeddings"),
        ({}, {}, {"masked_lm": "x"}, RecipeError, "masked_lm needs masked words: give corpus"),
        ({}, {}, {"corpus": {"data": "nowhere"}}, DataError, "nowhere: no such file"),
    ],
)
def test_what_cannot_be_taught_is_told_before_the_first_step(
    tmp_path, teacher, student, options, error, message
):
    both = setting(classifier(TEACHER, 1, **teacher), classifier(STUDENT, 2, **student), tiny_task(tmp_path))
    with pytest.raises(error, match=message):
        taught(both, "mobilebert", **options)


def test_a_masked_lm_of_another_kind(given, corpus, tmp_path):
    from tiny_corpus import write_masked_lm

    other = write_masked_lm(tmp_path / "bert", hidden_size=24, num_attention_heads=4)
    with pytest.raises(
        ArtifactError, match="the masked LM is a BertForMaskedLM; give a MobileBertForMaskedLM"
    ):
        taught(given, "mobilebert", corpus=corpus, masked_lm=str(other), copy_embeddings=False)
    headless = masked_lm(tmp_path / "headless", "MobileBertModel")
    with pytest.raises(ArtifactError, match="was saved with its masked-LM head"):
        taught(given, "mobilebert", corpus=corpus, masked_lm=headless)


def test_a_masked_lm_of_other_tokens(given, corpus, tmp_path):
    other = masked_lm(tmp_path / "other", "MobileBertForMaskedLM")
    exchange_tokens(tmp_path / "other", "film", "plot")
    with pytest.raises(RecipeError, match=r"masked_lm .* reads other tokens .*'(film|plot)' is"):
        taught(given, "mobilebert", corpus=corpus, masked_lm=other)


def test_a_phase_that_is_stopped_ends_with_the_same_weights(given, tmp_path):
    """What is under the layer goes a tenth of the way after a resume too."""

    def weights(folder, stop: int | None, resume: bool = False):
        own = copy.deepcopy(given)
        stage = taught(own, "mobilebert").stages[1]
        calls: list[int] = []

        def after(model):
            stage.after_step(model)
            calls.append(1)
            if len(calls) == stop:
                raise KeyboardInterrupt

        options = {
            "epochs": 2,
            "batch_size": 8,
            "optimizer": "adamw",
            "lr": 0.01,
            "keep": "last",
            "save_every": 1e-6,
        }
        lz.train.fit(
            own.student,
            own.task,
            lz.train.TrainOptions(**options),
            step=stage.step,
            directory=folder,
            resume=resume,
            progress=False,
            after_step=after,
        )
        return own.student.state_dict()

    whole = weights(tmp_path / "whole", None)
    with pytest.raises(KeyboardInterrupt):
        weights(tmp_path / "stopped", 4)
    again = weights(tmp_path / "stopped", None, resume=True)
    assert all(torch.equal(again[name], value) for name, value in whole.items())
    assert not torch.equal(
        whole["mobilebert.encoder.layer.0.output.dense.weight"],
        given.student.state_dict()["mobilebert.encoder.layer.0.output.dense.weight"],
    )


def test_half_precision(given, corpus, tmp_path):
    """Under autocast all terms stay finite and near those in float32."""
    made = taught(given, "mobilebert", corpus=corpus, masked_lm=masked_lm(tmp_path / "lm"))
    for stage, data in ((made.stages[1], given.task), (made.stages[2], made.stages[2].task())):
        batch = batch_of(data)
        model = stage.model or given.student
        whole = terms_of(stage.step(model, batch))
        with torch.autocast("cpu", torch.bfloat16):
            half = terms_of(stage.step(model, batch))
        assert half == {name: pytest.approx(value, rel=0.1, abs=1e-3) for name, value in whole.items()}
