"""MNIST (LeCun et al. 1998): 60,000 + 10,000 greyscale digits, 28×28."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from lianzhi.tasks._task import Task
from lianzhi.tasks.assemble import Facts
from lianzhi.tasks.catalog import registry
from lianzhi.tasks.known import Published, open_published
from lianzhi.tasks.options import ImageOptions
from lianzhi.tasks.readers.mnist import read_parts

PACKED = {  # sha256 of the published .gz files
    "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}


class MnistOptions(ImageOptions):
    """Options of `mnist`: digits are not mirrored."""

    padding: int = Field(default=2, ge=0)
    flip: bool = False
    verify: bool = Field(default=True, description="compare the checksums of .gz files")


@registry.register("mnist", "MNIST: 28x28 greyscale digits, 10 classes, 60,000 + 10,000", config=MnistOptions)
def mnist(data: Path | None, options: MnistOptions) -> Task:
    """Make the task from IDX files, Parquet, or the hub."""
    published = Published(
        facts=Facts(
            name="mnist",
            source="",
            num_classes=10,
            labels=tuple("0123456789"),
            size=(28, 28),
            channels=1,
            mean=(0.1307,),
            std=(0.3081,),
        ),
        title="MNIST",
        repository="ylecun/mnist",
        label="label",
        native=lambda folder: read_parts(folder, packed=PACKED if options.verify else {}),
        native_files="the four IDX files (train-images-idx3-ubyte.gz, …)",
    )
    return open_published(published, data, options)
