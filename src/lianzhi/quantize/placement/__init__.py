"""Where quantizers go, by target. One target's rules a file."""

from lianzhi.quantize.placement import onnxruntime, openvino, tensorrt
from lianzhi.quantize.placement.names import layer_name, weight_node
from lianzhi.quantize.placement.plan import Placement, Rules, place, tail

RULES: dict[str, Rules] = {
    "onnxruntime": onnxruntime.RULES,
    "openvino": openvino.RULES,
    "tensorrt": tensorrt.RULES,
    "pytorch": onnxruntime.RULES,  # simulated in float
}

__all__ = ["RULES", "Placement", "Rules", "layer_name", "place", "tail", "weight_node"]
