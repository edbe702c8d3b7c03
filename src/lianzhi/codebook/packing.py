"""`pack` and `unpack`: tensors into a `.lzc` file and back, bit for bit."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lianzhi.codebook import coding, container
from lianzhi.codebook.bits import bits_by_name
from lianzhi.codebook.halves import fades_in_float16, fits_float16, kept
from lianzhi.codebook.masks import magnitude_mask
from lianzhi.codebook.plain import require_plain_names
from lianzhi.codebook.rated import rated, require_rate
from lianzhi.codebook.report import Layer, PackReport
from lianzhi.codebook.sharing import share_values
from lianzhi.codebook.sources import Source, note_of, opened, owners_of, weight_names
from lianzhi.codebook.tensors import NAMES, require_storable, to_bits
from lianzhi.errors import ArtifactError, DataError, RecipeError

PathLike = str | os.PathLike[str]
Bits = int | Mapping[str, int]
Rate = float | Mapping[str, float]
Progress = Callable[[str, int, int], None]
ALONE = "it holds the tensors alone; for one that lianzhi.load gives back as a module, give example_inputs"


def pack(
    model: Source,
    path: PathLike,
    *,
    bits: Bits | None = None,
    rate: Rate | None = None,
    sparsity: float | None = None,
    other: Literal["float32", "float16"] = "float32",
    example_inputs: Any = None,
    progress: bool | Progress = False,
) -> PackReport:
    """Pack a module, a state dict, an artifact folder or a `.safetensors` file into a `.lzc` file.

    >>> import tempfile
    >>> weight = torch.zeros(50, 40)
    >>> weight[::5, ::4] = 0.5
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = pack({"weight": weight}, folder + "/a.lzc")
    ...     torch.equal(unpack(folder + "/a.lzc")["weight"], weight), report.layers[0].coding
    (True, 'gaps')

    With ``bits=None`` every tensor is stored bit for bit, of whatever type and shape; few distinct values make it
    small by themselves. With `bits`, floating parameters of two or more dimensions first have their weights shared: at
    most 2^bits - 1 values and zero; a dict gives the bits by pattern of names, as ``{"conv*": 8, "*": 5}``, of a tied
    tensor by any of its names. `rate` in its place, given likewise, is what their codes take a weight: as many values as are
    worth it, and the smallest weights become zero (see `rated`). `sparsity` first sets that share of each one's smallest weights to zero. Buffers and
    constants of a module or an artifact folder stay as they are; a state dict or a `.safetensors` file does not tell them
    apart, so all such tensors are taken, and the report's `note` says so, with names.
    ``other="float16"`` rounds the remaining floating tensors to float16; they are read as their own type again. Values below
    3e-8 become zero, but a tensor whose values are all below 6.1e-5 stays as it is, as the report's `note` says. The caller's
    tensors do not change.

    A module is packed with its architecture where it is an image model of the zoo, or comes with `example_inputs`, as for
    `lianzhi.save`; that file, and one of an artifact folder, can be loaded with `lianzhi.load`. Of another module the tensors
    alone are packed, as the report's `note` says. `progress` shows a bar, or is called with a tensor's name, the weights done, and those of all.

    Raises `ArtifactError` for tensors that cannot be stored and files that cannot be written, `RecipeError` for options
    that make no sense, `GraphError` for weights of weight_norm and its like where they are to be pruned or shared, `DataError` for weights that are NaN where they are to be pruned or shared; the file appears whole or not at all.
    """
    _check(bits, rate, sparsity, other)
    with opened(model, example_inputs) as source, _shown(progress) as report:
        state = source.tensors
        for name, tensor in state.items():
            require_storable(tensor, name)
        owners = owners_of(state)
        change = _Change(weight_names(source, owners), bits, rate, sparsity, other)
        require_plain_names(
            change.changed, state, step="pack", leave="leave it out by patterns of 'bits' or 'rate'"
        )
        total = sum(tensor.numel() for name, tensor in state.items() if owners[name] == name)
        done, entropy, coded = 0, 0.0, 0
        tensors: list[tuple[dict[str, Any], bytes]] = []
        layers = []
        for name, tensor in state.items():
            if owners[name] != name:
                tensors.append(({"name": name, "same": owners[name]}, b""))
                continue
            report(name, done, total)
            found = to_bits(change(name, tensor), name)
            section = coding.encode(found, floats=tensor.dtype == torch.float32)
            shape = tuple(tensor.shape)
            described = {"name": name, "dtype": NAMES[tensor.dtype], "shape": list(shape)}
            tensors.append(({**described, "coding": section.coding}, section.data))
            layers.append(Layer.of(name, shape, tensor.element_size(), float_bytes({name: tensor}), section))
            done += tensor.numel()
            entropy += section.entropy + section.index_entropy
            coded += section.coded + section.index_coded
        size = container.write(path, tensors, source.architecture)
        report("", done, total)
    before = float_bytes(state)
    overhead = coded / entropy - 1 if entropy else 0.0
    notes = [ALONE] if isinstance(model, nn.Module) and source.architecture is None else []
    if (bits, rate, sparsity) != (None, None, None):
        notes.append(note_of(source, change.changed))
    notes.append(kept(change.kept))
    note = "; ".join(filter(None, notes))
    return PackReport(os.fspath(path), size, before, tuple(layers), overhead, note)


def unpack(path: PathLike) -> dict[str, Tensor]:
    """All tensors of a `.lzc` file, bit for bit as they were packed; one under two names is one tensor.

    Raises `ArtifactError`, which names the section, if the file is damaged.
    """
    return dict(read(path))


def read(path: PathLike) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a `.lzc` file, one at a time, in the order in which they were packed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pack({"a": torch.ones(3), "b": torch.arange(2)}, folder + "/a.lzc")
    ...     for name, tensor in read(folder + "/a.lzc"):
    ...         print(name, tensor.tolist())
    a [1.0, 1.0, 1.0]
    b [0, 1]
    """
    with container.Reader(path) as reader:
        yield from reader.tensors()


def float_bytes(state: Mapping[str, Tensor]) -> int:
    """The bytes of a state dict whose floating tensors are float32, a tensor of two names once: what ratios begin with.

    >>> float_bytes({"weight": torch.zeros(10, 10, dtype=torch.float16), "steps": torch.tensor(3)})
    408
    """
    owners = owners_of(state)
    own = [tensor for name, tensor in state.items() if owners[name] == name]
    return sum(
        tensor.numel() * (4 if tensor.is_floating_point() else tensor.element_size()) for tensor in own
    )


class _Change:
    """What is done to a tensor before it is stored."""

    def __init__(
        self,
        weights: Mapping[str, Sequence[str]],
        bits: Bits | None,
        rate: Rate | None,
        sparsity: float | None,
        other: str,
    ) -> None:
        self.bits = {} if bits is None else bits_by_name(weights, bits, also=weights)
        self.rate = {} if rate is None else bits_by_name(weights, rate, also=weights, option="rate")
        self.changed: Mapping[str, Any] = weights if sparsity is not None else {**self.bits, **self.rate}
        self.sparsity, self.other = sparsity, other
        self.kept: list[str] = []

    def __call__(self, name: str, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        if name in self.changed:
            try:
                tensor = self._shared(tensor, self.bits.get(name), self.rate.get(name))
            except DataError as error:
                raise DataError(f"'{name}': {error}") from None
        if name in self.bits or name in self.rate:
            return tensor
        # what has 16 bits or fewer would not become smaller
        return self._rounded(name, tensor) if self.other == "float16" and tensor.itemsize > 2 else tensor

    def _shared(self, tensor: Tensor, bits: int | None, rate: float | None) -> Tensor:
        value = tensor.detach()
        if value.itemsize == 1:  # PyTorch computes nothing with 8 bits
            value = value.float()
        if self.sparsity is not None:
            value = torch.where(magnitude_mask(value, self.sparsity), value, torch.zeros_like(value))
        if bits is not None:
            value = share_values(value, bits)
        if rate is not None:
            value = rated(value.reshape(-1), rate).nearest(value)
        return value.to(tensor.dtype)

    def _rounded(self, name: str, tensor: Tensor) -> Tensor:
        if not fits_float16(tensor):
            raise ArtifactError(f"'{name}' has values that float16 has not; give other='float32'")
        if fades_in_float16(tensor):
            self.kept.append(name)
            return tensor
        return tensor.detach().half().to(tensor.dtype)


def _check(bits: Bits | None, rate: Rate | None, sparsity: float | None, other: str) -> None:
    if bits is not None and rate is not None:
        raise RecipeError(
            f"bits={bits!r} and rate={rate!r}: both say how weights are shared; give one of them"
        )
    for value in _numbers(bits, "bits"):
        if type(value) is not int or not 1 <= value <= 16:
            raise RecipeError(f"bits={value!r}: give a whole number from 1 to 16")
    for value in _numbers(rate, "rate"):
        require_rate(value)
    known = isinstance(sparsity, (int, float)) and not isinstance(sparsity, bool)
    if sparsity is not None and not (known and 0 <= sparsity < 1):
        raise RecipeError(
            f"sparsity={sparsity!r}: give the share of weights that become zero, at least 0, below 1"
        )
    if other not in ("float32", "float16"):
        raise RecipeError(f"other={other!r}: give 'float32' or 'float16'")


def _numbers(asked: Rate | None, option: str) -> list[Any]:
    """The numbers of all patterns, or the one of all weights."""
    if not isinstance(asked, Mapping):
        return [] if asked is None else [asked]
    if not all(isinstance(pattern, str) for pattern in asked):
        raise RecipeError(f"{option}={dict(asked)!r}: the keys are patterns of names, as text")
    return list(asked.values())


@contextlib.contextmanager
def _shown(progress: bool | Progress) -> Iterator[Progress]:
    if not progress:
        yield lambda name, done, total: None
        return
    if progress is not True:
        yield progress
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("pack")
        yield lambda name, done, total: bar.update(
            task, completed=done, total=total, description=escape(name)
        )
