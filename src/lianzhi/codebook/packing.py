"""`pack` and `unpack`: tensors into a `.lzc` file and back, bit for bit."""

from __future__ import annotations

import contextlib
import copy
import os
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from lianzhi import artifact, files
from lianzhi.codebook import coding, container
from lianzhi.codebook.bits import bits_by_name
from lianzhi.codebook.masks import magnitude_mask
from lianzhi.codebook.report import Layer, PackReport
from lianzhi.codebook.sharing import bake, is_shared, share_values
from lianzhi.codebook.tensors import NAMES, require_storable, to_bits
from lianzhi.errors import ArtifactError, DataError, RecipeError

PathLike = str | os.PathLike[str]
Source: TypeAlias = nn.Module | Mapping[str, Tensor] | str | os.PathLike[str]
Bits = int | Mapping[str, int]
Progress = Callable[[str, int, int], None]
ALONE = "it holds the tensors alone; for one that lianzhi.load gives back as a module, give example_inputs"


def pack(
    model: Source,
    path: PathLike,
    *,
    bits: Bits | None = None,
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
    small by themselves. With `bits`, floating tensors of two or more dimensions, of a module its parameters alone, first
    have their weights shared: at most 2^bits - 1 values and zero; a dict gives the bits by pattern of names, as
    ``{"conv*": 8, "*": 5}``, of a tied tensor by any of its names. `sparsity` first sets that share of each such tensor's
    smallest weights to zero.
    ``other="float16"`` rounds the remaining floating tensors to float16; they are read as their own type again. The
    caller's tensors do not change.

    A module is packed with its architecture where it is an image model of the zoo, or comes with `example_inputs`, as for
    `lianzhi.save`; that file, and one of an artifact folder, can be loaded with `lianzhi.load`. Of another module the tensors
    alone are packed, as the report's `note` says. `progress` shows a bar, or is called with a tensor's name, the weights done, and those of all.

    Raises `ArtifactError` for tensors that cannot be stored and files that cannot be written, `RecipeError` for options
    that make no sense, `DataError` for weights that are NaN where they are to be pruned or shared; the file appears whole or not at all.
    """
    _check(bits, sparsity, other)
    with _opened(model, example_inputs) as (state, architecture), _shown(progress) as report:
        for name, tensor in state.items():
            require_storable(tensor, name)
        owners = _owners(state)
        weights = _weights(state, owners, model)
        given = {} if bits is None else bits_by_name(weights, bits, also=weights)
        change = _Change(weights, given, sparsity, other)
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
            layers.append(Layer.of(name, shape, tensor.element_size(), tensor.numel(), section))
            done += tensor.numel()
            entropy += section.entropy + section.index_entropy
            coded += section.coded + section.index_coded
        size = container.write(path, tensors, architecture)
        report("", done, total)
    before = float_bytes(state)
    overhead = coded / entropy - 1 if entropy else 0.0
    note = ALONE if isinstance(model, nn.Module) and architecture is None else ""
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


def fits_float16(tensor: Tensor) -> bool:
    """Whether all values that are finite stay so as float16.

    >>> fits_float16(torch.tensor([1.0, -torch.inf])), fits_float16(torch.tensor([1e6]))
    (True, False)
    """
    return torch.equal(tensor.detach().half().isfinite(), tensor.isfinite())


def float_bytes(state: Mapping[str, Tensor]) -> int:
    """The bytes of a state dict whose floating tensors are float32, a tensor of two names once: what ratios begin with.

    >>> float_bytes({"weight": torch.zeros(10, 10, dtype=torch.float16), "steps": torch.tensor(3)})
    408
    """
    owners = _owners(state)
    own = [tensor for name, tensor in state.items() if owners[name] == name]
    return sum(
        tensor.numel() * (4 if tensor.is_floating_point() else tensor.element_size()) for tensor in own
    )


class _Change:
    """What is done to a tensor before it is stored."""

    def __init__(
        self, weights: Collection[str], bits: Mapping[str, int], sparsity: float | None, other: str
    ) -> None:
        self.weights, self.bits, self.sparsity, self.other = set(weights), bits, sparsity, other

    def __call__(self, name: str, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        if name in self.weights and (name in self.bits or self.sparsity is not None):
            try:
                return self._shared(tensor, self.bits.get(name))
            except DataError as error:
                raise DataError(f"'{name}': {error}") from None
        # what has 16 bits or fewer would not become smaller
        return self._rounded(name, tensor) if self.other == "float16" and tensor.itemsize > 2 else tensor

    def _shared(self, tensor: Tensor, bits: int | None) -> Tensor:
        value = tensor.detach()
        if value.itemsize == 1:  # PyTorch computes nothing with 8 bits
            value = value.float()
        if self.sparsity is not None:
            value = torch.where(magnitude_mask(value, self.sparsity), value, torch.zeros_like(value))
        if bits is not None:
            value = share_values(value, bits)
        return value.to(tensor.dtype)

    def _rounded(self, name: str, tensor: Tensor) -> Tensor:
        if not fits_float16(tensor):
            raise ArtifactError(f"'{name}' has values that float16 has not; give other='float32'")
        return tensor.detach().half().to(tensor.dtype)


def _check(bits: Bits | None, sparsity: float | None, other: str) -> None:
    given = list(bits.values()) if isinstance(bits, Mapping) else [] if bits is None else [bits]
    for value in given:
        if type(value) is not int or not 1 <= value <= 16:
            raise RecipeError(f"bits={value!r}: give a whole number from 1 to 16")
    if isinstance(bits, Mapping) and not all(isinstance(pattern, str) for pattern in bits):
        raise RecipeError(f"bits={dict(bits)!r}: the keys are patterns of names, as text")
    known = isinstance(sparsity, (int, float)) and not isinstance(sparsity, bool)
    if sparsity is not None and not (known and 0 <= sparsity < 1):
        raise RecipeError(
            f"sparsity={sparsity!r}: give the share of weights that become zero, at least 0, below 1"
        )
    if other not in ("float32", "float16"):
        raise RecipeError(f"other={other!r}: give 'float32' or 'float16'")


def _is_weight(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dim() >= 2


@contextlib.contextmanager
def _opened(model: Source, example_inputs: Any) -> Iterator[tuple[Mapping[str, Tensor], Any]]:
    """The tensors by name, and the architecture if there is one."""
    if isinstance(model, nn.Module):
        model = bake(copy.deepcopy(model)) if is_shared(model) else model
        example_inputs = artifact.image_inputs(model) if example_inputs is None else example_inputs
        if example_inputs is None:
            with _opened(model.state_dict(), None) as found:
                yield found
            return
        with tempfile.TemporaryDirectory() as place:
            folder = artifact.save(model, Path(place) / "model", example_inputs=example_inputs)
            yield artifact.stored(folder)
    elif isinstance(model, Mapping):
        for name, tensor in model.items():
            if not isinstance(name, str) or not isinstance(tensor, Tensor):
                raise ArtifactError(f"{name!r:.80} is a {type(tensor).__name__}; give tensors by name")
        yield model, None
    elif not isinstance(model, (str, os.PathLike)):
        raise ArtifactError(
            f"a {type(model).__name__} cannot be packed; give a module, a state dict, an artifact folder or a file"
        )
    elif Path(model).is_dir():
        yield artifact.stored(Path(model))
    else:
        yield files.read_tensors(model), None


def _owners(state: Mapping[str, Tensor]) -> dict[str, str]:
    """For each name the first name of the same tensor: the same memory, seen the same way."""
    first: dict[Any, str] = {}
    owners = {}
    for name, tensor in state.items():
        seen: Any = id(tensor)
        if tensor.numel():
            place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride())
            seen = (*place, tensor.dtype, tensor.is_conj(), tensor.is_neg())
        owners[name] = first.setdefault(seen, name)
    return owners


def _weights(state: Mapping[str, Tensor], owners: Mapping[str, str], model: Source) -> dict[str, list[str]]:
    """All names of each tensor that is pruned and shared, by its first one; a module's buffers are not."""
    buffers = (
        {name for name, _ in model.named_buffers(remove_duplicate=False)}
        if isinstance(model, nn.Module)
        else set()
    )
    names: dict[str, list[str]] = {}
    for name, tensor in state.items():
        if _is_weight(tensor) and name not in buffers:
            names.setdefault(owners[name], []).append(name)
    return names


@contextlib.contextmanager
def _shown(progress: bool | Progress) -> Iterator[Progress]:
    if not progress:
        yield lambda name, done, total: None
        return
    if progress is not True:
        yield progress
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("pack")
        yield lambda name, done, total: bar.update(task, completed=done, total=total, description=name)
