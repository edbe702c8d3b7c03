"""Where a transformer keeps its blocks, its embeddings, and the queries, keys and values of each block.

Nothing is asked of a config: after heads, channels or layers were pruned, the modules know what is left.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn

from lianzhi.errors import GraphError, did_you_mean
from lianzhi.graph import like_blocks

PROJECTIONS = (
    ("query", "key", "value"),  # BERT, RoBERTa, ELECTRA, MobileBERT
    ("q_proj", "k_proj", "v_proj"),  # ViT, DeiT, CLIP, BART
    ("q_lin", "k_lin", "v_lin"),  # DistilBERT
    ("q", "k", "v"),
)
SIZES = ("attention_head_size", "head_dim", "head_size")
HEADS = ("num_attention_heads", "num_heads", "n_heads")
EMBEDDINGS = ("embeddings_project", "embeddings")  # ELECTRA: what goes into the first block is projected


class Attention(NamedTuple):
    """The projections of one block's self-attention by name, its heads, and the factor of its scores."""

    query: str
    key: str
    value: str
    heads: int
    scale: float


def layers_of(model: nn.Module) -> list[str]:
    """Names of the repeated blocks of an encoder, in order: the outermost list of blocks of one class.

    >>> encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2), 3, enable_nested_tensor=False)
    >>> layers_of(encoder)
    ['layers.0', 'layers.1', 'layers.2']

    Raises:
        GraphError: there is no such list, or there are several, as in an encoder with a decoder.
    """
    found: dict[str, list[str]] = {}
    for path, names in like_blocks(model, least=1).items():
        blocks = list(model.get_submodule(path).children())
        alike = len(blocks) == len(names) and len({type(block) for block in blocks}) == 1
        inner = any(name == path or path.startswith(f"{name}.") for group in found.values() for name in group)
        if alike and not inner and next(blocks[0].children(), None) is not None:
            found[path] = names
    if not found:
        raise GraphError(
            f"{type(model).__name__} has no list of blocks of one class; name the layers yourself"
        )
    if len(found) > 1:
        raise GraphError(
            f"{type(model).__name__} has {len(found)} lists of blocks ({', '.join(map(repr, found))}); "
            f"name the layers yourself, or give the submodule that holds one of them"
        )
    return next(iter(found.values()))


def embeddings_of(model: nn.Module) -> str | None:
    """Name of the module whose output goes into the first block, if it is called as such modules are; else None.

    >>> embeddings_of(nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2), 3, enable_nested_tensor=False))
    """
    path = layers_of(model)[0].rpartition(".")[0]
    while path:
        path = path.rpartition(".")[0]
        for name, child in model.get_submodule(path).named_children():
            if name in EMBEDDINGS and next(child.parameters(), None) is not None:
                projected = [other for other in EMBEDDINGS if hasattr(model.get_submodule(path), other)]
                return f"{path}.{projected[0]}" if path else projected[0]
    return None


def attention_of(model: nn.Module, layer: str) -> Attention:
    """The self-attention of a block: three `Linear` modules side by side, with heads from the module's attributes.

    The number of heads is the width of the queries by the size of a head, since pruning heads leaves the size.
    The factor is the module's `scaling`, or 1/√size.

    Raises:
        GraphError: the block is not there, has no attention of this form (one `Linear` for all three, say), or
            changes queries and keys after their projection: rotary or relative positions, norms, shared heads.
    """
    known = dict(model.named_modules())
    if layer not in known:
        raise GraphError(f"{type(model).__name__} has no module '{layer}'{did_you_mean(layer, known)}")
    for path, module in known[layer].named_modules(prefix=layer):
        for names in PROJECTIONS:
            parts = [module._modules.get(name) for name in names]
            if all(isinstance(part, nn.Linear) for part in parts):
                return _attention(module, path, names)
    raise GraphError(
        f"'{layer}' has no attention with queries, keys and values from a Linear module each "
        f"(looked for {', '.join('/'.join(names) for names in PROJECTIONS)}); "
        f"use a method that needs hidden states only"
    )


def _attention(module: nn.Module, path: str, names: tuple[str, str, str]) -> Attention:
    query, key, value = (module.get_submodule(name).out_features for name in names)
    size, heads = _whole(module, SIZES), _whole(module, HEADS)
    if size is None and heads is None:
        raise GraphError(f"'{path}' does not say its heads (one of {', '.join(HEADS + SIZES)} as an integer)")
    size = query // (heads or 1) if size is None else size
    changed = _changed(module)
    if changed is None and (query != key or query != value):
        changed = f"widths of {query}, {key} and {value}"
    if changed is None and (size < 1 or query % size):
        changed = f"heads of {size} in a width of {query}"
    if changed is not None:
        raise GraphError(
            f"'{path}' has {changed}: its scores are no plain product of these projections; "
            f"use a method that needs hidden states only"
        )
    scale = getattr(module, "scaling", None)
    scale = float(scale) if isinstance(scale, (int, float)) else size**-0.5
    first, second, third = (f"{path}.{name}" for name in names)
    return Attention(first, second, third, query // size, scale)


def _whole(module: nn.Module, names: tuple[str, ...]) -> int | None:
    """The first of these attributes that is an integer."""
    values = (getattr(module, name, None) for name in names)
    return next((value for value in values if type(value) is int), None)


def _changed(module: nn.Module) -> str | None:
    """What is done to queries, keys or scores beside the product, as far as the module and its config say it."""
    config: Any = getattr(module, "config", None)
    if getattr(config, "rope_parameters", None) or getattr(config, "rope_theta", None):
        return "rotary positions"
    if getattr(config, "position_embedding_type", None) not in (None, "absolute"):
        return f"{config.position_embedding_type} positions"
    if getattr(config, "relative_attention", False):
        return "relative positions"
    for name, child in module.named_children():
        if "norm" in name.lower() and name.lower().startswith(("q", "k")):
            return f"a norm '{name}' of its queries or keys"
        if "bias" in name or "distance" in name or isinstance(child, nn.Embedding):
            return f"positions of its own ('{name}')"
    return None
