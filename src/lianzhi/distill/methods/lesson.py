"""What a distillation method is given, and what it makes: stages that the training loop carries out one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lianzhi.distill.methods.teacher import Logits
from lianzhi.errors import RecipeError
from lianzhi.graph import in_eval
from lianzhi.tasks import Batch, Task
from lianzhi.train.default_step import Step, task_loss
from lianzhi.train.options import TrainOptions

if TYPE_CHECKING:
    from lianzhi.distill.teacher_cache import Kept


@dataclass
class Setting:
    """A teacher, a student, and the data that the student learns on.

    `student` is trained in place. The teacher never is; use it through `logits` and `running`. `training` are the
    recipe's options of training, before a stage changes some; `loss(outputs, labels)` is the task's as they have it. What is made before a stage (more texts, say) is
    computed on `device`, and a bar is shown with `progress`. `reads` is the task as the teacher reads it, where the
    student has other tokens. `named`: the recipe says which student, and it is not the model as it is.
    """

    teacher: nn.Module
    student: nn.Module
    task: Task
    training: TrainOptions = field(default_factory=TrainOptions)
    seed: int = 0
    source: Logits | None = None
    device: str = "cpu"
    progress: bool = False
    reads: Task | None = None
    keep: Callable[[Task], Kept] | None = None
    named: bool = False
    loss: Callable[[Any, Any], Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.source is None:
            self.source = Logits(self.teacher)
        self.loss = task_loss(self.task, self.training)

    def require_labels(self, weight: float, option: str) -> None:
        """Raise `RecipeError` where labels are to be smoothed that weigh nothing, as `option` says."""
        if not weight and self.training.label_smoothing:
            raise RecipeError(f"label_smoothing: with {option} no labels are read; leave it out")

    def logits(self, batch: Batch, device: torch.device) -> Tensor:
        """The teacher's logits of a batch, (samples, classes): computed, or read where they are kept."""
        assert self.source is not None
        return self.source(batch, device)

    def kept(self, task: Task) -> Kept:
        """The teacher's logits of all training samples of a task that it reads, computed once and kept."""
        if self.keep is not None:
            return self.keep(task)
        from lianzhi.distill.teacher_cache import folder, kept  # which reads this package

        return kept(self.teacher, task, folder(), batch_size=self.training.batch_size, progress=self.progress)

    @contextmanager
    def running(self, device: torch.device) -> Iterator[nn.Module]:
        """The teacher to be called: on the device, in eval mode, without gradients, and left as it was found."""
        if self.source is None or self.source.given is not self.teacher:  # another one was set since
            self.source = Logits(self.teacher)
        teacher = self.source.on(device)
        with in_eval(teacher), torch.no_grad():
            yield teacher


@dataclass
class Stage:
    """One training: a step, and in what it differs from the recipe's options.

    `model` is what is trained (default: the student; with parts beside it a `Learner`). `task` is other data than
    the setting's, or makes it when the stage begins. `options` replace the recipe's options of training, and are
    replaced by the recipe's ``stages``. Without `choose` no metric says which epoch is best, and the last is kept.
    `prepare` runs once before the stage begins, in every process.
    """

    name: str
    step: Step
    model: nn.Module | None = None
    task: Task | Callable[[], Task] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    choose: bool = True
    after_step: Callable[[nn.Module], None] | None = None
    prepare: Callable[[], None] | None = None


@dataclass
class Lessons:
    """The stages of a method. `finish` gives the model that is left, whose structure it knows before any training.

    `task` is the data as that model reads it, where it has other tokens than the teacher. `notes` are remarks for the
    report, to which a stage may add.
    """

    stages: list[Stage]
    finish: Callable[[], nn.Module] | None = None
    task: Task | None = None
    notes: list[str] = field(default_factory=list)
