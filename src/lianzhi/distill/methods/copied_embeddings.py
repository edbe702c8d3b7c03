"""A student's embeddings as the teacher's: tables and projections are copied, and a norm of another type is fitted.

MobileBERT's teacher normalises by layer, its student by NoNorm(x) = γ ⊙ x + β. γ and β have equal shapes in both, and mean
other things: those of a layer norm come after each token was brought to variance 1, of which NoNorm knows nothing. So
NoNorm gets, for each channel, the straight line that is nearest to the teacher's own norm on the texts of the stage:

    γ = Cov(x, y) / Var(x),   β = E(y) - γ · E(x)

over tokens that are no padding, x what goes into the teacher's norm and y what comes out. A layer norm in the student
keeps its own γ and β where the teacher has NoNorm: no line is one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lianzhi.distill.losses.positions import as_bool
from lianzhi.distill.methods.encoders import mask_of
from lianzhi.distill.methods.lesson import Setting
from lianzhi.distill.methods.phases import run_until
from lianzhi.distill.transformer import embeddings_of
from lianzhi.errors import RecipeError
from lianzhi.graph import device_of, moved
from lianzhi.tasks import Task

BATCH, MOST_BATCHES = 64, 16
LINES = "NoNorm"


def embeddings_of_both(setting: Setting) -> tuple[str, str]:
    """Names of the student's embeddings and the teacher's; raises `RecipeError` where a model has none."""
    found = embeddings_of(setting.student), embeddings_of(setting.teacher)
    if found[0] is None or found[1] is None:
        raise RecipeError(
            "mobilebert: a model has no module 'embeddings'; give models of the type mobilebert"
        )
    return found[0], found[1]


def copying(setting: Setting, texts: Callable[[], Task]) -> Callable[[], None]:
    """What gives the student the teacher's embeddings when the first stage begins, which trains on `texts`.

    Raises:
        RecipeError: the embeddings differ in shape.
    """
    one, other = embeddings_of_both(setting)
    student, teacher = setting.student.get_submodule(one), setting.teacher.get_submodule(other)
    shapes = [{name: value.shape for name, value in side.state_dict().items()} for side in (student, teacher)]
    if shapes[0] != shapes[1]:
        raise RecipeError(
            "mobilebert: the embeddings of student and teacher differ in shape; give both the same embedding_size and "
            "max_position_embeddings, or set copy_embeddings: false"
        )
    theirs = dict(teacher.named_modules())
    strange = {name for name, module in student.named_modules() if type(module) is not type(theirs.get(name))}

    def begin() -> None:
        values = teacher.state_dict()
        alike = {name: value for name, value in values.items() if name.rpartition(".")[0] not in strange}
        student.load_state_dict(alike, strict=False)
        for name in strange:
            module: Any = student.get_submodule(name)
            if type(module).__name__ == LINES:
                weight, bias = _nearest_line(setting, other, name, texts())
                with torch.no_grad():
                    module.weight.copy_(weight)
                    module.bias.copy_(bias)

    return begin


def _nearest_line(setting: Setting, embeddings: str, norm: str, task: Task) -> tuple[Tensor, Tensor]:
    """γ and β for each channel, from what goes into the teacher's norm and what comes out; both of shape (width,)."""
    where = device_of(setting.student)
    sums: list[Tensor] = []

    def note(_: nn.Module, given: tuple[Tensor, ...], found: Tensor) -> None:
        keep = as_bool(mask, tuple(found.shape[:-1]))
        x, y = (value.double() if keep is None else value.double()[keep] for value in (given[0], found))
        x, y = x.flatten(0, -2), y.flatten(0, -2)
        count = torch.full_like(x[:1].sum(0), len(x))
        sums.append(torch.stack([count, x.sum(0), y.sum(0), (x * x).sum(0), (x * y).sum(0)]))

    with setting.running(where) as teacher:
        hook = teacher.get_submodule(f"{embeddings}.{norm}").register_forward_hook(note)
        try:
            batches = task.batches("train", BATCH, epoch=0, seed=setting.seed)
            for _, batch in zip(range(MOST_BATCHES), batches, strict=False):
                inputs = moved(batch.inputs, where)
                mask = mask_of(inputs)
                run_until(teacher, embeddings, inputs)
        finally:
            hook.remove()
    count, x, y, square, product = torch.stack(sums).sum(0).unbind()
    spread = square / count - (x / count) ** 2
    together = product / count - x / count * (y / count)
    varies = spread > 1e-12 * square / count
    weight = torch.where(varies, together / torch.where(varies, spread, 1.0), 0.0)
    return weight, y / count - weight * x / count
