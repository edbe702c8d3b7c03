"""A model of the zoo, saved as its name, its config and what compression changed: attributes of submodules, lengths of lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lianzhi import models
from lianzhi.errors import ArtifactError, RecipeError
from lianzhi.graph.deserialize import FROZEN, PARAMETER, register_tensors
from lianzhi.graph.serialize import tensor_kinds
from lianzhi.graph.shorten import shortened

_KEYS = {"name", "config", "changes", "tensors"}
_SHORTER = "lengths"  # only of a model whose lists are shorter than the zoo's
_SIMPLE = (bool, int, float)
MAX_INTEGER = 1 << 31


def describe(model: nn.Module) -> dict[str, Any] | None:
    """Name and config of a model that the zoo made, in a form that `build` takes; None for any other."""
    found = models.describe(model)
    return None if found is None else {"name": found["name"], "config": dict(found["config"])}


def image_inputs(model: nn.Module) -> Tensor | None:
    """A batch of one image of the size and type that a model of the zoo takes; None for one that takes no images, or is not the zoo's.

    >>> image_inputs(models.model("lenet5")).shape, image_inputs(nn.Linear(2, 2))
    (torch.Size([1, 1, 28, 28]), None)
    """
    try:
        image = torch.zeros(1, *models.input_shape(model))
    except RecipeError:
        return None
    kinds = (parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    return image.to(next(kinds, image.dtype))


def skeleton(name: str, config: dict[str, Any]) -> nn.Module:
    """The model as the zoo makes it. To be called where tensors need no memory (`dry_run`)."""
    models.check_saved(name, config)
    return models.model(name, **config)


def saved(fresh: nn.Module, model: nn.Module) -> dict[str, Any]:
    """What makes a fresh model into `model`, beside its tensors. Changes the fresh one.

    Raises `ArtifactError` if attributes and lengths alone do not make the one into the other.
    """
    shorter = lengths(fresh, model)
    set_lengths(fresh, shorter)
    return {"changes": changes(fresh, model), **({_SHORTER: shorter} if shorter else {})}


def lengths(fresh: nn.Module, model: nn.Module) -> dict[str, int]:
    """How many modules are left in each list of `model` that is shorter than a fresh one's, the outer lists first.

    >>> lengths(nn.Sequential(nn.ReLU(), nn.ReLU()), nn.Sequential(nn.ReLU()))
    {'': 1}
    """
    own = dict(model.named_modules())
    return {
        path: len(own[path]._modules)
        for path, module in fresh.named_modules()
        if _is_list(module) and path in own and 0 < len(own[path]._modules) < len(module._modules)
    }


def set_lengths(model: nn.Module, wanted: Any) -> None:
    """Let each of these lists keep only so many of its first modules; what is no list, or no shorter, is refused."""
    if not isinstance(wanted, dict):
        raise ArtifactError("the lengths are not a table")
    for path, length in wanted.items():
        found = dict(model.named_modules()).get(path)
        if found is None or not _is_list(found):
            raise ArtifactError(f"a length of {path!r:.80}, which is no list of the model")
        if type(length) is not int or not 0 < length < len(found._modules):
            raise ArtifactError(
                f"the list '{path}' has {len(found._modules)} modules, and cannot keep {length!r:.40}"
            )
        prefix = f"{path}." if path else ""
        shortened(model, [f"{prefix}{name}" for name in list(found._modules)[length:]])


def _is_list(module: nn.Module) -> bool:
    return isinstance(module, (nn.Sequential, nn.ModuleList))


def changes(fresh: nn.Module, model: nn.Module) -> dict[str, dict[str, Any]]:
    """Attributes in which the submodules of `model` differ from those of a fresh one, by submodule.

    >>> changes(nn.Sequential(nn.Linear(4, 3)), nn.Sequential(nn.Linear(4, 2)))
    {'0': {'out_features': 2}}

    Raises `ArtifactError` if attributes alone do not make the one into the other.
    """
    before, after = dict(fresh.named_modules()), dict(model.named_modules())
    if before.keys() != after.keys():
        name = sorted(before.keys() ^ after.keys())[0]
        raise ArtifactError(f"the submodule '{name}' was added or removed")
    found: dict[str, dict[str, Any]] = {}
    for path, module in after.items():
        if type(module) is not type(before[path]):
            raise ArtifactError(f"'{path}' became a {type(module).__name__}")
        if module._forward_hooks or module._forward_pre_hooks:
            raise ArtifactError(f"'{path}' has hooks")
        differing = _differing(path, vars(before[path]), vars(module))
        if differing:
            found[path] = differing
    return found


def _differing(path: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name in old.keys() | new.keys():
        if name == "training" or (name in old and name in new and _same(old[name], new[name])):
            continue
        if name not in old or name not in new or not _allowed(name, old[name], new[name]):
            if _simple(new.get(name, 0)) and _simple(old.get(name, 0)):
                raise ArtifactError(f"'{path}.{name}' changed from {old.get(name)!r} to {new.get(name)!r}")
            continue
        found[name] = list(new[name]) if isinstance(new[name], (list, tuple)) else new[name]
    return dict(sorted(found.items()))


def _same(old: Any, new: Any) -> bool:
    return type(old) is type(new) and (old is new or (_simple(old) and old == new))


def _simple(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(isinstance(item, _SIMPLE) for item in value)
    return value is None or isinstance(value, (*_SIMPLE, str))


def _allowed(name: str, old: Any, new: Any) -> bool:
    """Numbers may become other numbers of the same type; nothing else may change."""
    if name.startswith("_") or name == "training":
        return False
    if isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)):
        return all(type(item) is int and abs(item) < MAX_INTEGER for item in (*old, *new))
    if type(old) is int and type(new) is int:
        return abs(new) < MAX_INTEGER
    return type(old) is type(new) and type(new) in (bool, float)


def apply_changes(model: nn.Module, changed: Any) -> None:
    """Set the attributes that were saved; one that a fresh model has not, or of another type, is refused."""
    modules = dict(model.named_modules())
    if not isinstance(changed, dict):
        raise ArtifactError("the changes are not a table")
    for path, attributes in changed.items():
        if path not in modules or not isinstance(attributes, dict):
            raise ArtifactError(f"changes for {path!r:.80}, which the model has not")
        for name, value in attributes.items():
            own = vars(modules[path])
            if name not in own or not _allowed(name, own[name], value):
                raise ArtifactError(f"the attribute {name!r:.80} of '{path}' cannot become {value!r:.80}")
            old = own[name]
            setattr(modules[path], name, type(old)(value) if isinstance(old, (list, tuple)) else value)


def build(data: Any, tensors: dict[str, Tensor]) -> nn.Module:
    """Make the model that was saved, around `tensors`."""
    if not isinstance(data, dict) or data.keys() - {_SHORTER} != _KEYS or not isinstance(data["name"], str):
        raise ArtifactError(f"the model of the zoo needs {', '.join(sorted(_KEYS))}")
    model = skeleton(data["name"], data["config"])
    set_lengths(model, data.get(_SHORTER, {}))
    apply_changes(model, data["changes"])
    kinds, own = data["tensors"], tensor_kinds(model)
    if not isinstance(kinds, dict) or kinds.keys() != own.keys() or kinds.keys() != tensors.keys():
        raise ArtifactError(f"the weights are not those of '{data['name']}'")
    for name, kind in kinds.items():
        if kind != own[name] and not {kind, own[name]} <= {PARAMETER, FROZEN}:
            raise ArtifactError(f"'{name}' is {kind!r:.40}, and {own[name]} in '{data['name']}'")
        if kind == PARAMETER and not tensors[name].is_floating_point():
            raise ArtifactError(f"'{name}' of type {tensors[name].dtype} has no gradient")
    register_tensors(model, kinds, tensors)
    return model
