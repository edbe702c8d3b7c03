"""Names of a BERT's tensors, from four kinds of checkpoint to those of transformers (Devlin et al. 2018, 1810.04805).

- `google`: TensorFlow's of google-research/bert, ``bert/encoder/layer_0/attention/self/query/kernel``;
- `oneflow`: the same with ``-`` and ``weight``, as OneFlow's lazy graphs have them, ``bert-encoder-layer_0-…-query-weight``;
- `pytorch`: transformers' own; those of pytorch-pretrained-bert say ``LayerNorm.gamma`` and ``beta``;
- `libai`: LiBai's on OneFlow, ``bert.encoders.0.self_attention.query_key_value.weight``.

TensorFlow multiplies by a kernel ``(inputs, outputs)``, PyTorch by a weight ``(outputs, inputs)``: kernels are transposed. The
tables of embeddings, and the two heads whose weights TensorFlow's code transposes itself (``output_weights``), are not.

LiBai computes query, key and value by one weight ``(3 · hidden, hidden)`` whose rows are, head by head, those of the head's query,
of its key, and of its value: row ``h · 3 · d + j · d + i`` is row ``h · d + i`` of query (j = 0), key (1) or value (2), with d the size
of a head. What normalises the input of a layer is in transformers the end of the layer before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from lianzhi.errors import ArtifactError

Pairs = Iterator[tuple[str, Tensor]]

_POSITIONS = re.compile(r"(?:bert\.)?embeddings\.(?:position_ids|token_type_ids)$")
_LAYER_OF_LIBAI = re.compile(r"encoders\.(\d+)\.(.+)$")
_FUSED = "self_attention.query_key_value."
_IN_LIBAI_LAYERS = {
    "self_attention.dense.": "attention.output.dense.",
    "post_attention_layernorm.": "attention.output.LayerNorm.",
    "mlp.dense_h_to_4h.": "intermediate.dense.",
    "mlp.dense_4h_to_h.": "output.dense.",
}
_IN_LIBAI = {
    "embeddings.vocab_embeddings.": "bert.embeddings.word_embeddings.",
    "embeddings.position_embeddings.": "bert.embeddings.position_embeddings.",
    "embeddings.tokentype_embeddings.": "bert.embeddings.token_type_embeddings.",
    "pooler.dense.": "bert.pooler.dense.",
    "cls_head.predictions.dense.": "cls.predictions.transform.dense.",
    "cls_head.predictions.layernorm.": "cls.predictions.transform.LayerNorm.",
    "cls_head.lm_logits.bias": "cls.predictions.bias",
    "cls_head.seq_relationship.": "cls.seq_relationship.",
    "classifier.": "classifier.",
}


@dataclass(frozen=True)
class Renamed:
    """Tensors by transformers' names; `sources` says which tensor of the checkpoint each came from, where the name differs."""

    family: str
    tensors: dict[str, Tensor]
    sources: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def family_of(names: Iterable[str]) -> str | None:
    """Whose names they are: `google`, `oneflow`, `libai` or `pytorch`; None if not those of a BERT.

    >>> family_of(["bert/embeddings/word_embeddings", "global_step"])
    'google'
    >>> family_of(["fc.weight"]) is None
    True
    """
    names = set(names)
    marks = {
        "google": "bert/embeddings/word_embeddings",
        "oneflow": "bert-embeddings-word_embeddings",
        "libai": "embeddings.vocab_embeddings.weight",
        "pytorch": "embeddings.word_embeddings.weight",
    }
    for family, mark in marks.items():
        if any(f"{prefix}{mark}" in names for prefix in ("", "bert.", "model.")):
            return family
    return None


def to_huggingface(tensors: Mapping[str, Tensor], *, heads: int | None = None) -> Renamed | None:
    """The tensors by transformers' names; None if they are not a BERT's.

    >>> import torch
    >>> found = to_huggingface({
    ...     "bert/embeddings/word_embeddings": torch.zeros(9, 4),
    ...     "bert/pooler/dense/kernel": torch.arange(16).reshape(4, 4),
    ... })
    >>> list(found.tensors), found.tensors["bert.pooler.dense.weight"][0].tolist()
    (['bert.embeddings.word_embeddings.weight', 'bert.pooler.dense.weight'], [0, 4, 8, 12])

    `heads`, how many attention heads there are, is needed where query, key and value are one weight. A name that no BERT has
    stays as it is.

    Raises:
        ArtifactError: `heads` is needed and missing, or does not fit; two tensors get one name.
    """
    family = family_of(tensors)
    if family is None:
        return None
    layers = len({found[1] for name in tensors if (found := re.search(r"encoders\.(\d+)\.", name))})
    renamers: dict[str, Callable[[str, Tensor], Pairs]] = {
        "google": _of_google,
        "oneflow": _of_oneflow,
        "pytorch": _of_pytorch,
        "libai": lambda name, tensor: _of_libai(name, tensor, heads, layers),
    }
    named: dict[str, Tensor] = {}
    sources: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for name, tensor in tensors.items():
        if _POSITIONS.match(name):
            left_out[name] = "numbers of positions, which the model makes itself"
            continue
        for new, value in renamers[family](name, tensor):
            if new in named:
                raise ArtifactError(
                    f"'{sources.get(new, new)}' and '{name}' would both be '{new}'; take one of them out of the checkpoint"
                )
            named[new] = value.contiguous()
            if new != name:
                sources[new] = name
    return Renamed(family, named, sources, left_out, _notes(family))


def _notes(family: str) -> tuple[str, ...]:
    if family != "libai":
        return ()
    return (
        "LiBai's BERT computes as transformers' does only with apply_residual_post_layernorm=True, which the weights do not "
        "tell; with False, its default, compare the outputs first",
    )


def _of_google(name: str, tensor: Tensor) -> Pairs:
    parts = name.split("/")
    if parts[0] not in ("bert", "cls") and parts[-1] not in ("output_weights", "output_bias"):
        yield name, tensor
        return
    path, last = [re.sub(r"^layer_(\d+)$", r"layer.\1", part) for part in parts[:-1]], parts[-1]
    if last in ("output_weights", "output_bias"):
        if path == ["cls", "squad"]:
            path = ["qa_outputs"]
        elif path[:1] != ["cls"]:
            path = ["classifier"]
        last = "weight" if last == "output_weights" else "bias"
    elif last.endswith("_embeddings"):
        path, last = [*path, last], "weight"
    elif last == "kernel":
        last, tensor = "weight", tensor.t() if tensor.ndim == 2 else tensor
    else:
        last = {"gamma": "weight", "beta": "bias"}.get(last, last)
    yield ".".join([*path, last]), tensor


def _of_oneflow(name: str, tensor: Tensor) -> Pairs:
    """Kernels are called weights, and are as TensorFlow has them."""
    path = name.replace("-", "/")
    if path.endswith("/weight"):
        path = path.removesuffix("weight") + "kernel"
    new, value = next(_of_google(path, tensor))
    yield (name, tensor) if new == path else (new, value)


def _of_pytorch(name: str, tensor: Tensor) -> Pairs:
    new = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
    yield re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", new), tensor


def _of_libai(name: str, tensor: Tensor, heads: int | None, layers: int) -> Pairs:
    plain = re.sub(r"^(?:bert|model)\.", "", name)
    for theirs, ours in _IN_LIBAI.items():
        if plain.startswith(theirs):
            yield ours + plain.removeprefix(theirs), tensor
            return
    if plain.startswith("final_layernorm."):
        yield f"bert.encoder.layer.{layers - 1}.output.LayerNorm.{plain.rpartition('.')[2]}", tensor
        return
    found = _LAYER_OF_LIBAI.match(plain)
    if found is None:
        yield name, tensor
        return
    number, inside = int(found[1]), found[2]
    layer = f"bert.encoder.layer.{number}."
    if inside.startswith("input_layernorm."):
        end = f"bert.encoder.layer.{number - 1}.output" if number else "bert.embeddings"
        yield f"{end}.LayerNorm.{inside.rpartition('.')[2]}", tensor
        return
    if inside.startswith(_FUSED):
        for part, value in zip(("query", "key", "value"), _apart(name, tensor, heads), strict=True):
            yield f"{layer}attention.self.{part}.{inside.removeprefix(_FUSED)}", value
        return
    for theirs, ours in _IN_LIBAI_LAYERS.items():
        if inside.startswith(theirs):
            yield layer + ours + inside.removeprefix(theirs), tensor
            return
    yield name, tensor


def _apart(name: str, tensor: Tensor, heads: int | None) -> tuple[Tensor, ...]:
    """Query, key and value out of one weight or bias."""
    if heads is None:
        raise ArtifactError(
            f"'{name}' is query, key and value in one, head by head; say how many attention heads there are (--heads)"
        )
    rows = len(tensor) if tensor.ndim else 0
    if heads < 1 or not rows or rows % (3 * heads):
        raise ArtifactError(
            f"'{name}' is {list(tensor.shape)}, which are not query, key and value of {heads} heads; give the number that "
            f"the model was made with"
        )
    by_head = tensor.reshape(heads, 3, rows // (3 * heads), *tensor.shape[1:])
    return tuple(by_head[:, part].reshape(rows // 3, *tensor.shape[1:]) for part in range(3))
