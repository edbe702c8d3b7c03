"""Tiny lessons of transformer methods: a teacher, a student, a task of padded texts. Also run under torchrun."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from small_transformers import bert
from torch import Tensor, nn

import lianzhi as lz
from lianzhi import train
from lianzhi.distill import methods
from lianzhi.distill.methods.lesson import Lessons, Setting
from lianzhi.distill.transformer import layers_of
from lianzhi.tasks import Batch

STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def texts(samples: int = 24, tokens: int = 9, *, seed: int = 0, classes: int = 2) -> tuple[dict, Tensor]:
    """Token ids with padding, and which of a few words is among them."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, tokens + 1, (samples,), generator=generator)
    mask = (torch.arange(tokens) < lengths[:, None]).long()
    ids = torch.randint(8, 30, (samples, tokens), generator=generator)
    labels = torch.randint(classes, (samples,), generator=generator)
    ids[:, 1] = 3 + labels
    return {"input_ids": ids * mask, "attention_mask": mask}, labels


def task(samples: int = 24, *, batch: int = 8, **options: Any) -> lz.Task:
    """A task of such texts, in batches of a size that the loader says."""
    inputs, labels = texts(samples, **options)
    parts = [
        ({name: value[rows] for name, value in inputs.items()}, labels[rows])
        for rows in torch.arange(samples).split(batch)
    ]
    return lz.Task(train=parts, validation=parts, num_classes=options.get("classes", 2))


def setting(
    teacher: nn.Module | None = None, student: nn.Module | None = None, data: Any = None, **changes: Any
) -> Setting:
    """Four layers teach two, of the same width unless said otherwise."""
    return Setting(
        teacher=bert(4, seed=1, **STILL) if teacher is None else teacher,
        student=bert(2, seed=2, **{**STILL, **changes}) if student is None else student,
        task=task() if data is None else data,
    )


def taught(given: Setting, name: str, **options: Any) -> Lessons:
    """What a method makes of a setting."""
    entry = methods.registry.get(name)
    lessons: Lessons = entry.build(given, entry.config(**options))
    return lessons


def carried_out(given: Setting, lessons: Lessons, **options: Any) -> list[train.History]:
    """Train all stages."""
    found = []
    for stage in lessons.stages:
        if stage.prepare is not None:
            stage.prepare()
        settings = {"epochs": 4, "batch_size": 8, "lr": 3e-3, "optimizer": "adamw", "keep": "last", **options}
        found.append(
            train.fit(
                stage.model or given.student,
                (stage.task() if callable(stage.task) else stage.task) or given.task,
                train.TrainOptions(**{**settings, **stage.options}),
                step=stage.step,
                progress=False,
                after_step=stage.after_step,
            )
        )
    return found


CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "pkd": ("pkd", {}, {}),
    "pkd_all": ("pkd", {"map": "uniform", "tokens": "all"}, {}),
    "minilm": ("minilm", {}, {"hidden_size": 24, "num_attention_heads": 3}),
    "minilm_1": ("minilm", {"version": 1}, {"hidden_size": 16}),
    "distilbert": ("distilbert", {}, {}),
    "mobilebert": ("mobilebert", {}, {}),
    "tinybert": ("tinybert", {}, {"hidden_size": 24}),
    "tinybert_joint": (
        "tinybert",
        {"joint": True, "projection": "by_layer", "map": [2, 3]},
        {"hidden_size": 24},
    ),
}

IN_PROCESSES = {  # and those that leave another model than the student, or compare nothing with the teacher
    **CASES,
    "theseus": ("theseus", {"schedule": "constant"}, {}),
    "theseus_plus": ("theseus_plus", {"order": "hardest", "measured": 10}, {}),
}


def gradients(case: str) -> dict[str, Tensor]:
    """The first stage's gradients in double precision, step by step, and the weights at the end."""
    name, options, changes = IN_PROCESSES[case]
    given = setting(data=task(19, batch=7), **changes)
    given.teacher.double()
    given.task.example_inputs = {key: value[:1] for key, value in texts(2)[0].items()}
    given.student.double()
    stage = taught(given, name, **options).stages[0]
    model = (stage.model or given.student).double()
    if stage.prepare is not None:
        stage.prepare()
    seen: dict[str, Tensor] = {}
    steps: list[int] = []

    def note(model: nn.Module) -> None:
        for key, parameter in model.named_parameters():
            if parameter.grad is not None:
                seen[f"{len(steps)}/{key}"] = parameter.grad.clone().contiguous()
        steps.append(1)

    options_of_training = train.TrainOptions(epochs=1, batch_size=7, lr=0.05, keep="last")
    history = train.fit(
        model, given.task, options_of_training, step=stage.step, progress=False, after_step=note
    )
    entry = history.epochs[0]
    numbers = [entry["loss"], *(entry["terms"][key] for key in sorted(entry["terms"]))]
    return {**seen, "numbers": torch.tensor(numbers, dtype=torch.float64)}


def first_batch(given: Setting) -> Batch:
    """The first texts of a setting's task."""
    return next(iter(given.task.batches("train", 8)))


def terms_of(result: dict[str, Any]) -> dict[str, float]:
    """A step's terms as numbers."""
    return {name: float(value) for name, value in result["terms"].items()}


def of_teacher_layers(teacher: nn.Module, kept: list[int]) -> nn.Module:
    """A student of the teacher's layers, from 1."""
    student = copy.deepcopy(teacher)
    path = layers_of(student)[0].rpartition(".")[0]
    blocks = list(student.get_submodule(path))
    parent, _, name = path.rpartition(".")
    setattr(student.get_submodule(parent), name, nn.ModuleList(blocks[layer - 1] for layer in kept))
    return student


def main(folder: Path) -> None:
    rank, world = train.start_processes()
    assert world == 2
    for case in IN_PROCESSES:
        save_file(gradients(case), folder / f"{case}-{rank}.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
