"""Small networks, one for each way in which channels are coupled. Each is made by a function without arguments."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from net_parts import IMAGE, Net, conv
from torch import nn


class Chain(Net):
    def __init__(self):
        super().__init__(10)
        self.layers = nn.Sequential(
            conv(3, 8),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            conv(8, 10, bias=False),
            nn.PReLU(10),
            nn.Dropout(0.1),
        )

    def body(self, x):
        return self.layers(x)


class Residual(Net):
    def __init__(self):
        super().__init__(8)
        self.stem, self.a, self.b, self.c = conv(3, 8), conv(8, 12), conv(12, 8), conv(8, 8)
        self.norm = nn.BatchNorm2d(8)

    def body(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = x + self.b(F.relu(self.a(x)))
        y = self.c(x)
        y += x
        return torch.relu_(y)


class OptionA(Net):
    """The shortcut is strided and padded with zero channels on both sides, by literals in forward."""

    def __init__(self):
        super().__init__(14)
        self.stem, self.a, self.b = conv(3, 8), conv(8, 14, stride=2), conv(14, 14)

    def body(self, x):
        x = F.relu(self.stem(x))
        short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 4))
        return F.relu(self.b(F.relu(self.a(x))) + short)


class ZerosBeside(Net):
    """Option A by concatenation with zeros that are made in forward."""

    def __init__(self):
        super().__init__(12)
        self.stem, self.a = conv(3, 8), conv(8, 12)

    def body(self, x):
        x = F.relu(self.stem(x))
        zeros = torch.zeros(x.shape[0], 4, x.shape[2], x.shape[3])
        return self.a(x) + torch.cat([x, zeros], 1)


class Dense(Net):
    def __init__(self):
        super().__init__(14)
        self.stem, self.a, self.b = conv(3, 6), conv(6, 4), conv(10, 4)
        self.norm1, self.norm2, self.norm3 = nn.BatchNorm2d(6), nn.BatchNorm2d(10), nn.BatchNorm2d(14)

    def body(self, x):
        x = self.stem(x)
        x = torch.cat([x, self.a(F.relu(self.norm1(x)))], 1)
        x = torch.cat([x, self.b(F.relu(self.norm2(x)))], 1)
        return F.relu(self.norm3(x))


class Branches(Net):
    """Inception: branches side by side, pooled, then read by one convolution."""

    def __init__(self):
        super().__init__(7)
        self.a, self.b1, self.b2, self.c = conv(3, 4, 1), conv(3, 5, 1), conv(5, 6), conv(3, 3, 1)
        self.last = conv(13, 7)

    def body(self, x):
        y = [self.a(x), self.b2(F.relu(self.b1(x))), self.c(F.avg_pool2d(x, 3, 1, 1))]
        return self.last(F.max_pool2d(torch.cat(y, 1), 2))


class Depthwise(Net):
    """MobileNetV2's block, and a depthwise layer with two outputs a channel."""

    def __init__(self):
        super().__init__(9)
        self.stem, self.up, self.deep, self.down = (
            conv(3, 6),
            conv(6, 12, 1),
            conv(12, 12, groups=12),
            conv(12, 6, 1),
        )
        self.twice, self.last = conv(6, 12, groups=6), conv(12, 9, 1)
        self.norm = nn.BatchNorm2d(12)

    def body(self, x):
        x = F.relu6(self.stem(x))
        x = x + self.down(F.relu6(self.norm(self.deep(F.relu6(self.up(x))))))
        return self.last(self.twice(x))


class Grouped(Net):
    """ResNeXt: many small groups (whole groups go), then few large ones (positions go)."""

    def __init__(self):
        super().__init__(12)
        self.stem, self.many, self.few = conv(3, 16), conv(16, 16, groups=8), conv(16, 12, groups=2)

    def body(self, x):
        return self.few(F.relu(self.many(F.relu(self.stem(x)))))


class Shuffle(Net):
    """ShuffleNetV2: halves of the channels, a branch on one, concat, shuffle."""

    def __init__(self):
        super().__init__(12)
        self.stem, self.a, self.b, self.c = conv(3, 12), conv(6, 6, 1), conv(6, 6, groups=6), conv(6, 6, 1)

    def body(self, x):
        x = F.relu(self.stem(x))
        left, right = x.chunk(2, 1)
        x = torch.cat([left, F.relu(self.c(self.b(F.relu(self.a(right)))))], 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return x


class NativeShuffle(Net):
    def __init__(self):
        super().__init__(12)
        self.stem, self.a = conv(3, 12), conv(12, 12, groups=3)
        self.shuffle = nn.ChannelShuffle(3)

    def body(self, x):
        return F.relu(self.shuffle(self.a(self.stem(x))))


class SqueezeExcite(Net):
    def __init__(self):
        super().__init__(8)
        self.stem, self.down, self.up, self.last = conv(3, 10), conv(10, 4, 1), conv(4, 10, 1), conv(10, 8)

    def body(self, x):
        x = self.stem(x)
        scale = torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))
        return self.last(x * scale)


class SqueezeLinear(Net):
    """Squeeze-and-excitation by linear layers, a view and expand_as."""

    def __init__(self):
        super().__init__(10)
        self.stem, self.down, self.up = conv(3, 10), nn.Linear(10, 4), nn.Linear(4, 10)

    def body(self, x):
        x = self.stem(x)
        n, c = x.shape[:2]
        y = self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1).view(n, c)))).sigmoid().view(n, c, 1, 1)
        return x * y.expand_as(x)


class SpatialGate(Net):
    """A map of one channel, expanded by a literal to all of them."""

    def __init__(self):
        super().__init__(10)
        self.stem, self.gate = conv(3, 10), conv(10, 1)

    def body(self, x):
        x = self.stem(x)
        return x * self.gate(x).sigmoid().expand(-1, 10, -1, -1)


class Flatten(nn.Module):
    """LeNet: a spatial map of 5 by 5 before the classifier."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3)
        self.fc1, self.fc2 = nn.Linear(8 * 2 * 2, 11), nn.Linear(11, 5)
        self.norm = nn.BatchNorm1d(11)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.relu(self.conv2(x))[:, :, :2, :2]
        x = x.reshape(-1, 8 * 2 * 2)
        return self.fc2(self.norm(F.relu(self.fc1(x))))


class UNet(nn.Module):
    """Transposed convolution, a skip by concat, pixel shuffle, bilinear resizing; the output is an image."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2, self.up = conv(3, 6), conv(6, 8, stride=2), nn.ConvTranspose2d(8, 5, 2, 2)
        self.deep = nn.ConvTranspose2d(6, 6, 3, padding=1, groups=6)
        self.wide, self.last = conv(11, 16), conv(4, 2)

    def forward(self, x):
        a = F.relu(self.down1(x))
        b = self.up(F.relu(self.down2(a)))
        y = F.relu(self.wide(torch.cat([self.deep(a), b], 1)))
        return F.interpolate(self.last(F.pixel_shuffle(y, 2)), scale_factor=0.5, mode="bilinear")


class Unshuffle(Net):
    def __init__(self):
        super().__init__(7)
        self.stem, self.last = conv(3, 5), conv(20, 7)

    def body(self, x):
        return self.last(F.pixel_unshuffle(self.stem(x), 2))


class Splits(Net):
    """Uneven splits, a slice, a gated unit, and a flip."""

    def __init__(self):
        super().__init__(9)
        self.stem, self.a, self.b, self.gated = conv(3, 12), conv(5, 4), conv(7, 4), conv(4, 10)
        self.last = conv(8, 9)

    def body(self, x):
        x = F.relu(self.stem(x))
        left, right = torch.split(x, [5, 7], 1)
        y = self.a(left) + self.b(right).flip(1)
        z = F.glu(self.gated(y), 1)
        return self.last(torch.cat([z, x[:, 2:5]], 1))


class Scaled(Net):
    """Parameters in the middle: a scale and a shift a channel, a constant map, a list of branches stacked."""

    def __init__(self):
        super().__init__(8)
        self.stem, self.a, self.b = conv(3, 8), conv(8, 8), conv(8, 8)
        self.gamma, self.beta = nn.Parameter(torch.ones(8, 1, 1)), nn.Parameter(torch.zeros(1, 8, 1, 1))
        self.register_buffer("mask", torch.rand(12, 12))

    def body(self, x):
        x = self.stem(x) * self.gamma + self.beta
        return torch.stack([self.a(x) * self.mask, self.b(x), x.clamp(-1, 1)], 0).sum(0)


class Attended(Net):
    """ResNeSt: two radices of the same channels, weighed by a softmax over the radices."""

    def __init__(self):
        super().__init__(6)
        self.stem, self.up = conv(3, 12), conv(6, 12, 1)

    def body(self, x):
        y = F.relu(self.stem(x)).view(-1, 2, 6, 12, 12)
        weight = self.up(y.sum(1).mean((2, 3), keepdim=True)).view(-1, 2, 6, 1, 1).softmax(1)
        return (y * weight).sum(1)


class Tied(Net):
    """One convolution used three times, and a second one that shares its weight."""

    def __init__(self):
        super().__init__(8)
        self.stem, self.shared, self.twin = conv(3, 8), conv(8, 8), conv(8, 8)
        self.twin.weight = self.shared.weight

    def body(self, x):
        x = self.stem(x)
        for _ in range(2):
            x = F.relu(self.shared(x))
        return self.twin(x)


class Survivors(Net):
    """Norms and softmax over channels, exact over the survivors; roll over channels and a computed weight, left whole."""

    def __init__(self):
        super().__init__(8)
        self.stem, self.a, self.b, self.c, self.d, self.free = (conv(3 if i == 0 else 8, 8) for i in range(6))
        self.group, self.layer = nn.GroupNorm(2, 8), nn.LayerNorm(8)

    def body(self, x):
        x = self.group(self.stem(x))
        x = self.layer(self.a(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.b(x).softmax(1)
        x = self.c(x).roll(1, 1)
        x = F.conv2d(x, self.d.weight * 2, padding=1)
        return self.free(x)


class MLP(nn.Module):
    """Linear layers over the last dimension of (N, T, C), and mixing over T."""

    def __init__(self):
        super().__init__()
        self.embed, self.up, self.down = nn.Linear(12, 6), nn.Linear(6, 9), nn.Linear(9, 6)
        self.token_up, self.token_down = nn.Linear(36, 7), nn.Linear(7, 36)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x = self.embed(x.flatten(1, 2))
        x = x + self.token_down(F.gelu(self.token_up(x.transpose(1, 2)))).transpose(1, 2)
        x = x + self.down(F.gelu(self.up(x)))
        return self.head(x.mean(1))


class Outputs(nn.Module):
    """Two outputs, one of them an inner feature map: what leaves the model is frozen."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = conv(3, 8), conv(8, 8), conv(8, 4)

    def forward(self, x):
        x = F.relu(self.a(x))
        y = self.b(x)
        return {"features": y, "logits": self.c(F.relu(y)).mean((2, 3))}


class Folded(Net):
    """Channels folded into the batch and back: the sizes mix the batch with what is pruned."""

    def __init__(self):
        super().__init__(8)
        self.stem, self.single, self.last = conv(3, 6), conv(1, 1), conv(6, 8)

    def body(self, x):
        x = self.stem(x)
        n, c, h, w = x.shape
        y = self.single(x.reshape(n * c, 1, h, w)).reshape(n, c, h, w)
        return self.last(x + y)


class Instance(Net):
    def __init__(self):
        super().__init__(9)
        self.stem, self.last = conv(3, 8), conv(8, 9)
        self.norm = nn.InstanceNorm2d(8, affine=True)

    def body(self, x):
        return self.last(F.leaky_relu(self.norm(self.stem(x))))


class Signal(nn.Module):
    """One-dimensional convolutions, transposed too."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (
            nn.Conv1d(36, 8, 3),
            nn.ConvTranspose1d(8, 6, 3),
            nn.Conv1d(6, 4, 3, groups=2),
        )
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x):
        return self.c(F.relu(self.b(F.relu(self.norm(self.a(x.flatten(1, 2)))))))


NETS = {
    net.__name__: net
    for net in (
        Chain, Residual, OptionA, ZerosBeside, Dense, Branches, Depthwise, Grouped, Shuffle, NativeShuffle,
        SqueezeExcite, SqueezeLinear, SpatialGate, Flatten, UNet, Unshuffle, Splits, Scaled, Attended, Tied, Survivors,
        MLP, Outputs, Folded, Instance, Signal,
    )
}  # fmt: skip


def made(name):
    """A network with its parameters and BatchNorm statistics off their defaults, and an image."""
    torch.manual_seed(0)
    return NETS[name]().eval(), torch.randn(1, *IMAGE)
