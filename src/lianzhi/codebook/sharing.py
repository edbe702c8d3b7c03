"""Weight sharing (1510.00149, section 3): the weights of a layer take few values, and training moves those values.

`share_values` is the function: k-means on what is not zero. `share` puts it into a model: what an optimizer sees of a layer is
its codebook, so that a centroid's gradient is the sum of its weights' and all state of the optimizer is a centroid's; or, first,
the weights, which move from value to value (see `moving`). `bake` gives the ordinary model back, whose weights are values of the
codebooks to the bit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lianzhi.codebook.kmeans import assign, cluster
from lianzhi.codebook.lookup import lookup, rows_by_code
from lianzhi.codebook.masks import weights_of
from lianzhi.codebook.moving import Moving, runs
from lianzhi.codebook.plain import require_plain
from lianzhi.codebook.rated import BITS, rated, require_rate
from lianzhi.codebook.rated_moving import RatedMoving
from lianzhi.codebook.slices import filled
from lianzhi.errors import DataError, GraphError, RecipeError

MOST_BITS = 16
PART = 2**22  # weights that get their codes at a time


def share_values(
    tensor: Tensor, bits: int, *, init: str = "linear", groups: int = 1, seed: int = 0
) -> Tensor:
    """The tensor with each weight that is not zero replaced by its centroid: zero and at most ``2**bits - 1`` values.

    >>> share_values(torch.tensor([[0.0, 1.0, 1.2], [5.0, 5.2, 9.0]]), 2)
    tensor([[0.0000, 1.1000, 1.1000],
            [5.1000, 5.1000, 9.0000]])

    `groups` cuts the output channels (the first dimension) into so many runs, each with a codebook of its own. `init` and
    `seed` are those of `kmeans.cluster`.

    Raises `RecipeError` for bits outside of 1 to 16 or more groups than channels, `DataError` for a tensor that is not
    floating, or not finite, or in float64 beyond float32 or all too small for it.
    """
    tables = _centroids(tensor, bits, init=init, groups=groups, seed=seed)
    shared = tensor.detach().clone(memory_format=torch.contiguous_format)
    for part, centroids in zip(runs(shared, groups), tables, strict=True):
        if not len(centroids):
            continue
        values = centroids.to(tensor.dtype)
        for piece in part.view(-1).split(PART):  # in place: of a large tensor no codes are held
            piece.copy_(torch.where(piece == 0, 0, values[assign(piece, centroids)]))
    return shared


def codebook(
    tensor: Tensor, bits: int, *, init: str = "linear", groups: int = 1, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """The centroids of all groups, one after the other, and the codes: int32, 0 for zero, i for the i-th centroid from 1.

    >>> centroids, codes = codebook(torch.tensor([[0.0, 1.0], [5.0, 5.2]]), 2, groups=2)
    >>> centroids, codes.tolist()
    (tensor([1.0000, 5.0000, 5.2000]), [[0, 1], [2, 3]])
    """
    found = _centroids(tensor, bits, init=init, groups=groups, seed=seed)
    codes = torch.empty(tensor.shape, dtype=torch.int32, device=tensor.device)
    before = 0
    for part, target, centroids in zip(
        runs(tensor.detach(), groups), runs(codes, groups), found, strict=True
    ):
        pieces = zip(part.reshape(-1).split(PART), target.view(-1).split(PART), strict=True)
        for piece, place in pieces:
            place.copy_(_codes(piece, centroids, before))
        before += len(centroids)
    return torch.cat(found).to(tensor.dtype), codes


def _centroids(tensor: Tensor, bits: int, *, init: str, groups: int, seed: int) -> list[Tensor]:
    """The centroids of each group."""
    if not tensor.is_floating_point():
        raise DataError(f"sharing: the weights are {tensor.dtype}; only floating ones are shared")
    if type(bits) is not int or not 1 <= bits <= MOST_BITS:
        raise RecipeError(f"bits: {bits!r}; give a whole number from 1 to {MOST_BITS}")
    rows = tensor.shape[0] if tensor.dim() else 1
    if not 1 <= groups <= max(1, rows):
        raise RecipeError(
            f"groups: {groups} for a tensor of shape {tuple(tensor.shape)}; give 1 to {max(1, rows)}"
        )
    parts = (part.reshape(-1) for part in runs(tensor.detach(), groups))
    return [cluster(filled(part), 2**bits - 1, init=init, seed=seed) for part in parts]


def _codes(flat: Tensor, centroids: Tensor, before: int) -> Tensor:
    if not len(centroids):
        return torch.zeros(flat.shape, dtype=torch.int32, device=flat.device)
    return torch.where(flat == 0, 0, assign(flat, centroids) + (before + 1)).int()


class Codebook(nn.Module):
    """The parametrization of a shared weight: from centroids to weights. Its codes are buffers, so that checkpoints hold them."""

    codes: Tensor

    def __init__(self, centroids: Tensor, codes: Tensor) -> None:
        super().__init__()
        self.start = centroids
        self.register_buffer("codes", codes)
        self.depth = 0
        for table in rows_by_code(codes, len(centroids)):
            self.register_buffer(f"rows_{self.depth}", table)
            self.depth += 1

    def forward(self, centroids: Tensor) -> Tensor:
        return lookup(
            centroids, self.codes, [self.get_buffer(f"rows_{index}") for index in range(self.depth)]
        )

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The centroids that training begins with."""
        return self.start


def share(
    model: nn.Module,
    bits: int | Mapping[str, int] | None = None,
    *,
    rate: float | Mapping[str, float] | None = None,
    init: str = "linear",
    groups: int = 1,
    seed: int = 0,
    moving: bool = False,
) -> dict[str, Any]:
    """Share the weights of a model in place: its optimizer sees codebooks from now on. Returns the bits of each weight.

    >>> net = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> share(net, 2)
    {'0.weight': 2, '2.weight': 2}
    >>> [tuple(parameter.shape) for parameter in net.parameters()], len(net[0].weight.unique()) <= 3
    ([(4,), (3,), (2,), (3,)], True)
    >>> [name for name, _ in bake(net).named_parameters()]
    ['0.weight', '0.bias', '2.weight', '2.bias']

    `bits` is a number for all floating parameters with two or more dimensions, or one for each parameter by name; those
    that are not named stay as they are. Make the optimizer afterwards. With `rate` in its place, given likewise, the codes
    take so many bits a weight, as entropy, zeros among them: see `rated`, which has no `init`, `groups` and `seed`.

    >>> share(bake(net), rate=1.5)
    {'0.weight': 1.5, '2.weight': 1.5}

    With `moving` the optimizer sees the weights, each of which counts as the value nearest to it; give `moving.follow` to the
    training loop as `after_step`. Then `bake`, and `share` again to train the values.

    >>> share(bake(net), 2, moving=True), [tuple(parameter.shape) for parameter in net.parameters()][1]
    ({'0.weight': 2, '2.weight': 2}, (4, 8))

    Raises `RecipeError` for bits outside of 1 to 16, a rate that is not above 0, both or neither of them, `GraphError` for a
    name that is no such parameter, a model that is shared already, and what `homes_of` refuses.
    """
    weights = weights_of(model)
    asked = bits if rate is None else rate
    if (bits is None) == (rate is None) or not isinstance(asked, (int, float, Mapping)):
        raise RecipeError(
            f"bits: {bits!r}, rate: {rate!r}; give one of them: bits as a whole number, a rate as a number, or "
            f"one for each weight by name"
        )
    wanted = dict(asked) if isinstance(asked, Mapping) else dict.fromkeys(weights, asked)
    homes = homes_of(model, wanted)
    how: dict[str, Any] = {"init": init, "groups": groups, "seed": seed}
    shared: dict[str, Codebook | Moving] = {}
    for name, number in wanted.items():
        if rate is not None:
            require_rate(number, name)
            shared[name] = (_rated_moving if moving else _rated)(weights[name], number)
        else:
            shared[name] = (_moving if moving else _fixed)(weights[name], number, **how)
    orders = {module: list(module._parameters) for places in homes.values() for module, _ in places}
    for name, book in shared.items():
        _attach(homes[name], book)
    for module, order in orders.items():
        module.parametrizations.order = order
    return wanted


def _fixed(weight: Tensor, bits: Any, *, groups: int, **how: Any) -> Codebook:
    return Codebook(*codebook(weight, bits, groups=max(1, min(groups, len(weight))), **how))


def _moving(weight: Tensor, bits: Any, *, groups: int, **how: Any) -> Moving:
    return Moving(weight, _centroids(weight, bits, groups=max(1, min(groups, len(weight))), **how))


def _rated(weight: Tensor, rate: float) -> Codebook:
    values = weight.detach()
    return Codebook(*codebook(rated(values.reshape(-1), rate).nearest(values), BITS))


def _rated_moving(weight: Tensor, rate: float) -> RatedMoving:
    return RatedMoving(weight, rated(weight.detach().reshape(-1), rate), rate)


def homes_of(model: nn.Module, names: Collection[str]) -> dict[str, list[tuple[nn.Module, str]]]:
    """The modules that hold each weight, and its name there: several of a tied one.

    Raises `GraphError` for what cannot be shared: a name that is no weight of the model, a model whose weights are shared, a
    recurrent layer, whose weights PyTorch's kernels read in a block, and weights that are computed of other parameters, or have no values yet.

    >>> net = nn.Sequential(nn.Linear(2, 2))
    >>> homes_of(net, ["0.weight"])
    {'0.weight': [(Linear(in_features=2, out_features=2, bias=True), 'weight')]}
    """
    weights = weights_of(model)
    if is_shared(model):
        raise GraphError("share: the weights of the model are shared already; bake it first")
    unknown = [str(name) for name in names if name not in weights]
    if unknown or not names:
        raise GraphError(
            f"share: {', '.join(unknown) or 'nothing'} of the model is a floating parameter with two or more dimensions; "
            f"known: {', '.join(list(weights)[:8]) or 'none'}"
        )
    for name in names:
        if weights[name].is_meta:
            raise GraphError(
                f"share: '{name}' is on the device meta and has no values; load the weights first"
            )
    places = {id(weights[name]): name for name in names}
    homes: dict[str, list[tuple[nn.Module, str]]] = {name: [] for name in names}
    for module_name, module in model.named_modules():
        for own, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            if id(parameter) in places:
                _require_sharable(module_name, module)
                homes[places[id(parameter)]].append((module, own))
    return homes


def _require_sharable(name: str, module: nn.Module) -> None:
    leave = "leave it out (by 'ignore' of share_weights, or 'bits' by name)"
    if isinstance(module, nn.RNNBase):
        where = f"'{name}'" if name else "the model"
        raise GraphError(f"share: {where} is a recurrent layer, whose weights are kept in a block; {leave}")
    require_plain(name, module, step="share", leave=leave)


def _attach(homes: list[tuple[nn.Module, str]], book: Codebook | Moving) -> None:
    """Let all places of one weight read the same codebook."""
    first: nn.Parameter | None = None
    for module, name in homes:
        trains = module.get_parameter(name).requires_grad
        parametrize.register_parametrization(module, name, book, unsafe=True)
        listed = module.parametrizations[name]
        if first is None:  # a new one: the old parameter has hooks of a matrix's gradient
            first = nn.Parameter(listed.original.detach().clone(), requires_grad=trains)
        listed.original = first


def is_shared(model: nn.Module) -> bool:
    """Whether a model's weights are looked up in codebooks."""
    return any(isinstance(module, (Codebook, Moving)) for module in model.modules())


@torch.no_grad()
def bake(model: nn.Module) -> nn.Module:
    """Give a shared model its ordinary weights back, in place; they are values of the codebooks to the bit."""
    made: dict[int, nn.Parameter] = {}
    for module in [module for module in model.modules() if parametrize.is_parametrized(module)]:
        listed = module.parametrizations
        if not isinstance(next(iter(listed.values()))[0], (Codebook, Moving)):
            continue
        for name in listed:
            trained = listed[name].original
            if id(trained) not in made:
                weight = getattr(module, name).clone()
                made[id(trained)] = nn.Parameter(weight, requires_grad=trained.requires_grad)
            module._parameters[name] = made[id(trained)]
        del module._modules["parametrizations"]
        # not by remove_parametrizations, which takes the weight from the class that copies of the module have too
        module.__class__ = type(module).__bases__[0]
        for name in listed.order:
            module._parameters[name] = module._parameters.pop(name)
    return model
