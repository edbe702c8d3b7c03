"""What each ATen op is to a quantizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

aten = torch.ops.aten

CONVOLUTIONS: set[Any] = {
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv3d.default,
    aten.conv1d.padding,
    aten.conv2d.padding,
    aten.conv3d.padding,
}
LINEAR: set[Any] = {aten.linear.default}
WEIGHTED = CONVOLUTIONS | LINEAR

TRANSPOSED: set[Any] = {
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.conv_transpose3d.input,
}

RECURRENT: set[Any] = {aten.lstm.input, aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input}

# rows of a table, looked up by index
TABLES: set[Any] = {aten.embedding.default}


def weight_axis(node: fx.Node) -> int:
    """The axis of an op's weight that holds the output channels."""
    return 1 if node.target in TRANSPOSED else 0


# ops with a computed value on every side that have an integer kernel of their own
SUMS: set[Any] = {aten.add.Tensor, aten.add_.Tensor}
PRODUCTS: set[Any] = {aten.mul.Tensor, aten.mul_.Tensor}
CONCATS: set[Any] = {aten.cat.default}
AVERAGES: set[Any] = {
    aten.avg_pool1d.default,
    aten.avg_pool2d.default,
}
GLOBAL_AVERAGES: set[Any] = {
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
    aten.mean.dim,
}

# ops that end up inside the kernel before them
CLAMPS: set[Any] = {
    aten.relu.default,
    aten.relu_.default,
    aten.relu6.default,
    aten.relu6_.default,
    aten.hardtanh.default,
    aten.hardtanh_.default,
    aten.clamp.default,
    aten.clamp_.default,
    aten.clamp_min.default,
}

# ops whose output holds values of their input and nothing else: they keep its scale
MOVES: set[Any] = {
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.max_pool3d.default,
    aten.flatten.using_ints,
    aten.view.default,
    aten.reshape.default,
    aten.permute.default,
    aten.transpose.int,
    aten.unsqueeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.squeeze.default,
    aten.slice.Tensor,
    aten.select.int,
    aten.expand.default,
    aten.repeat.default,
    aten.pixel_shuffle.default,
    aten.pixel_unshuffle.default,
    aten.channel_shuffle.default,
}

# ops that do nothing when the model is deployed
IDENTITIES: set[Any] = {
    aten.dropout.default,
    aten.dropout_.default,
    aten.feature_dropout.default,
    aten.contiguous.default,
    aten.clone.default,
    aten.detach.default,
    aten.detach_.default,
    aten.alias.default,
    aten.lift_fresh_copy.default,
}

PADS: set[Any] = {aten.pad.default, aten.constant_pad_nd.default}

# ops that give several parts of their input, each read by a `getitem`
SPLITS: set[Any] = {
    aten.chunk.default,
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.split.sizes,
    aten.unbind.int,
}
