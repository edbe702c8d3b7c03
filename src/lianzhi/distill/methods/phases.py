"""One layer after another: run a model as far as a layer, and let what is under it learn more slowly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lianzhi.errors import GraphError
from lianzhi.train.default_step import call


class _ReachedError(Exception):
    """The layer has run; what is above it is not wanted."""


def run_until(model: nn.Module, layer: str, inputs: Any) -> None:
    """Run the model as far as a layer, that included, for what hooks note of it.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4), nn.Linear(99, 1))
    >>> run_until(net, "1", torch.ones(1, 2))                        # the last one would not fit

    Raises:
        GraphError: the layer did not run.
    """

    def stop(*_: Any) -> None:
        raise _ReachedError

    hook = model.get_submodule(layer).register_forward_hook(stop)
    try:
        call(model, inputs)
    except _ReachedError:
        return
    finally:
        hook.remove()
    raise GraphError(f"'{layer}' did not run; name a layer that is on the way to the outputs")


class Slowed:
    """Parameters whose steps are shortened to a share: of what an optimizer adds, `share` is kept.

    Every update of the optimizers here is proportional to the learning rate, so that this is a learning rate of
    `share` times the others', in one optimizer. `note` the parameters before a step, and `shorten` after it.

    >>> weight = nn.Parameter(torch.zeros(1))
    >>> slowed = Slowed([weight], 0.1)
    >>> slowed.note(); _ = weight.data.add_(5.0); slowed.shorten(); weight.item()
    0.5
    """

    def __init__(self, parameters: Sequence[nn.Parameter], share: float) -> None:
        self.parameters, self.share = list(parameters), share
        self.before: list[Tensor] = []

    def note(self) -> None:
        """Remember where the parameters are."""
        self.before = [parameter.detach().clone() for parameter in self.parameters]

    def shorten(self) -> None:
        """Take back all but the share of what was added since."""
        with torch.no_grad():
            for parameter, before in zip(self.parameters, self.before, strict=True):
                parameter.copy_(torch.lerp(before, parameter, self.share))
