"""The ops that a saved graph may hold, by name. Whatever is not here is refused on saving and on loading.

Left out on purpose: ops that read files (`from_file`) or memory that nobody wrote (`empty`), that change a
tensor's storage (`set_`, `resize_`, `as_strided`), that make lists of any length (`tensor_split` by a number),
internal kernels that trust their arguments, and higher-order ops. `operator` functions compute with sizes only.
"""

from __future__ import annotations

from typing import Any

from lianzhi.graph.sizes import FUNCTIONS

_ARITHMETIC = """
abs.default abs_.default add.Scalar add.Tensor add_.Scalar add_.Tensor addcdiv.default addcmul.default
ceil.default clamp.Tensor clamp.default clamp_.default clamp_max.default clamp_max_.default clamp_min.default
clamp_min_.default cos.default cosh.default div.Scalar div.Scalar_mode div.Tensor div.Tensor_mode div_.Scalar
div_.Tensor div_.Tensor_mode erf.default exp.default exp_.default expm1.default floor.default floor_.default
floor_divide.Scalar floor_divide.default fmod.Scalar fmod.Tensor frac.default lerp.Scalar lerp.Tensor
lerp_.Scalar log.default log10.default log1p.default log2.default logaddexp.default maximum.default
minimum.default mul.Scalar mul.Tensor mul_.Scalar mul_.Tensor neg.default neg_.default pow.Scalar
pow.Tensor_Scalar pow.Tensor_Tensor pow_.Scalar reciprocal.default remainder.Scalar remainder.Tensor
round.decimals round.default round_.default rsqrt.default rsub.Scalar rsub.Tensor sign.default sin.default
sinh.default sqrt.default sqrt_.default square.default sub.Scalar sub.Tensor sub_.Scalar sub_.Tensor tan.default
trunc.default asin.default acos.default atan.default atan2.default nan_to_num.default
"""

_LOGIC = """
bitwise_and.Scalar bitwise_and.Tensor bitwise_not.default bitwise_or.Scalar bitwise_or.Tensor bitwise_xor.Scalar
bitwise_xor.Tensor eq.Scalar eq.Tensor ge.Scalar ge.Tensor gt.Scalar gt.Tensor isfinite.default isinf.default
isnan.default le.Scalar le.Tensor logical_and.default logical_not.default logical_or.default logical_xor.default
lt.Scalar lt.Tensor ne.Scalar ne.Tensor where.Scalar where.ScalarOther where.ScalarSelf where.self
masked_fill.Scalar masked_fill.Tensor masked_fill_.Scalar fill_.Tensor fill.Scalar masked_fill_.Tensor __and__.Scalar __and__.Tensor
__or__.Scalar __or__.Tensor __xor__.Tensor any.default any.dim all.default all.dim
"""

_ACTIVATIONS = """
celu.default celu_.default elu.default elu_.default gelu.default glu.default hardshrink.default
hardsigmoid.default hardsigmoid_.default hardswish.default hardswish_.default hardtanh.default hardtanh_.default
leaky_relu.default leaky_relu_.default log_sigmoid.default log_softmax.int logit.default mish.default
mish_.default prelu.default relu.default relu6.default relu6_.default relu_.default rrelu.default selu.default
selu_.default sigmoid.default sigmoid_.default silu.default silu_.default softmax.int softplus.default
softshrink.default tanh.default tanh_.default threshold.default threshold_.default
"""

_LAYERS = """
adaptive_avg_pool1d.default adaptive_avg_pool2d.default adaptive_avg_pool3d.default adaptive_max_pool1d.default
adaptive_max_pool2d.default adaptive_max_pool3d.default avg_pool1d.default avg_pool2d.default avg_pool3d.default
batch_norm.default bilinear.default conv1d.default conv1d.padding conv2d.default conv2d.padding conv3d.default
conv3d.padding conv_transpose1d.default conv_transpose2d.input conv_transpose3d.input cosine_similarity.default
alpha_dropout.default dropout.default dropout_.default embedding.default feature_dropout.default
feature_dropout_.default group_norm.default instance_norm.default layer_norm.default linear.default
linalg_vector_norm.default max_pool1d.default max_pool2d.default max_pool3d.default norm.ScalarOpt_dim
pixel_shuffle.default pixel_unshuffle.default channel_shuffle.default rms_norm.default
scaled_dot_product_attention.default _weight_norm.default gru.input lstm.input rnn_relu.input rnn_tanh.input affine_grid_generator.default grid_sampler.default
upsample_bicubic2d.vec upsample_bilinear2d.vec upsample_linear1d.vec upsample_nearest1d.vec
upsample_nearest2d.vec upsample_nearest3d.vec upsample_trilinear3d.vec _upsample_bicubic2d_aa.vec
_upsample_bilinear2d_aa.vec fake_quantize_per_channel_affine.default fake_quantize_per_tensor_affine.default
fake_quantize_per_tensor_affine.tensor_qparams
"""

_PRODUCTS = """
addbmm.default addmm.default addmv.default baddbmm.default bmm.default dot.default einsum.default matmul.default
mm.default mv.default outer.default vdot.default
"""

_REDUCTIONS = """
amax.default amin.default argmax.default argmin.default argsort.default cumprod.default cumsum.default
logsumexp.default max.default max.dim max.other mean.default mean.dim min.default min.dim min.other prod.default
prod.dim_int sort.default std.correction std.default std.dim std_mean.correction sum.default sum.dim_IntList
topk.default var.correction var.default var.dim var_mean.correction var_mean.dim median.dim
"""

_MOVEMENT = """
alias.default cat.default chunk.default clone.default constant_pad_nd.default contiguous.default copy.default
copy_.default detach.default detach_.default diagonal.default expand.default expand_as.default flatten.using_ints
flip.default fill_.Scalar fill_.Tensor fill.Scalar gather.default index.Tensor index_add.default index_copy.default index_put.default
index_put_.default index_select.default lift_fresh_copy.default masked_scatter.default meshgrid.indexing
movedim.int movedim.intlist narrow.default pad.default permute.default reflection_pad1d.default
reflection_pad2d.default repeat.default repeat_interleave.self_int replication_pad1d.default
replication_pad2d.default reshape.default reshape_as.default roll.default rot90.default scatter.src
scatter.value scatter_add.default select.int slice.Tensor split.Tensor split.sizes split_with_sizes.default
squeeze.default squeeze.dim squeeze.dims squeeze_.dim stack.default swapaxes.default t.default
take_along_dim.default tensor_split.indices tile.default to.device to.dtype
to.dtype_layout to.other transpose.int transpose_.default tril.default triu.default type_as.default unbind.int
unflatten.int unfold.default unsqueeze.default unsqueeze_.default view.default view_as.default view_as_complex.default
view_as_real.default im2col.default col2im.default numpy_T.default mT.default zero_.default
"""

_CREATION = """
arange.default arange.start arange.start_step bernoulli.p eye.default eye.m full.default full_like.default
linspace.default new_full.default new_ones.default new_zeros.default ones.default
ones_like.default rand.default rand_like.default randn.default randn_like.default scalar_tensor.default
zeros.default zeros_like.default
"""

_SIZES = "sym_size.int sym_numel.default"

ATEN = frozenset(
    f"aten.{name}"
    for group in (
        _ARITHMETIC,
        _LOGIC,
        _ACTIVATIONS,
        _LAYERS,
        _PRODUCTS,
        _REDUCTIONS,
        _MOVEMENT,
        _CREATION,
        _SIZES,
    )
    for name in group.split()
)

# checks of the tracer that compute nothing; they are not saved
DROPPED = frozenset({"aten._assert_tensor_metadata.default", "aten.sym_constrain_range_for_size.default"})


def is_known(target: Any) -> bool:
    """Whether a saved graph may hold this op.

    >>> is_known("aten.relu.default"), is_known("aten.from_file.default")
    (True, False)
    """
    return isinstance(target, str) and (target in ATEN or target in FUNCTIONS or target == "operator.getitem")
