"""Small networks that together hold every kind of op that placement knows."""

import torch
from torch import nn
from torch.nn import functional as F


class Residual(nn.Module):
    """Convolutions with BatchNorm, a residual sum over slice and pad, global pooling, a classifier."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16)
        self.linear = nn.Linear(16, 10)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        x = torch.relu(self.bn2(self.conv2(x)) + shortcut)
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Projection(nn.Module):
    """A residual sum of two convolutions."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.main, self.side = nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.Conv2d(8, 16, 1, stride=2)
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        return self.head(torch.relu(self.main(x) + self.side(x))).mean([2, 3])


class Inverted(nn.Module):
    """ReLU6, a depthwise convolution, a residual sum without activation, a mean, dropout."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.block = nn.Sequential(
            nn.Conv2d(8, 16, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU6(),
            nn.Conv2d(16, 16, 3, 1, 1, groups=16, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU6(),
            nn.Conv2d(16, 8, 1, bias=False),
            nn.BatchNorm2d(8),
        )
        self.last = nn.Sequential(nn.Conv2d(8, 16, 1), nn.ReLU6())
        self.dropout, self.linear = nn.Dropout(0.2), nn.Linear(16, 10)

    def forward(self, x):
        x = self.stem(x)
        return self.linear(self.dropout(self.last(x + self.block(x)).mean([2, 3])))


class Inception(nn.Module):
    """Concatenation, max and average pooling, a grouped convolution, SiLU, flatten into a classifier."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1)
        self.a, self.b, self.c = (
            nn.Conv2d(16, 8, 1),
            nn.Conv2d(16, 8, (1, 3), padding=(0, 1)),
            nn.Conv2d(16, 8, 1),
        )
        self.grouped, self.linear = nn.Conv2d(24, 16, 3, groups=4), nn.Linear(16 * 3 * 3, 10)

    def forward(self, x):
        x = F.max_pool2d(torch.relu(self.stem(x)), 3, 2, 1)
        branches = [torch.relu(self.a(x)), torch.relu(self.b(x)), self.c(F.avg_pool2d(x, 3, 1, 1))]
        x = F.silu(self.grouped(torch.cat(branches, 1)))
        return self.linear(F.max_pool2d(x, 2).flatten(1))


class Shuffle(nn.Module):
    """Split, concatenation and a channel shuffle."""

    def __init__(self):
        super().__init__()
        self.stem, self.side, self.last = nn.Conv2d(3, 16, 3, 1, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x):
        left, right = torch.relu(self.stem(x)).chunk(2, 1)
        x = torch.cat([left, torch.relu(self.side(right))], 1)
        batch, channels, height, width = x.shape
        x = (
            x.view(batch, 2, channels // 2, height, width)
            .transpose(1, 2)
            .reshape(batch, channels, height, width)
        )
        return self.last(x).mean([2, 3])


class Feed(nn.Module):
    """A transformer's feed-forward part: products of three dimensions, GELU, a sum before a layer norm."""

    def __init__(self):
        super().__init__()
        self.up, self.down, self.norm, self.out = (
            nn.Linear(32, 64),
            nn.Linear(64, 32),
            nn.LayerNorm(32),
            nn.Linear(32, 4),
        )

    def forward(self, x):
        return self.out(self.norm(x + self.down(F.gelu(self.up(x))))).mean(1)


class Perceptron(nn.Module):
    """Linear layers with BatchNorm."""

    def __init__(self):
        super().__init__()
        self.hidden, self.norm, self.out = nn.Linear(32, 64), nn.BatchNorm1d(64), nn.Linear(64, 10)

    def forward(self, x):
        return self.out(torch.relu(self.norm(self.hidden(x))))


class Wide(nn.Module):
    """Two residual blocks, wide enough for int8: an identity, and a projection."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.a, self.b = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.c, self.side = nn.Conv2d(16, 32, 3, 2, 1), nn.Conv2d(16, 32, 1, 2)
        self.up, self.linear = nn.ConvTranspose2d(32, 16, 2, 2, bias=True), nn.Linear(16, 10)

    def forward(self, x):
        x = self.stem(x)
        x = torch.relu(self.b(torch.relu(self.a(x))) + x)
        x = torch.relu(self.c(x) + self.side(x))
        return self.linear(torch.relu(self.up(x)).mean([2, 3]))


class Dense(nn.Module):
    """Values that stand in two concatenations, one inside the other."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 1), nn.Conv2d(32, 16, 1)
        self.d = nn.Conv2d(48, 16, 1)

    def forward(self, x):
        a = torch.relu(self.a(x))
        ab = torch.cat([a, torch.relu(self.b(a)) * 3], 1)
        return self.d(torch.cat([ab, self.c(ab)], 1))


NETS = {
    Wide: (3, 16, 16),
    Dense: (3, 8, 8),
    Residual: (3, 16, 16),
    Projection: (3, 16, 16),
    Inverted: (3, 16, 16),
    Inception: (3, 16, 16),
    Shuffle: (3, 8, 8),
    Feed: (7, 32),
    Perceptron: (32,),
}


def made(net):
    """A network in eval mode with BatchNorm statistics that are not trivial, and a batch of inputs."""
    torch.manual_seed(0)
    model, inputs = net(), torch.randn(64, *NETS[net])
    with torch.no_grad():
        for _ in range(3):
            model.train()(inputs * 1.5 + 0.2)
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.3, 0.3)
    return model.eval(), inputs
