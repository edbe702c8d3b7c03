"""Functions that bend, value by value, and softmax."""

from __future__ import annotations

from lianzhi.deploy.oneflow.code.call import Call
from lianzhi.deploy.oneflow.code.table import add, writes

add(
    {
        "relu.default": "flow.relu({self})",
        "relu6.default": "F.relu6({self})",
        "hardtanh.default": "F.hardtanh({self}, {min_val}, {max_val})",
        "tanh.default": "flow.tanh({self})",
        "sigmoid.default": "flow.sigmoid({self})",
        "silu.default": "F.silu({self})",
        "mish.default": "F.mish({self})",
        "hardswish.default": "F.hardswish({self})",
        "hardsigmoid.default": "F.hardsigmoid({self})",
        "leaky_relu.default": "F.leaky_relu({self}, {negative_slope})",
        "prelu.default": "F.prelu({self}, {weight})",
        "glu.default": "F.glu({self}, dim={dim})",
        "log_sigmoid.default": "F.logsigmoid({self})",
        "celu.default": "F.celu({self}, alpha={alpha})",
        "selu.default": "F.selu({self})",
        "softmax.int": "flow.softmax({self}, dim={dim})",
        "log_softmax.int": "flow.log_softmax({self}, dim={dim})",
    }
)


@writes("gelu.default")
def gelu(call: Call) -> str:
    """GELU, exact or by tanh."""
    rest = ', approximate="tanh"' if call.value("approximate") == "tanh" else ""
    return f"F.gelu({call['self']}{rest})"


@writes("elu.default")
def elu(call: Call) -> str:
    """ELU."""
    if call.value("scale") != 1 or call.value("input_scale") != 1:
        raise call.refuse("has scales, which OneFlow's ELU has not")
    return f"F.elu({call['self']}, alpha={float(call.value('alpha'))!r})"


@writes("softplus.default")
def softplus(call: Call) -> str:
    """Softplus, with floats as OneFlow wants them."""
    options = f"beta={float(call.value('beta'))!r}, threshold={float(call.value('threshold'))!r}"
    return f"F.softplus({call['self']}, {options})"
