"""The names of precisions.

"f32" and "bf16" are float computations. "int8", "int4" and "mixed" (of both) are files whose layers read quantized values.
A name that ends in "-weights" says how the weights alone are stored: the runtime computes in float.
"""

FLOAT_PRECISIONS = ("f32", "bf16")
PRECISIONS = (
    *FLOAT_PRECISIONS, "int8", "int4", "mixed",
    "int8-weights", "int4-weights", "mixed-weights", "f16-weights", "bf16-weights",
)  # fmt: skip
