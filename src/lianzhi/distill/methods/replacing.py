"""Modules of a student in turns with what they replace: BERT-of-Theseus, Xu et al. 2020 (2002.02925), section 3.

The student stays what it is, a model of fewer blocks. Only while a step runs it, a `Place` stands where each of its
blocks is, and runs the block (the successor) or the teacher's blocks of the same depth (the predecessor). Nothing
of the predecessor is ever in the student's parameters, checkpoints or files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils import _pytree as pytree

from lianzhi.errors import GraphError
from lianzhi.graph import device_of, first_tensor

Choice: TypeAlias = bool | Tensor  # true where the successor runs: of all samples, or of each, (batch,)


class Place(nn.Module):
    """A successor and the blocks that it replaces; `chosen` says which of the two runs.

    >>> place = Place([nn.Linear(2, 2), nn.Linear(2, 2)], nn.Identity())
    >>> place.chosen = torch.tensor([True, False, True])
    >>> inputs = torch.ones(3, 2)
    >>> (place(inputs) == inputs).all(1).tolist()
    [True, False, True]
    """

    def __init__(self, predecessor: Sequence[nn.Module], successor: nn.Module) -> None:
        super().__init__()
        self.predecessor = nn.ModuleList(predecessor)
        self.successor = successor
        self.chosen: Choice = True
        self.shared: frozenset[int] = frozenset()  # arguments that are no sample's own, by their position

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """What the chosen one gives; the blocks take what a block of the model takes."""
        if isinstance(self.chosen, Tensor):
            return self._by_sample(self.chosen, inputs, named)
        if self.chosen:
            return self.successor(*inputs, **named)
        return chain(self.predecessor, inputs, named)

    def _by_sample(self, chosen: Tensor, inputs: Any, named: Any) -> Any:
        """Each sample through its own: the batch is parted, and put together again."""
        values, shape = pytree.tree_flatten((inputs, named))
        hidden = first_tensor(values)
        if hidden is None or len(hidden) != len(chosen):
            raise GraphError(
                f"replacement by sample: a block takes {None if hidden is None else list(hidden.shape)} for "
                f"{len(chosen)} samples; its first axis must be the batch (or use replace: batch)"
            )

        def part(rows: Tensor) -> Any:
            return pytree.tree_unflatten(
                [
                    value.index_select(0, rows) if self._of_samples(place, value, len(chosen)) else value
                    for place, value in enumerate(values)
                ],
                shape,
            )

        new, old = (rows.nonzero().flatten() for rows in (chosen, ~chosen))
        one_inputs, one_named = part(new)
        one = self.successor(*one_inputs, **one_named)
        other = chain(self.predecessor, *part(old))
        back = torch.cat([new, old]).argsort()

        def join(first: Any, second: Any) -> Any:
            if not isinstance(first, Tensor) or len(first) != len(new):
                return first
            return torch.cat([first, second]).index_select(0, back)

        return pytree.tree_map(join, one, other)

    def _of_samples(self, place: int, value: Any, count: int) -> bool:
        """Whether a tensor has a row for each sample."""
        return (
            isinstance(value, Tensor) and value.ndim > 0 and len(value) == count and place not in self.shared
        )


def chain(blocks: Sequence[nn.Module] | nn.ModuleList, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Blocks one after another: each takes the hidden state of the one before, and what the first one took beside it.

    >>> chain([nn.Linear(2, 3), nn.Linear(3, 4)], (torch.zeros(1, 2),), {}).shape
    torch.Size([1, 4])
    """
    outputs: Any = None
    for number, block in enumerate(blocks):
        if number:
            hidden = first_tensor(outputs)
            if inputs:
                inputs = (hidden, *inputs[1:])
            else:
                named = {**named, next(iter(named)): hidden}
        outputs = block(*inputs, **named)
    return outputs


class Stack:
    """A student's blocks, and for each the blocks of the predecessor that it replaces.

    >>> student = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> stack = Stack(student, ["0", "1"], [[nn.Identity()], [nn.Identity()]])
    >>> inputs = torch.ones(1, 2)
    >>> with stack.replaced([False, False]):
    ...     bool((student(inputs) == inputs).all())
    True
    >>> type(student[0]).__name__
    'Linear'

    `ends` are the names in the teacher of the last block of each group. The predecessor's blocks get no gradients. They are in training mode when the student is, with dropout, unless
    `dropout` is false; BatchNorm in them keeps its statistics.
    """

    def __init__(
        self,
        student: nn.Module,
        names: Sequence[str],
        predecessors: Sequence[Sequence[nn.Module]],
        *,
        ends: Sequence[str] = (),
        dropout: bool = True,
    ) -> None:
        self.student, self.names, self.ends, self.dropout = student, list(names), list(ends), dropout
        self.places = [
            Place(blocks, student.get_submodule(name))
            for name, blocks in zip(names, predecessors, strict=True)
        ]
        for place in self.places:
            place.predecessor.requires_grad_(False)
        own = {id(parameter) for place in self.places for parameter in place.successor.parameters()}
        self.trainable = [
            (name, parameter) for name, parameter in student.named_parameters() if parameter.requires_grad
        ]
        self.successor = {name for name, parameter in self.trainable if id(parameter) in own}
        inner = {id(module) for place in self.places for module in place.successor.modules()}
        self.outer_norms = [
            module
            for module in student.modules()
            if isinstance(module, _NormBase) and id(module) not in inner
        ]

    @contextlib.contextmanager
    def replaced(self, chosen: Sequence[Choice]) -> Iterator[None]:
        """Let the student run successors where they are chosen, and predecessors elsewhere."""
        device = device_of(self.student)
        training = self.student.training and self.dropout
        for place, choice in zip(self.places, chosen, strict=True):
            place.chosen = choice.to(device) if isinstance(choice, Tensor) else choice
            if device_of(place.predecessor) != device:
                place.predecessor.to(device)
            if place.predecessor.training != training:
                place.predecessor.train(training)
                keep_statistics(place.predecessor)
        config: Any = getattr(self.student, "config", None)
        caches = getattr(config, "use_cache", None)
        try:
            if caches:  # a decoder's keys and values are kept by layer, and two layers would share a place
                config.use_cache = False
            for name, place in zip(self.names, self.places, strict=True):
                _put(self.student, name, place)
            yield
        finally:
            for name, place in zip(self.names, self.places, strict=True):
                _put(self.student, name, place.successor)
            if caches:
                config.use_cache = caches

    def start_gradients(self, chosen: Sequence[Choice]) -> None:
        """Give zeros to successors that do not run: they get no other gradient, and optimizers need one."""
        for place, choice in zip(self.places, chosen, strict=True):
            if choice is False:
                for parameter in place.successor.parameters():
                    if parameter.requires_grad and parameter.grad is None:
                        parameter.grad = torch.zeros_like(parameter)

    def train_only(self, names: set[str]) -> None:
        """Let gradients go to these parameters of the student, and to no others."""
        for name, parameter in self.trainable:
            parameter.requires_grad_(name in names)

    def release(self) -> None:
        """Let gradients go where they went before."""
        self.train_only({name for name, _ in self.trainable})

    def hold(self) -> None:
        """Keep the statistics of norms beside the blocks whose weights are not trained."""
        for norm in self.outer_norms:
            if not any(parameter.requires_grad for parameter in norm.parameters()):
                norm.eval()


def keep_statistics(module: nn.Module) -> None:
    """Put what keeps running statistics, BatchNorm, in eval mode."""
    for child in module.modules():
        if isinstance(child, _NormBase):
            child.eval()


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    path, _, last = name.rpartition(".")
    model.get_submodule(path)._modules[last] = module
