"""The methods on features: the loss falls, the teacher stays, what was added is gone, a stopped run ends the same."""

from __future__ import annotations

import pytest
import torch
from tiny_cnn import TinyCNN, images, trained
from torch import Tensor, nn

from lianzhi import train
from lianzhi.distill import losses, methods
from lianzhi.distill.methods import Lessons, Logits, Setting
from lianzhi.distill.methods.fusion import Fusion
from lianzhi.errors import DataError, GraphError, RecipeError
from lianzhi.tasks import Batch, Task
from lianzhi.train.options import TrainOptions

NAMES = ["attention_transfer", "crd", "fitnet", "nst", "pkt", "review_kd", "rkd", "similarity_preserving"]
SMALL = {"crd": {"negatives": 32, "size": 8}, "review_kd": {"width": 8}}
WITH_HEADS = {"crd", "fitnet", "review_kd"}


@pytest.fixture(scope="module")
def task() -> Task:
    return images()


@pytest.fixture(scope="module")
def teacher(task: Task) -> nn.Module:
    return trained(task)


def student() -> nn.Module:
    return TinyCNN(4, 6, 8, seed=2)


def build(name: str, setting: Setting, **options) -> Lessons:
    entry = methods.registry.get(name)
    with torch.random.fork_rng():
        torch.manual_seed(setting.seed)
        return entry.build(setting, entry.config(**{**SMALL.get(name, {}), **options}))


def carry_out(lessons: Lessons, setting: Setting, *, epochs: float = 3, **options) -> list[train.History]:
    return [
        train.fit(
            stage.model or setting.student,
            setting.task,
            TrainOptions(epochs=epochs, batch_size=32, lr=0.02, **options),
            step=stage.step,
            seed=setting.seed,
            progress=False,
        )
        for stage in lessons.stages
    ]


def some(task: Task, count: int = 16) -> Batch:
    return next(iter(task.batches("train", count)))


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_falls_and_the_teacher_stays(name, task, teacher):
    setting = Setting(teacher, student(), task)
    names, before = set(setting.student.state_dict()), copied(teacher)
    lessons = build(name, setting, warmup=0.0)
    (stage,) = lessons.stages
    assert (stage.model is not None) == (name in WITH_HEADS)
    (history,) = carry_out(lessons, setting)
    terms = [epoch["terms"][name] for epoch in history.epochs]
    assert terms[-1] < terms[0]
    assert history.epochs[-1]["loss"] < history.epochs[0]["loss"]
    assert same(copied(teacher), before)
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not any(module._forward_hooks for module in [*teacher.modules(), *setting.student.modules()])
    left = setting.student if lessons.finish is None else lessons.finish()
    assert set(left.state_dict()) == names


@pytest.mark.parametrize("name", NAMES)
def test_terms_add_up_to_the_loss(name, task, teacher):
    setting = Setting(teacher, student(), task)
    (stage,) = build(name, setting, weight=3.0, hard=0.5, soft=2.0, temperature=2.0, warmup=0.0).stages
    data, model = some(task), stage.model or setting.student
    model.eval()
    torch.manual_seed(0)
    result = stage.step(model, data)
    terms = {key: value.item() for key, value in result["terms"].items()}
    logits = setting.student(data.inputs)
    assert terms["hard"] == pytest.approx(nn.functional.cross_entropy(logits, data.labels).item(), rel=1e-5)
    assert terms["soft"] == pytest.approx(
        losses.kd(logits, teacher(data.inputs), temperature=2.0, alpha=1.0).item(), rel=1e-5
    )
    weights = {name: 3.0, "hard": 0.5, "soft": 2.0}
    assert all(terms[f"{key}_weighted"] == pytest.approx(w * terms[key]) for key, w in weights.items())
    assert result["loss"].item() == pytest.approx(sum(w * terms[key] for key, w in weights.items()), rel=1e-5)
    assert not any(value.requires_grad for value in result["terms"].values())


def test_the_loss_on_features_is_that_of_the_stages(task, teacher):
    setting, data = Setting(teacher, student().eval(), task), some(task)

    def stages(model: nn.Module) -> list[Tensor]:
        maps = [data.inputs]
        for stage in model.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]

    with torch.no_grad():
        ours, theirs = stages(setting.student), stages(teacher)
    pairs = list(zip(ours, theirs, strict=True))
    wanted = {
        "attention_transfer": sum(losses.attention_transfer(*pair) for pair in pairs),
        "nst": sum(losses.nst(*pair) for pair in pairs),
        "similarity_preserving": losses.similarity_preserving(*pairs[-1]),
        "pkt": losses.pkt(*(maps.mean((2, 3)) for maps in pairs[-1])),
        "rkd": losses.rkd(*(maps.mean((2, 3)) for maps in pairs[-1])),
    }
    for name, value in wanted.items():
        found = build(name, setting).stages[0].step(setting.student, data)["terms"][name]
        assert found.item() == pytest.approx(value.item(), rel=1e-5), name


def test_equal_models_of_equal_weights_have_nothing_to_learn_from_features(task, teacher):
    twin = TinyCNN(6, 10, 14).eval()
    twin.load_state_dict(teacher.state_dict())
    setting = Setting(teacher, twin, task)
    for name in set(NAMES) - {"crd", "review_kd"}:
        (stage,) = build(name, setting, weight=1.0).stages
        result = stage.step((stage.model or twin).eval(), some(task))
        assert result["terms"][name].item() == pytest.approx(0.0, abs=1e-5), name


def test_layers_can_be_named(task, teacher):
    setting, data = Setting(teacher, student().eval(), task), some(task)
    named = {"student_layers": ["stages.0.0.conv"], "teacher_layers": ["stages.1"]}
    (stage,) = build("attention_transfer", setting, **named).stages
    with torch.no_grad():
        ours = setting.student.stages[0][0].conv(data.inputs)
        theirs = teacher.stages[1](teacher.stages[0](data.inputs))
    found = stage.step(setting.student, data)["terms"]["attention_transfer"].item()
    assert found == pytest.approx(losses.attention_transfer(ours, theirs).item(), rel=1e-5)


def test_stages_are_paired_from_the_deepest(task):
    shallow, deep = TinyCNN(4, 6), TinyCNN(4, 7, 9)
    (stage,) = build("fitnet", Setting(deep, shallow, task), student_layers=["stages.0", "stages"]).stages
    first, second = stage.model.heads["connectors"]
    assert first(torch.zeros(2, 4, 8, 8)).shape == (2, 7, 4, 4)
    assert second(torch.zeros(2, 6, 4, 4)).shape == (2, 9, 2, 2)


def test_hints_first_are_two_stages(task, teacher):
    setting = Setting(teacher, student(), task)
    hint, rest = build("fitnet", setting, hint_first=True, soft=1.0).stages
    assert (hint.name, rest.name, hint.choose, rest.choose) == ("hint", "fitnet", False, True)
    result = hint.step(hint.model, some(task))
    assert set(result["terms"]) == {"fitnet", "fitnet_weighted"}
    result["loss"].backward()
    assert setting.student.stages[1][0].conv.weight.grad is not None
    assert setting.student.stages[2][0].conv.weight.grad is None
    assert rest.model is None
    assert set(rest.step(setting.student, some(task))["terms"]) == {
        "hard",
        "hard_weighted",
        "soft",
        "soft_weighted",
    }


def test_the_weight_of_a_review_grows(task, teacher):
    setting = Setting(teacher, student(), task)
    (stage,) = build("review_kd", setting, warmup=0.25, weight=2.0).stages
    shares = []
    for number in (0, 5, 10, 30):
        stage.step.at(number, 40)
        terms = stage.step(stage.model, some(task))["terms"]
        shares.append((terms["review_kd_weighted"] / terms["review_kd"]).item())
    assert shares == pytest.approx([0.0, 1.0, 2.0, 2.0])


def test_fusion_by_hand():
    """Two stages whose convolutions let everything pass: the deeper map is enlarged, and weighed by its attention."""
    fusion = Fusion([(1, 1, 4, 4), (1, 1, 2, 2)], [(1, 1, 4, 4), (1, 1, 2, 2)]).eval()
    for stage in fusion.stages:
        nn.init.ones_(stage.reduce[0].weight)
        nn.init.zeros_(stage.expand[0].weight)
        stage.expand[0].weight.data[0, 0, 1, 1] = 1.0
        for norm in (stage.reduce[1], stage.expand[1]):
            norm.eps = 0.0
    attention = fusion.stages[0].attention
    attention.weight.data = torch.tensor([[1.0, 0.0], [0.0, 2.0]]).view(2, 2, 1, 1)
    attention.bias.data = torch.tensor([0.5, -0.5])
    first, second = torch.randn(1, 1, 4, 4), torch.randn(1, 1, 2, 2)
    results = fusion([first, second])
    large = second.repeat_interleave(2, 2).repeat_interleave(2, 3)
    wanted = first * torch.sigmoid(first + 0.5) + large * torch.sigmoid(2 * large - 0.5)
    assert torch.allclose(results[0], wanted, atol=1e-6)
    assert torch.allclose(results[1], second, atol=1e-6)
    assert fusion.stages[1].attention is None


def test_a_batch_of_one_sample(task, teacher):
    for name in NAMES:
        setting = Setting(teacher, student(), task)
        (stage,) = build(name, setting, warmup=0.0).stages
        model = stage.model or setting.student
        result = stage.step(model, some(task, 1))
        result["loss"].backward()
        assert result["loss"].isfinite(), name


def test_mixed_precision(task, teacher):
    for name in NAMES:
        setting = Setting(teacher, student(), task)
        lessons = build(name, setting, soft=1.0)
        (history,) = carry_out(lessons, setting, epochs=1, precision="bf16")
        assert history.epochs[0]["loss"] < 1e6, name


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"student_layers": ["stages.9"]}, GraphError, "no module 'stages.9'"),
        (
            {"student_layers": ["stages.0"], "teacher_layers": ["stages.0", "stages.1"]},
            RecipeError,
            r"of the student 1 \(named\), of the teacher 2 \(named\)",
        ),
        (
            {"student_layers": ["stages"] * 4},
            RecipeError,
            r"of the student 4 \(named\), of the teacher 3 \(its stages\); name as many",
        ),
        ({"weight": 0, "hard": 0}, RecipeError, "all 0"),
        ({"weigth": 1}, RecipeError, "did you mean 'weight'"),
    ],
)
def test_wrong_options_are_named(options, error, message, task, teacher):
    with pytest.raises(error, match=message):
        build("attention_transfer", Setting(teacher, student(), task), **options)


def test_models_that_do_not_fit_are_refused_before_training(task, teacher):
    with pytest.raises(DataError, match=r"\[1, 7\] and the teacher's \[1, 4\]"):
        build("rkd", Setting(teacher, TinyCNN(4, classes=7), task))
    with pytest.raises(RecipeError, match="same model"):
        build("rkd", Setting(teacher, teacher, task))
    with pytest.raises(RecipeError, match="cache: false"):
        build("rkd", Setting(teacher, student(), task, source=Logits(teacher, keep=lambda: None)))
    layers = {"student_layers": ["linear"], "teacher_layers": ["linear"]}
    with pytest.raises(RecipeError, match=r"'linear' gives \[1, 4\]"):
        build("review_kd", Setting(teacher, student(), task), **layers)
