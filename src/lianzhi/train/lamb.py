"""LAMB: layer-wise adaptive moments for large batches (You et al., 1904.00962, algorithm 2).

    m = β1 m + (1 - β1) g          v = β2 v + (1 - β2) g²
    r = (m / (1 - β1^t)) / (√(v / (1 - β2^t)) + ε)
    x = x - lr · ‖x‖ / ‖r + λx‖ · (r + λx)

The trust ratio is 1 where either norm is zero, and it is not clamped (the paper's φ is the identity).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class Lamb(torch.optim.Optimizer):
    """The LAMB optimizer, on whole lists of tensors at once.

    >>> weight = torch.nn.Parameter(torch.ones(2))
    >>> optimizer = Lamb([weight], lr=0.1)
    >>> weight.sum().backward(); optimizer.step()
    >>> weight.tolist()
    [0.89999..., 0.89999...]
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 5e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do one update."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            by_age: dict[int, list[Tensor]] = {}
            for parameter in parameters:
                state = self.state[parameter]
                if not state:
                    state["step"] = torch.zeros(())
                    state["exp_avg"] = torch.zeros_like(parameter)
                    state["exp_avg_sq"] = torch.zeros_like(parameter)
                state["step"] += 1
                by_age.setdefault(int(state["step"]), []).append(parameter)
            for age, together in by_age.items():
                self._update(together, age, group)
        return loss

    def _update(self, parameters: list[Tensor], age: int, group: dict[str, Any]) -> None:
        """Update parameters that have seen the same number of steps."""
        beta1, beta2 = group["betas"]
        gradients = [parameter.grad for parameter in parameters]
        means = [self.state[parameter]["exp_avg"] for parameter in parameters]
        squares = [self.state[parameter]["exp_avg_sq"] for parameter in parameters]
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - beta2)
        roots = torch._foreach_div(squares, 1 - beta2**age)
        torch._foreach_sqrt_(roots)
        torch._foreach_add_(roots, group["eps"])
        updates = torch._foreach_div(means, 1 - beta1**age)
        torch._foreach_div_(updates, roots)
        if group["weight_decay"]:
            torch._foreach_add_(updates, parameters, alpha=group["weight_decay"])
        sizes = torch.stack(torch._foreach_norm(parameters))
        lengths = torch.stack(torch._foreach_norm(updates))
        trust = torch.where((sizes > 0) & (lengths > 0), sizes / lengths, torch.ones_like(sizes))
        torch._foreach_mul_(updates, list((trust * group["lr"]).unbind()))
        torch._foreach_sub_(parameters, updates)
