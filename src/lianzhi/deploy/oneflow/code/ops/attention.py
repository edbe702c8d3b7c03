"""Attention, written out: OneFlow has no such operation for a CPU."""

from __future__ import annotations

from lianzhi.deploy.oneflow.code.call import Call
from lianzhi.deploy.oneflow.code.table import writes


@writes("scaled_dot_product_attention.default")
def attention(call: Call) -> str:
    """Attention with a mask that is given, or of the places before."""
    if call.value("enable_gqa"):
        raise call.refuse("shares keys among queries (enable_gqa); repeat them before it")
    scale = call.value("scale")
    shown = f"{call.shape('query')[-1] ** -0.5!r}" if scale is None else call["scale"]
    tensors = [call[name] for name in ("query", "key", "value")]
    mask = call.helper("causal", *tensors[:2]) if call.value("is_causal") else call["attn_mask"]
    return call.helper("attention", *tensors, mask, shown)
