"""Where quantizers go, by target. One target's rules a file."""

from lianzhi import deploy
from lianzhi.quantize.placement import onnxruntime, openvino, tensorrt
from lianzhi.quantize.placement.names import layer_name, weight_node
from lianzhi.quantize.placement.plan import Placement, Rules, place, tail

RULES: dict[str, Rules] = {
    "onnxruntime": onnxruntime.RULES,
    "openvino": openvino.RULES,
    "tensorrt": tensorrt.RULES,
    "pytorch": onnxruntime.RULES,  # simulated in float
}

__all__ = ["RULES", "Placement", "Rules", "layer_name", "place", "rules_of", "tail", "weight_node"]


def rules_of(target: str) -> Rules:
    """The rules of a target; of another package's target, those of the one that it is quantized like."""
    return RULES[deploy.quantized_like(target)]
