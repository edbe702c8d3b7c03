"""Bring a Hugging Face config in step with a pruned model, where it can say the result.

A config has one number for all layers. The numbers that fit are searched among the sizes that surgery made, and
a model built from the new config must have the same tensors and compute the same; else the config stays.
"""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lianzhi.graph import replace_tensor

_SIZES = (
    "hidden_size", "d_model", "dim", "n_embd", "embed_dim", "embedding_size", "intermediate_size", "d_ff", "hidden_dim",
    "n_inner", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "true_hidden_size", "intra_bottleneck_size", "head_dim",
    "d_kv", "hidden_sizes", "neck_hidden_sizes", "groups_width",
)  # fmt: skip
_HEADS = (
    "num_attention_heads", "num_key_value_heads", "num_heads", "n_head", "n_heads", "encoder_attention_heads",
    "decoder_attention_heads",
)  # fmt: skip
MOST = 400  # configs to try


def has_config(model: nn.Module) -> bool:
    """Whether this is a model that a config makes (of the transformers library)."""
    return callable(getattr(model, "save_pretrained", None)) and hasattr(model, "config")


def sync_config(model: nn.Module, source: nn.Module, args: Any, kwargs: Any) -> bool:
    """Change the pruned model's config to one that makes it. False if none does; the config is then as it was."""
    old = source.config
    wanted = _shapes(model)
    choices = _choices(old, _sizes(source, model))
    if math.prod(len(values) for values in choices.values()) > MOST:
        return False
    for values in itertools.product(*choices.values()):
        config = copy.deepcopy(old)
        try:
            for name, value in zip(choices, values, strict=True):
                setattr(config, name, value)
            with torch.device("meta"):
                fits = _shapes(type(model)(config)) == wanted
            if fits and _computes(model, config, args, kwargs):
                for name, value in zip(choices, values, strict=True):
                    setattr(model.config, name, value)
                return True
        except Exception:  # a config that its own model refuses
            continue
    return False


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _sizes(source: nn.Module, model: nn.Module) -> dict[int, set[int]]:
    """What each axis size became."""
    after, found = _shapes(model), dict[int, set[int]]()
    for name, shape in _shapes(source).items():
        for old, new in zip(shape, after.get(name, ()), strict=False):
            found.setdefault(old, set()).add(new)
    return found


def _fewer(count: int, sizes: dict[int, set[int]]) -> set[int]:
    """What a number of heads may have become: an axis of so many heads, divided by the size of one."""
    return {
        new // (old // count)
        for old, found in sizes.items()
        if old % count == 0
        for new in found
        if new % (old // count) == 0 and new <= old
    }


def _choices(config: Any, sizes: dict[int, set[int]]) -> dict[str, list[Any]]:
    """For each number of the config that may have changed, the values to try, the changed ones first."""
    known = config.to_dict()
    choices: dict[str, list[Any]] = {}
    for name in (*_SIZES, *_HEADS):
        old = known.get(name)
        if type(old) is int:
            new = _fewer(old, sizes) if name in _HEADS and old > 0 else set(sizes.get(old, ()))
            choices[name] = [*sorted(size for size in new if size != old), old]
        elif isinstance(old, (list, tuple)) and old and all(type(item) is int for item in old):
            options = [sorted(sizes.get(item, {item})) for item in old]
            if math.prod(map(len, options)) <= MOST:
                choices[name] = [list(values) for values in itertools.product(*options)]
    choices = {name: values for name, values in choices.items() if values != [known[name]]}
    if "head_dim" in known and any(name in choices for name in _HEADS):
        width, count = known.get("hidden_size"), known.get("num_attention_heads")
        if type(width) is int and type(count) is int:
            choices["head_dim"] = [known["head_dim"] or width // count]
    return choices


def _computes(model: nn.Module, config: Any, args: Any, kwargs: Any) -> bool:
    """Whether a model made by the config computes the same with the same weights."""
    with torch.random.fork_rng(devices=[]):
        fresh = type(model)(config)
    fresh.load_state_dict(model.state_dict(), assign=True)  # of its types, and where it is
    theirs = dict(model.named_buffers())
    for name, buffer in list(fresh.named_buffers()):
        if name in theirs:
            replace_tensor(fresh, name, buffer.to(theirs[name]))
    with torch.no_grad():
        outputs = [pytree.tree_leaves(one.eval()(*args, **kwargs)) for one in (model, fresh)]
    pairs = [(a, b) for a, b in zip(*outputs, strict=True) if isinstance(a, Tensor)]
    return all(a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in pairs)
