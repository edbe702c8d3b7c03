"""What removing a weight costs to second order, from the gradients that training has anyway: Optimal Brain Damage.

LeCun, Denker and Solla 1990: near a minimum the loss rises by ½ h w², h being the Hessian's diagonal. Here the running mean of the
squared gradient of the batch stands in for h, as in the averages of Adam, so that nothing is computed twice; near a minimum, and
at one batch size, it is proportional to the Fisher diagonal. The criterion of channels of the same name squares sample by sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from lianzhi.errors import GraphError, listed

DECAY = 0.999  # an update, of the running mean; before it has seen a thousand, the mean of all
FLOOR = 1e-6  # of a parameter's mean h: where h is zero, magnitudes decide


def require_trained(model: nn.Module, names: Iterable[str]) -> None:
    """Raises `GraphError` for a parameter that is frozen, for it has no gradients to read."""
    frozen = [name for name in names if not model.get_parameter(name).requires_grad]
    if frozen:
        raise GraphError(
            f"criterion 'hessian' reads gradients, and weights are frozen: {listed(frozen)}; leave them out (by 'ignore')"
        )


class Damage:
    """Running means of squared gradients, as buffers of the model whose names begin with `prefix`.

    Raises `GraphError` for a parameter that is frozen.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], prefix: str) -> None:
        require_trained(model, names)
        self.model, self.names, self.prefix = model, list(names), prefix
        model.register_buffer(f"{prefix}seen", torch.zeros(len(names), dtype=torch.int64))
        for index, name in enumerate(names):
            weight = model.get_parameter(name).detach()
            model.register_buffer(f"{prefix}square_{index}", torch.zeros_like(weight, dtype=_wide(weight)))

    @torch.no_grad()
    def read(self, staying: Sequence[Tensor] | None = None) -> None:
        """Take in the gradients of an update, at the weights that stay where those of the others were set to zero.

        Gradients that are not finite, at which a loop with a scaled loss leaves the update out, count for nothing.

        Raises `GraphError` where no parameter of the model has a gradient.
        """
        if all(parameter.grad is None for parameter in self.model.parameters()):
            raise GraphError(
                "criterion 'hessian' reads gradients, and there are none; call after_step before zero_grad"
            )
        seen = self.model.get_buffer(f"{self.prefix}seen")
        for index, name in enumerate(self.names):
            weight, square = self.model.get_parameter(name), self._square(index)
            if not weight.requires_grad or weight.grad is None or not bool(weight.grad.isfinite().all()):
                continue
            seen[index] += 1
            rate = max(1 / int(seen[index]), 1 - DECAY)
            mean = square.lerp(weight.grad.to(square.dtype).square(), rate)
            square.copy_(mean if staying is None else torch.where(staying[index], mean, square))

    def scores(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """w · √h of each parameter, whose squares are twice the cost.

        One that no gradient has reached yet has magnitudes, times what brings them to the others' root mean square.
        """
        wide = [weight.to(_wide(weight)) for weight in weights]
        reached = [bool(seen) for seen in self.model.get_buffer(f"{self.prefix}seen")]
        scores = []
        for index, weight in enumerate(wide):
            square = self._square(index)
            scores.append(weight * (square + FLOOR * square.mean()).sqrt() if reached[index] else weight)
        known = [score for score, known in zip(scores, reached, strict=True) if known]
        if not known:
            return scores
        level = _root_mean_square(known)
        return [
            score if known else score * (level / max(_root_mean_square([score]), 1e-30))
            for score, known in zip(scores, reached, strict=True)
        ]

    def _square(self, index: int) -> Tensor:
        return self.model.get_buffer(f"{self.prefix}square_{index}")


def _wide(weight: Tensor) -> torch.dtype:
    return torch.promote_types(weight.dtype, torch.float32)


def _root_mean_square(tensors: Sequence[Tensor]) -> float:
    total = sum(float(tensor.double().square().sum()) for tensor in tensors)
    return float((total / max(1, sum(tensor.numel() for tensor in tensors))) ** 0.5)
