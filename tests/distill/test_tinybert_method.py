"""The method `tinybert` on tiny transformers: its terms by hand, its stages, a corpus, augmented texts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lessons import STILL, carried_out, first_batch, setting, taught
from small_transformers import bert
from tiny_corpus import VOCABULARY, exchange_tokens, write_masked_lm, write_texts
from tiny_texts import tiny_task

import lianzhi as lz
from lianzhi.distill.capture import capture
from lianzhi.distill.methods import Learner, Setting
from lianzhi.distill.methods.teacher import Logits
from lianzhi.distill.transformer import layers_of
from lianzhi.errors import ArtifactError, DataError, RecipeError
from lianzhi.tasks.texts import texts_of

pytest.importorskip("transformers")

VECTORS = {"words": "vectors", "copies": 3, "candidates": 4}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LIANZHI_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def texts(tmp_path):
    return tiny_task(tmp_path)


@pytest.fixture
def vectors(tmp_path):
    file = tmp_path / "vectors.txt"
    draw = np.random.default_rng(0)
    words = [word for word in VOCABULARY if word.isalpha()]
    file.write_text("".join(f"{word} {' '.join(map(str, draw.normal(size=4)))}\n" for word in words))
    return str(file)


def of_texts(data, **changes) -> Setting:
    sizes = {"vocab_size": len(VOCABULARY), **STILL}
    return setting(bert(4, seed=1, **sizes), bert(2, seed=2, **sizes, hidden_size=24, **changes), data)


def by_hand(given, batch, learner, pairs, projections):
    """Embedding, hidden and attention losses, sample by sample in NumPy."""
    names = [["bert.embeddings", *layers_of(model)] for model in (given.student, given.teacher)]
    seen = []
    for model, side in zip((given.student, given.teacher), names, strict=True):
        with capture(model, side, attention=side[1:]) as found, torch.no_grad():
            model(**batch.inputs)
        seen.append(found)
    lengths = batch.inputs["attention_mask"].sum(1).tolist()
    embedding = hidden = attention = 0.0
    for (one, other), name in zip(pairs, projections, strict=True):
        student, teacher = (
            found[side[place]].double().numpy()
            for found, side, place in zip(seen, names, (one, other), strict=True)
        )
        if name is not None:
            linear = learner.heads[name]
            student = (
                student @ linear.weight.detach().double().numpy().T + linear.bias.detach().double().numpy()
            )
        value = np.mean([((student - teacher)[row, :n] ** 2).mean() for row, n in enumerate(lengths)])
        if one == 0:
            embedding += value
            continue
        hidden += value
        scores = []
        for found, side, place in zip(seen, names, (one, other), strict=True):
            q, k = found.queries(side[place]).double().numpy(), found.keys(side[place]).double().numpy()
            scores.append(q @ k.transpose(0, 1, 3, 2) / np.sqrt(q.shape[-1]))
        gap = scores[0] - scores[1]
        attention += np.mean([(gap[row, :, :n, :n] ** 2).mean() for row, n in enumerate(lengths)])
    return {"embedding": embedding, "hidden": hidden, "attention": attention}


class TestTerms:
    @pytest.mark.parametrize("projection", ["shared", "by_layer"])
    def test_by_hand(self, projection):
        given = setting(hidden_size=24)
        batch = first_batch(given)
        stage = taught(given, "tinybert", projection=projection, hidden=0.5, attention=2).stages[0]
        terms = {name: float(value) for name, value in stage.step(stage.model, batch)["terms"].items()}
        names = ["projection"] * 3
        if projection == "by_layer":
            names = ["bert_embeddings", "bert_encoder_layer_0", "bert_encoder_layer_1"]
        assert sorted(stage.model.heads) == sorted(set(names))
        wanted = by_hand(given, batch, stage.model, [(0, 0), (1, 2), (2, 4)], names)
        for name, weight in {"embedding": 1, "hidden": 0.5, "attention": 2}.items():
            assert terms[name] == pytest.approx(wanted[name], rel=1e-4), name
            assert terms[f"{name}_weighted"] == pytest.approx(weight * wanted[name], rel=1e-4), name

    def test_a_student_that_is_the_teacher_loses_nothing(self):
        given = setting(bert(3, seed=5, **STILL), bert(3, seed=5, **STILL))
        stage = taught(given, "tinybert", projection="none").stages[0]
        assert not len(stage.model.heads)
        assert stage.step(stage.model, first_batch(given))["loss"].item() == pytest.approx(0, abs=1e-9)

    def test_the_prediction_is_soft_cross_entropy(self):
        given = setting(hidden_size=24)
        batch = first_batch(given)
        stage = taught(given, "tinybert", temperature=2.0).stages[-1]
        with torch.no_grad():
            student, teacher = (model(**batch.inputs).logits for model in (given.student, given.teacher))
        wanted = -((teacher / 2).softmax(-1) * (student / 2).log_softmax(-1)).sum(-1).mean()
        assert stage.model is None
        torch.testing.assert_close(stage.step(given.student, batch)["loss"], wanted)

    def test_joint_is_the_sum(self):
        given = setting(hidden_size=24)
        batch = first_batch(given)
        torch.manual_seed(0)
        parts = taught(given, "tinybert").stages
        torch.manual_seed(0)
        (whole,) = taught(given, "tinybert", joint=True, prediction=3.0).stages
        wanted = (
            parts[0].step(parts[0].model, batch)["loss"] + 3 * parts[1].step(given.student, batch)["loss"]
        )
        torch.testing.assert_close(whole.step(whole.model, batch)["loss"], wanted)

    def test_gradients_go_to_student_and_projection_alone(self):
        given = setting(hidden_size=24)
        stage = taught(given, "tinybert").stages[0]
        stage.step(stage.model, first_batch(given))["loss"].backward()
        assert all(parameter.grad is not None for parameter in stage.model.heads.parameters())
        assert all(parameter.grad is None for parameter in given.teacher.parameters())
        assert given.student.classifier.weight.grad is None

    def test_without_embeddings_and_attention_heads_may_differ(self):
        given = setting(hidden_size=24, num_attention_heads=2)
        stage = taught(given, "tinybert", attention=0, embedding=0, map=[3]).stages[0]
        assert sorted(stage.step(stage.model, first_batch(given))["terms"]) == ["hidden", "hidden_weighted"]


class TestStages:
    def test_names_and_what_is_chosen(self):
        made = taught(setting(hidden_size=24), "tinybert")
        assert [(stage.name, stage.choose) for stage in made.stages] == [
            ("intermediate", False),
            ("prediction", True),
        ]
        assert isinstance(made.stages[0].model, Learner)
        assert [stage.task for stage in made.stages] == [None, None]

    def test_general_distillation_on_a_corpus(self, tmp_path, texts):
        """The corpus is read when the stage begins, with the task's tokenizer; the same projection goes on."""
        given = of_texts(texts)
        folder = write_texts(tmp_path / "corpus", documents=3)
        made = taught(given, "tinybert", general={"data": str(folder), "max_length": 32, "fill": True})
        assert [stage.name for stage in made.stages] == ["general", "intermediate", "prediction"]
        assert made.stages[0].model is made.stages[1].model
        corpus = made.stages[0].task()
        assert made.stages[0].task() is corpus
        assert list(corpus.splits) == ["train"]
        assert corpus.splits["train"].preprocess.max_length == 32
        histories = carried_out(given, made, epochs=2)
        for history in histories[:2]:
            assert history.epochs[-1]["loss"] < history.epochs[0]["loss"]
        assert {name.removesuffix("_weighted") for name in histories[0].epochs[0]["terms"]} == {
            *("embedding", "hidden", "attention")
        }

    def test_general_distillation_has_its_own_teacher(self, tmp_path, texts):
        given = of_texts(texts)
        other = write_masked_lm(tmp_path / "lm", num_hidden_layers=3, hidden_size=32, num_attention_heads=4)
        general = {"data": str(write_texts(tmp_path / "corpus", documents=3)), "teacher": str(other)}
        made = taught(given, "tinybert", general=general)
        batch = next(iter(made.stages[0].task().batches("train", 4)))
        pretrained = lz.model("huggingface", path=str(other)).eval()
        pairs = Setting(pretrained, given.student, texts)
        wanted = by_hand(pairs, batch, made.stages[0].model, [(0, 0), (1, 2), (2, 3)], ["projection"] * 3)
        terms = made.stages[0].step(made.stages[0].model, batch)["terms"]
        assert float(terms["hidden"]) == pytest.approx(wanted["hidden"], rel=1e-4)
        narrow = write_masked_lm(tmp_path / "narrow", hidden_size=16, num_attention_heads=4)
        with pytest.raises(DataError, match="the teacher's have"):
            taught(given, "tinybert", general={**general, "teacher": str(narrow)})

    def test_general_distillation_refuses_a_teacher_of_other_tokens(self, tmp_path, texts):
        other = write_masked_lm(tmp_path / "lm", hidden_size=32, num_attention_heads=4)
        general = {"data": str(write_texts(tmp_path / "corpus", documents=3)), "teacher": str(other)}
        exchange_tokens(other, "film", "plot")
        with pytest.raises(RecipeError, match=r"general\.teacher .* reads other tokens .*'(film|plot)' is"):
            taught(of_texts(texts), "tinybert", general=general)

    def test_augmented_texts_serve_both_stages(self, texts, vectors):
        given = of_texts(texts)
        made = taught(given, "tinybert", augmentation={**VECTORS, "vectors": vectors})
        data = [stage.task() for stage in made.stages]
        assert data[0] is data[1]
        assert texts.size("train") < data[0].size("train") <= 4 * texts.size("train")
        assert data[0].size("validation") == texts.size("validation")
        assert all(stage.name in ("intermediate", "prediction") for stage in made.stages)
        history = carried_out(given, made, epochs=1)[-1]
        assert 0 <= history.epochs[0]["metric"] <= 1
        again = taught(of_texts(texts), "tinybert", augmentation={**VECTORS, "vectors": vectors})
        assert again.stages[0].task().fingerprint() == data[0].fingerprint()

    def test_how_many_texts_were_made_is_noted(self, texts, vectors):
        made = taught(of_texts(texts), "tinybert", augmentation={**VECTORS, "vectors": vectors})
        assert made.notes == []
        found = texts_of(made.stages[0].task(), "train").texts
        given = texts_of(texts, "train").texts
        count = len(set(found) - set(given))
        assert count == len(found) - len(given)
        assert made.notes == [f"{count} texts were made of 32 by replacing words"]
        assert made.stages[1].task().size("train") == len(found)
        assert len(made.notes) == 1

    def test_made_texts_of_other_splits_are_counted(self, tmp_path):
        """A text of one word, and every other one-word text is validated on or there already."""
        data = tiny_task(
            tmp_path, ["film", "plot", "cast", *["dull film"] * 6, *["fine plot"] * 6, "good", "bad"]
        )
        (tmp_path / "v.txt").write_text("film 1 0\nplot 1 0.1\ncast 1 0.2\ndull 0 1\nfine 0.1 1\n")
        options = {**VECTORS, "vectors": str(tmp_path / "v.txt"), "probability": 1.0}
        made = taught(of_texts(data), "tinybert", augmentation=options)
        made.stages[0].task()
        assert [note for note in made.notes if "stand in another split too and were left out" in note]

    def test_vectors_of_another_language_make_nothing(self, texts, tmp_path):
        file = tmp_path / "other.txt"
        file.write_text("фильм 0 1\nсюжет 1 0\n")
        made = taught(of_texts(texts), "tinybert", augmentation={**VECTORS, "vectors": str(file)})
        with pytest.raises(DataError, match=r"made no text of 32: .*vectors: .*other\.txt; give one of"):
            made.stages[0].task()


class TestErrors:
    @pytest.mark.parametrize(
        ("change", "options", "error", "message"),
        [
            ({"num_attention_heads": 2}, {}, RecipeError, "2 heads and the teacher's .* 4.*attention: 0"),
            ({"num_labels": 3}, {}, DataError, r"\[1, 3\] and the teacher's \[1, 2\]"),
            ({"vocab_size": 31}, {}, DataError, "31 tokens and the teacher's 30"),
            ({}, {"map": [7]}, RecipeError, "the teacher has no layer 7"),
            ({}, {"map": [[0, 0]], "embedding": 0}, RecipeError, "nothing is compared of the pairs"),
            ({}, {"general": {"data": "nowhere"}}, DataError, "nowhere: no such file or folder"),
            (
                {},
                {"augmentation": {"words": "vectors", "vectors": "nowhere.txt"}},
                DataError,
                "nowhere.txt: no such",
            ),
            (
                {},
                {"augmentation": {"words": "masked_lm", "masked_lm": "./nowhere"}},
                ArtifactError,
                "masked LM: ./nowhere",
            ),
            ({}, {"augmentation": {}}, RecipeError, "'both' needs masked_lm"),
        ],
    )
    def test_what_cannot_be_taught_is_told_before_the_first_step(self, change, options, error, message):
        with pytest.raises(error, match=message):
            taught(setting(**change), "tinybert", **options)

    def test_the_prediction_alone_is_something_to_learn(self):
        given = setting()
        made = taught(given, "tinybert", map=[[0, 0]], embedding=0, joint=True)
        (history,) = carried_out(given, made, epochs=1)
        assert history.epochs[0]["terms"].keys() == {"prediction", "prediction_weighted"}

    def test_a_projection_is_needed_between_widths(self):
        with pytest.raises(DataError, match="give a projection from width 24 to 32"):
            taught(setting(hidden_size=24), "tinybert", projection="none")

    def test_kept_logits_are_of_no_use(self):
        given = setting()
        given.source = Logits(given.teacher, keep=lambda: None)
        with pytest.raises(RecipeError, match="cache: false"):
            taught(given, "tinybert")

    def test_augmentation_needs_texts(self, vectors):
        with pytest.raises(DataError, match="not of texts"):
            taught(setting(), "tinybert", augmentation={**VECTORS, "vectors": vectors})
