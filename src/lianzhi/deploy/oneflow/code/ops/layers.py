"""Layers with weights: convolutions, linear layers, embeddings, normalisation; and dropout."""

from __future__ import annotations

from typing import Any

from lianzhi.deploy.oneflow.code.call import Call
from lianzhi.deploy.oneflow.code.table import add, writes

add({"linear.default": "F.linear({input}, {weight}, {bias})"})


@writes(
    "conv1d.default", "conv2d.default", "conv3d.default", "conv1d.padding", "conv2d.padding", "conv3d.padding"
)
def convolution(call: Call) -> str:
    """A convolution; padding by words is written out in numbers."""
    count = len(call.shape("input")) - 2
    word = call.value("padding") if isinstance(call.value("padding"), str) else None
    padding = call.tuple("padding", count) if word is None else _by_word(call, word, count)
    rest = call.unless("stride", 1, count)
    rest += "" if padding == call.repeated(0, count) else f", padding={padding}"
    rest += call.unless("dilation", 1, count) + call.unless("groups", 1)
    return f"F.conv{count}d({call['input']}, {call['weight']}, {call['bias']}{rest})"


def _by_word(call: Call, word: str, count: int) -> str:
    if word == "valid":
        return str((0,) * count)
    dilation: Any = call.value("dilation")
    steps = list(dilation) * count if len(dilation) == 1 else list(dilation)
    around = [step * (size - 1) for step, size in zip(steps, call.shape("weight")[2:], strict=True)]
    if any(total % 2 for total in around):
        raise call.refuse(
            "pads one side more than the other (padding='same' of an even kernel); pad before it"
        )
    return str(tuple(total // 2 for total in around))


@writes("conv_transpose1d.default", "conv_transpose2d.input", "conv_transpose3d.input")
def transposed(call: Call) -> str:
    """A transposed convolution."""
    count = len(call.shape("input")) - 2
    rest = "".join(
        call.unless(name, usual, count)
        for name, usual in (("stride", 1), ("padding", 0), ("output_padding", 0), ("dilation", 1))
    )
    given = f"{call['input']}, {call['weight']}, {call['bias']}{rest}{call.unless('groups', 1)}"
    return f"F.conv_transpose{count}d({given})"


@writes("batch_norm.default")
def batch_norm(call: Call) -> str:
    """Batch normalisation, which is trained as the module is; by the batch's own statistics where there are no others."""
    training = "True" if call.value("training") or call.value("running_mean") is None else "self.training"
    tensors = ", ".join(call[name] for name in ("input", "running_mean", "running_var", "weight", "bias"))
    return f"F.batch_norm({tensors}, {training}, {call['momentum']}, {call['eps']})"


@writes("layer_norm.default")
def layer_norm(call: Call) -> str:
    """Layer normalisation. OneFlow leaves a weight out where there is no bias."""
    shape, eps = call.tuple("normalized_shape", 1), call["eps"]
    if call.value("weight") is not None and call.value("bias") is None:
        return f"F.layer_norm({call['input']}, {shape}, None, None, {eps}) * {call['weight']}"
    if call.value("weight") is None and call.value("bias") is not None:
        return f"F.layer_norm({call['input']}, {shape}, None, None, {eps}) + {call['bias']}"
    return f"F.layer_norm({call['input']}, {shape}, {call['weight']}, {call['bias']}, {eps})"


@writes("group_norm.default")
def group_norm(call: Call) -> str:
    """Group normalisation, for which OneFlow has no CPU kernel."""
    return call.helper(
        "group_norm", *(call[name] for name in ("input", "num_groups", "weight", "bias", "eps"))
    )


@writes("embedding.default")
def embedding(call: Call) -> str:
    """Rows of a table."""
    padding = call.value("padding_idx")
    rest = f", padding_idx={padding}" if isinstance(padding, int) and padding >= 0 else ""
    return f"F.embedding({call['indices']}, {call['weight']}{rest})"


@writes("dropout.default")
def dropout(call: Call) -> str:
    """Dropout, which is on as the module is trained."""
    return f"F.dropout({call['input']}, {call['p']}, {'True' if call.value('train') else 'self.training'})"
