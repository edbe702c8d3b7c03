"""Weights that move while they are shared: the model computes with the value nearest to each, and each trains on.

Training the centroids alone (1510.00149) leaves every weight with the cluster that k-means put it into before the model had
learnt to live with few values. Here the gradient of a shared value goes straight through to the weight behind it
(BinaryConnect, 1511.00363), so that weights change clusters, and after each update a centroid becomes the mean of its weights
(an iteration of k-means). With w the weights and c the centroids:

    forward: w' = c[argmin_j |w - c_j|], 0 stays 0        backward: dL/dw = dL/dw'        then: c_j = mean of its w
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lianzhi.codebook.kmeans import assign, iterate
from lianzhi.codebook.zeroing import bits_of, zero_, zeroed


class Moving(nn.Module):
    """The parametrization of a weight that moves: from the weight to the nearest value. Zeros stay zero, and get no gradient.

    >>> moving = Moving(torch.tensor([[0.0, 1.2, 1.9]]), [torch.tensor([1.0, 2.0])])
    >>> moving(torch.tensor([[0.3, 1.2, 1.9]]))
    tensor([[0., 1., 2.]])

    `tables` are the centroids of each run of output channels; they are buffers, so that checkpoints hold them.
    """

    filled: Tensor
    _bits: Tensor | None
    _places: list[Tensor] | None  # of the weights that are not zero, in each run

    def __init__(self, weight: Tensor, tables: Sequence[Tensor]) -> None:
        super().__init__()
        self.register_buffer("filled", weight.detach() != 0)
        self.groups = len(tables)
        for index, centroids in enumerate(tables):
            self.register_buffer(f"centroids_{index}", centroids.detach().float().clone())
        self._forget()

    def forward(self, weight: Tensor) -> Tensor:
        shared: Tensor = _Straight.apply(weight, self._bits_for(weight), self._shared)
        return shared

    def _shared(self, weight: Tensor) -> Tensor:
        """The value that each weight counts as."""
        parts = zip(runs(weight, self.groups), self._tables(), strict=True)
        shared = [_nearest(part, centroids) for part, centroids in parts]
        return shared[0] if len(shared) == 1 else torch.cat(shared)

    @torch.no_grad()
    def follow(self, weight: Tensor) -> None:
        """Move each centroid to the mean of the weights that are nearest to it."""
        for centroids, values in zip(self._tables(), self._filled(weight), strict=True):
            if len(centroids):
                centroids.copy_(iterate(values, centroids))

    def _filled(self, weight: Tensor) -> list[Tensor]:
        """The weights of each run that are not zero."""
        if self._places is None or self._places[0].device != weight.device:
            self._places = [
                part.reshape(-1).nonzero().view(-1).int() for part in runs(self.filled, self.groups)
            ]
        parts = zip(runs(weight, self.groups), self._places, strict=True)
        return [
            part.reshape(-1) if len(places) == part.numel() else part.reshape(-1).index_select(0, places)
            for part, places in parts
        ]

    def _bits_for(self, weight: Tensor) -> Tensor:
        """Those of `filled`, as wide as the weight; made once."""
        bits = self._bits
        if bits is None or bits.device != weight.device or bits.element_size() != weight.element_size():
            with torch.inference_mode(False):  # training takes them, too
                plain = torch.empty(weight.shape, dtype=weight.dtype, device=weight.device)
                bits = self._bits = bits_of(self.filled, plain)
        return bits

    def _tables(self) -> list[Tensor]:
        return [self.get_buffer(f"centroids_{index}") for index in range(self.groups)]

    def _load_from_state_dict(self, *given: Any, **named: Any) -> None:
        super()._load_from_state_dict(*given, **named)
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_bits": None, "_places": None}

    def _forget(self) -> None:
        self._bits, self._places = None, None


class _Straight(torch.autograd.Function):
    """The shared values; the gradient of what is not zero goes through as it is."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bits: Tensor, shared: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(bits)
        whole = shared(weight)
        zero_(whole, bits)
        return whole

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (bits,) = ctx.saved_tensors
        gradient = gradients[0].to_dense()  # a table may give a sparse one
        return zeroed(gradient, bits), None, None


def _nearest(weight: Tensor, centroids: Tensor) -> Tensor:
    """The value nearest to each weight; where there is none, zero."""
    if not len(centroids):
        return torch.zeros_like(weight)
    codes = assign(weight, centroids)
    return centroids.to(weight.dtype).index_select(0, codes.view(-1)).view(codes.shape)


def follow(model: nn.Module) -> None:
    """One iteration of k-means in all codebooks of a model whose weights move: for the training loop's `after_step`.

    >>> net = nn.Linear(2, 1, bias=False)
    >>> nn.utils.parametrize.register_parametrization(
    ...     net, "weight", Moving(net.weight, [torch.tensor([-1.0, 1.0])]), unsafe=True
    ... ).parametrizations.weight.original.data.copy_(torch.tensor([[-0.5, 0.75]]))
    tensor([[-0.5000,  0.7500]])
    >>> follow(net); net.weight.detach()
    tensor([[-0.5000,  0.7500]])
    """
    for module in model.modules():
        if isinstance(module, nn.utils.parametrize.ParametrizationList) and isinstance(module[0], Moving):
            module[0].follow(module.original)


def runs(tensor: Tensor, groups: int) -> Sequence[Tensor]:
    """The runs of output channels, the first dimension, that have a codebook each; views."""
    return tensor.tensor_split(groups) if groups > 1 else [tensor]
