"""Teacher and student encoders on one batch, with what is looked at inside of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lianzhi.distill.capture import Captured, capture
from lianzhi.distill.layer_map import LayerMap
from lianzhi.distill.lengths import require_runs
from lianzhi.distill.losses.parts import require_same_shape
from lianzhi.distill.methods.lesson import Setting
from lianzhi.distill.methods.teacher import logits_of
from lianzhi.distill.plain_scores import require_plain_scores
from lianzhi.distill.transformer import attention_of, embeddings_of, layers_of
from lianzhi.errors import DataError, GraphError, RecipeError
from lianzhi.graph import device_of, in_eval, moved
from lianzhi.tasks import TextPreprocess
from lianzhi.tasks.tokenizer import FILE
from lianzhi.train.default_step import call

Pairs = Sequence[tuple[str, str]]  # names of modules: the student's, the teacher's


@dataclass(frozen=True)
class Both:
    """What student and teacher gave, and what was seen inside of them; `mask` is true where a token counts."""

    outputs: Any
    teacher_outputs: Any
    student: Captured
    teacher: Captured
    mask: Tensor | None

    @property
    def logits(self) -> tuple[Tensor, Tensor]:
        """The student's logits and the teacher's."""
        return logits_of(self.outputs, "student"), logits_of(self.teacher_outputs, "teacher")


def run_both(setting: Setting, inputs: Any, *, hidden: Pairs = (), attention: Pairs = ()) -> Both:
    """Run the student, with gradients, and the teacher, without, on the same inputs.

    `hidden` are modules whose outputs are noted, `attention` layers whose queries, keys and values are.
    """
    with _watched(setting.student, hidden, attention, 0) as student:
        outputs = call(setting.student, inputs)
    where = device_of(setting.student)
    with setting.running(where) as model, _watched(model, hidden, attention, 1) as teacher:
        teacher_outputs = call(model, inputs)
    return Both(outputs, teacher_outputs, student, teacher, mask_of(inputs))


def check_both(
    setting: Setting,
    method: str,
    *,
    hidden: Pairs = (),
    attention: Pairs = (),
    same_outputs: bool = True,
    scores: bool = True,
) -> Both:
    """Run both once on the task's example, and refuse what cannot be taught. Nothing is changed.

    Without `scores` queries, keys and values are compared, and how they are put together does not matter.

    Raises:
        RecipeError: teacher and student are one model, or the teacher is not run (its logits are kept).
        DataError: the student does not run on the example, the outputs have other classes, or the vocabularies differ in size.
        GraphError: a layer that is looked at did not run, has no attention that can be read, or attends otherwise than by
            the plain product of its queries and keys.
    """
    if setting.teacher is setting.student:
        raise RecipeError(
            f"{method}: teacher and student are the same model; give a copy of it as the teacher"
        )
    if setting.source is not None and setting.source.keep is not None:
        raise RecipeError(
            f"{method} looks inside the teacher, which runs on every batch with the student's tokens: {_fix(setting)}"
        )
    words = [_vocabulary(model) for model in (setting.student, setting.teacher)]
    if None not in words and words[0] != words[1]:
        raise DataError(
            f"{method}: the student's vocabulary has {words[0]:,} tokens and the teacher's {words[1]:,}; "
            f"both must read the same tokens: give them one tokenizer"
        )
    inputs = moved(setting.task.example_inputs, device_of(setting.student))
    require_runs(setting.student, inputs, f"{method}: the student does not run on the task's example")
    with in_eval(setting.student), torch.no_grad():
        both = run_both(setting, inputs, hidden=hidden, attention=attention)
        if attention and scores:
            require_plain_scores(setting.student, [pair[0] for pair in attention], inputs, both.mask)
            with setting.running(device_of(setting.student)) as teacher:
                require_plain_scores(teacher, [pair[1] for pair in attention], inputs, both.mask)
    if same_outputs:
        require_same_shape(*both.logits)
    return both


def _fix(setting: Setting) -> str:
    """What makes teacher and student read the same tokens, where their tokenizers are one and its settings two."""
    theirs = setting.reads.preprocess if setting.reads is not None else None
    ours = setting.task.preprocess
    other = "give a teacher of the same tokenizer, and cache: false"
    if not isinstance(theirs, TextPreprocess) or not isinstance(ours, TextPreprocess):
        return other
    if theirs.members[FILE] != ours.members[FILE]:
        return other
    if theirs.max_length != ours.max_length:
        return (
            f"the tokenizer is the same, but the teacher reads up to {theirs.max_length} tokens of a text and the "
            f"student {ours.max_length}; set the task's max_length: {theirs.max_length}, or give a teacher of "
            f"max_length: {ours.max_length}"
        )
    if theirs.inputs != ours.inputs:
        return (
            f"the tokenizer is the same, but the teacher reads {', '.join(theirs.inputs)} and the student "
            f"{', '.join(ours.inputs)}; give both the same 'segments'"
        )
    return other


def check_heads(setting: Setting, method: str, attention: Pairs) -> None:
    """Raise `RecipeError` unless both sides of each pair of layers have as many heads."""
    for one, other in attention:
        heads = attention_of(setting.student, one).heads, attention_of(setting.teacher, other).heads
        if heads[0] != heads[1]:
            raise RecipeError(
                f"{method}: the student's '{one}' has {heads[0]} heads and the teacher's '{other}' {heads[1]}, and "
                f"attention is compared head by head; give the student num_attention_heads: {heads[1]}, or attention: 0"
            )


def depths(setting: Setting) -> tuple[int, int]:
    """How many layers the student has, and the teacher."""
    return len(layers_of(setting.student)), len(layers_of(setting.teacher))


def modules_of(setting: Setting, layers: LayerMap) -> list[tuple[str, str]]:
    """The modules of a map's pairs, in its order; layer 0 are the embeddings.

    Raises:
        GraphError: the map has the embeddings, and a model has no module of that name.
    """
    names = [[embeddings_of(model), *layers_of(model)] for model in (setting.student, setting.teacher)]
    found = []
    for pair in layers.pairs:
        one, other = (side[layer] for side, layer in zip(names, pair, strict=True))
        if one is None or other is None:
            who, model = ("student", setting.student) if one is None else ("teacher", setting.teacher)
            raise GraphError(
                f"the {who}, {type(model).__name__}, has no module 'embeddings'; leave layer 0 out of the map"
            )
        found.append((one, other))
    return found


def mask_of(inputs: Any) -> Tensor | None:
    """Which tokens count, (batch, tokens): a text model's attention mask; None where all do, as in images.

    >>> mask_of({"input_ids": torch.ones(1, 3), "attention_mask": torch.ones(1, 3)}).shape
    torch.Size([1, 3])
    """
    found = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
    return found if isinstance(found, Tensor) else None


def _watched(
    model: nn.Module, hidden: Pairs, attention: Pairs, side: int
) -> AbstractContextManager[Captured]:
    return capture(model, [pair[side] for pair in hidden], attention=[pair[side] for pair in attention])


def _vocabulary(model: nn.Module) -> int | None:
    """How many tokens a model of the transformers library reads; None for others, and for images."""
    read = getattr(model, "get_input_embeddings", None)
    words = read() if callable(read) else None
    return words.num_embeddings if isinstance(words, nn.Embedding) else None
