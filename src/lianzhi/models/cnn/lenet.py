"""LeNets: LeCun et al. 1998, "Gradient-based learning applied to document recognition".

`lenet_300_100` and `lenet5` are the two that Deep Compression (1510.00149) compresses, `lenet5` being Caffe's with
20 and 50 filters and 500 units, and with no nonlinearity but max pooling after the convolutions.
`lenet5_classic` has the sizes of 1998 (6, 16, 120, 84) with ReLU and max pooling instead of tanh and averaging.
"""

from __future__ import annotations

from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional

from lianzhi.models.catalog import registry
from lianzhi.models.options import ModelConfig, Width


class LeNetConfig(ModelConfig):
    """Options of the LeNets: square images, 28x28 and grey by default."""

    in_channels: Width = 1
    image_size: int = Field(default=28, ge=1, le=512)


class LeNet5Config(LeNetConfig):
    """Options of the convolutional LeNets."""

    @field_validator("image_size")
    @classmethod
    def _two_windows_fit(cls, size: int) -> int:
        if size < 16:
            raise ValueError("two 5x5 windows with pooling between them need images of 16 pixels or more")
        return size


class LeNet300100(nn.Module):
    """A perceptron with 300 and 100 hidden units: images or vectors (batch, …) to logits."""

    def __init__(self, config: LeNetConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.in_channels * config.image_size**2, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, config.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.fc1(x.flatten(1)))
        x = functional.relu(self.fc2(x))
        return self.fc3(x)


class LeNet5(nn.Module):
    """Caffe's LeNet-5: images (batch, channels, 28, 28) to logits."""

    def __init__(self, config: LeNet5Config) -> None:
        super().__init__()
        side = ((config.image_size - 4) // 2 - 4) // 2
        self.conv1 = nn.Conv2d(config.in_channels, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(50 * side**2, 500)
        self.fc2 = nn.Linear(500, config.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(self.conv1(x), 2)
        x = functional.max_pool2d(self.conv2(x), 2)
        x = functional.relu(self.fc1(x.flatten(1)))
        return self.fc2(x)


class LeNet5Classic(nn.Module):
    """LeNet-5 with 6 and 16 filters: images (batch, channels, 28, 28), padded to 32, to logits."""

    def __init__(self, config: LeNet5Config) -> None:
        super().__init__()
        side = (config.image_size // 2 - 4) // 2
        self.conv1 = nn.Conv2d(config.in_channels, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * side**2, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, config.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        x = functional.relu(self.fc1(x.flatten(1)))
        x = functional.relu(self.fc2(x))
        return self.fc3(x)


_PAPER = "https://doi.org/10.1109/5.726791"


@registry.register(
    "lenet_300_100",
    "Perceptron with 300 and 100 hidden units, 0.27M parameters, 28x28 grey",
    paper=_PAPER,
    config=LeNetConfig,
)
def lenet_300_100(config: LeNetConfig) -> LeNet300100:
    """Make LeNet-300-100.

    >>> sum(weight.numel() for weight in lenet_300_100(LeNetConfig()).parameters())
    266610
    """
    return LeNet300100(config)


@registry.register(
    "lenet5",
    "LeNet-5 as in Caffe and Deep Compression, 20-50-500, 0.43M parameters, 28x28 grey",
    paper=_PAPER,
    config=LeNet5Config,
)
def lenet5(config: LeNet5Config) -> LeNet5:
    """Make Caffe's LeNet-5.

    >>> sum(weight.numel() for weight in lenet5(LeNet5Config()).parameters())
    431080
    """
    return LeNet5(config)


@registry.register(
    "lenet5_classic",
    "LeNet-5 with the sizes of 1998, 6-16-120-84, 0.06M parameters, 28x28 grey",
    paper=_PAPER,
    config=LeNet5Config,
)
def lenet5_classic(config: LeNet5Config) -> LeNet5Classic:
    """Make the LeNet-5 of 1998.

    >>> sum(weight.numel() for weight in lenet5_classic(LeNet5Config()).parameters())
    61706
    """
    return LeNet5Classic(config)
