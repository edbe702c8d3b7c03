"""Pruning of single weights by magnitude (1506.02626), and masks that hold while the model trains.

A removed weight is exactly zero whenever the model runs: its gradient is zero, so that momentum and averages of squares gather
nothing for it and it has no part in the gradient's norm, and after each update it is set to zero again, whatever the optimizer
still had in store for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.hooks import RemovableHandle

from lianzhi.codebook.zeroing import bits_of, zero_, zeroed
from lianzhi.errors import DataError, GraphError, RecipeError


def magnitude_mask(tensor: Tensor, sparsity: float) -> Tensor:
    """Which weights stay when the share `sparsity` of them, the smallest, is removed: bools of the tensor's shape.

    Exactly ``round(sparsity * n)`` are removed; of equal weights the first go first.

    >>> magnitude_mask(torch.tensor([[0.1, -3.0], [2.0, -0.2]]), 0.5)
    tensor([[False,  True],
            [ True, False]])

    Raises `RecipeError` for a sparsity that is no share, `DataError` for weights that are NaN.
    """
    if not 0 <= sparsity <= 1:
        raise RecipeError(f"sparsity: {sparsity} is no share of the weights; give one in [0, 1]")
    return _kept(tensor.detach(), round(sparsity * tensor.numel()))


def threshold_mask(tensor: Tensor, quality: float) -> Tensor:
    """Which weights are larger than `quality` times the standard deviation of the non-zero ones.

    >>> threshold_mask(torch.tensor([1.0, -1.0, 0.5, 3.0]), 0.7)
    tensor([False, False, False,  True])

    Raises `RecipeError` for a negative quality, `DataError` for weights that are NaN or infinite.
    """
    if not quality >= 0:
        raise RecipeError(
            f"quality: {quality} is below 0; it is a multiple of the standard deviation, such as 0.7"
        )
    weight = _wide(tensor.detach())
    some = weight[weight != 0]
    deviation = some.double().std(correction=0) if len(some) else torch.zeros((), dtype=torch.float64)
    if not bool(deviation.isfinite()):  # nothing would be larger
        raise DataError(
            "threshold_mask: weights are NaN, infinite or too large; give weights that are numbers"
        )
    return weight.abs() > quality * deviation


def global_masks(tensors: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """Masks by one threshold for all tensors: the share `sparsity` of all weights, the smallest, is removed.

    >>> found = global_masks({"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0, 4.0]])}, 0.5)
    >>> {name: mask.tolist() for name, mask in found.items()}
    {'a': [False, False], 'b': [[True, True]]}
    """
    if not tensors:
        return {}
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors.values()])
    parts = magnitude_mask(flat, sparsity).split([tensor.numel() for tensor in tensors.values()])
    return {name: part.view(tensors[name].shape) for name, part in zip(tensors, parts, strict=True)}


def each_mask(weights: Mapping[str, Tensor], make: Callable[[str, Tensor], Tensor]) -> dict[str, Tensor]:
    """The mask ``make(name, weight)`` of each weight; what is wrong with one says whose it is.

    >>> each_mask({"fc": torch.tensor([[float("nan"), 1.0]])}, lambda name, weight: magnitude_mask(weight, 0.5))
    Traceback (most recent call last):
        ...
    lianzhi.errors.DataError: 'fc': magnitude_mask: weights are NaN or infinite; give weights that are numbers
    """
    found = {}
    for name, weight in weights.items():
        try:
            found[name] = make(name, weight)
        except DataError as error:
            raise DataError(f"'{name}': {error}") from None
    return found


def two_of_four_mask(tensor: Tensor) -> Tensor:
    """Masks that keep the two largest of every four weights in a row of inputs: NVIDIA's 2:4 sparsity (2104.08378).

    The inputs are the second dimension, (outputs, inputs, …). Where they are no multiple of four, all weights stay. Of equal
    weights the first ones stay.

    >>> two_of_four_mask(torch.tensor([[0.1, -3.0, 2.0, 0.5]]))
    tensor([[False,  True,  True, False]])

    Raises `DataError` for weights that are NaN.
    """
    if tensor.dim() < 2 or tensor.shape[1] % 4:
        return torch.ones_like(tensor, dtype=torch.bool)
    rows = _wide(tensor.detach()).abs().movedim(1, -1)
    if not bool(rows.isfinite().all()):
        raise DataError("two_of_four_mask: weights are NaN or infinite; give weights that are numbers")
    fours = rows.unflatten(-1, (-1, 4))
    largest = fours.argsort(dim=-1, descending=True, stable=True)[..., :2]
    kept = torch.zeros_like(fours, dtype=torch.bool).scatter(-1, largest, True)
    return kept.flatten(-2).movedim(-1, 1)


def weights_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that Deep Compression prunes and shares: floating parameters with two or more dimensions.

    >>> list(weights_of(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 2))))
    ['0.weight', '2.weight']

    Raises `GraphError` for a lazy layer that has not run yet.
    """
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise GraphError(f"'{name}' has no shape yet; run the model on an example first")
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.dim() >= 2 and parameter.is_floating_point()
    }


def names_of(model: nn.Module) -> dict[str, list[str]]:
    """All names of each parameter, by its first one: a tied weight has several.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    >>> net[1].weight = net[0].weight
    >>> names_of(net)
    {'0.weight': ['0.weight', '1.weight']}
    """
    found: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        found.setdefault(id(parameter), []).append(name)
    return {names[0]: names for names in found.values()}


def require_dense_gradients(model: nn.Module, names: Collection[str]) -> None:
    """Raise `GraphError` for a parameter that trains by sparse gradients, in which nothing can be set to zero.

    >>> require_dense_gradients(nn.Sequential(nn.Embedding(9, 4, sparse=True)), ["0.weight"])
    Traceback (most recent call last):
        ...
    lianzhi.errors.GraphError: masks: '0.weight' is of a table with sparse=True, whose gradient no mask fits; set its sparse to False
    """
    tables = [module for module in model.modules() if isinstance(module, (nn.Embedding, nn.EmbeddingBag))]
    sparse = {id(table.weight) for table in tables if table.sparse}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name in names and parameter.requires_grad and id(parameter) in sparse:
            raise GraphError(
                f"masks: '{name}' is of a table with sparse=True, whose gradient no mask fits; set its sparse to False"
            )


class Masks:
    """Masks on parameters of a model, by name, which hold until `release`.

    >>> net = nn.Linear(4, 2)
    >>> masks = Masks(net, {"weight": magnitude_mask(net.weight, 0.5)})
    >>> int((net.weight == 0).sum()), masks.kept
    (4, {'weight': 4})

    Give `apply_` to a training loop, which calls it after each update: ``train.fit(…, after_step=masks.apply_)``.

    Raises `GraphError` for a name that is no parameter, another shape, or a table whose gradients are sparse.
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
        parameters = dict(model.named_parameters(remove_duplicate=False))
        for name, mask in masks.items():
            if name not in parameters:
                raise GraphError(
                    f"masks: '{name}' is no parameter of the model; known: {', '.join(list(parameters)[:5])}, …"
                )
            if parameters[name].shape != mask.shape or mask.dtype != torch.bool:
                raise GraphError(
                    f"masks: the mask of '{name}' is {mask.dtype} of shape {tuple(mask.shape)}, and the parameter has "
                    f"shape {tuple(parameters[name].shape)}; give bools of that shape"
                )
        require_dense_gradients(model, masks)
        self.masks = dict(masks)
        self._bits: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        self.apply_(model)
        for name, parameter in parameters.items():
            if name in masks and parameter.requires_grad:
                self._handles.append(
                    parameter.register_hook(lambda gradient, name=name: self._of_kept(gradient, name))
                )

    @property
    def kept(self) -> dict[str, int]:
        """How many weights of each parameter stay."""
        return {name: int(mask.sum()) for name, mask in self.masks.items()}

    @torch.no_grad()
    def apply_(self, model: nn.Module) -> None:
        """Set the removed weights to zero, with the device and the memory format that they have now."""
        for name in self.masks:
            parameter = model.get_parameter(name)
            if name in self._bits and self._bits[name].stride() != parameter.stride():
                del self._bits[name]  # right still, and slow
            zero_(parameter, self._staying(name, parameter))

    def release(self) -> None:
        """Let gradients through again."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _of_kept(self, gradient: Tensor, name: str) -> Tensor:
        if gradient.requires_grad:  # of a gradient of a gradient; integers have none
            return gradient.masked_fill(~self.masks[name].to(gradient.device), 0.0)
        return zeroed(gradient, self._staying(name, gradient))

    def _staying(self, name: str, like: Tensor) -> Tensor:
        """The bits of a mask for a device and a width of numbers; made once for these."""
        bits = self._bits.get(name)
        if bits is None or bits.device != like.device or bits.element_size() != like.element_size():
            self._bits[name] = bits = bits_of(self.masks[name], like)
        return bits


def held(model: nn.Module, names: Collection[str] | None = None) -> Masks:
    """Masks that keep what is zero now: the zeros of all weights, or of those of some names.

    >>> net = nn.Linear(3, 1, bias=False)
    >>> _ = net.weight.data.copy_(torch.tensor([[0.0, 1.0, 2.0]]))
    >>> held(net).kept
    {'weight': 2}
    """
    weights = weights_of(model)
    return Masks(
        model, {name: weights[name].detach() != 0 for name in weights if names is None or name in names}
    )


def _kept(tensor: Tensor, gone: int) -> Tensor:
    """All but the `gone` smallest magnitudes."""
    if not gone:
        return torch.ones_like(tensor, dtype=torch.bool)
    size = _wide(tensor).abs().contiguous()
    if not bool(size.isfinite().all()):
        raise DataError("magnitude_mask: weights are NaN or infinite; give weights that are numbers")
    limit = _smallest(size.flatten(), gone)
    kept = size > limit
    equal = (size == limit).flatten().nonzero().flatten()
    spared = int(size.numel() - kept.sum()) - gone  # of those equal to the limit, the last ones stay
    kept.view(-1)[equal[len(equal) - spared :]] = True
    return kept


def _wide(tensor: Tensor) -> Tensor:
    """In float32, or in float64 as it is, so that all of it can be told apart."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _smallest(values: Tensor, rank: int) -> Tensor:
    """The value of a rank, counted from 1, in sorted order."""
    if values.device.type != "cpu":
        return values.sort().values[rank - 1]
    part = values.numpy().copy()
    part.partition(rank - 1)
    return torch.tensor(part[rank - 1])
