"""Fashion-MNIST (Xiao et al. 2017): 60,000 + 10,000 greyscale images of clothes, 28×28, MIT licence.

Looked for in the given folder, else in the Debian package's folder, the cache, the Hugging Face hub; else
the Debian package is fetched into the cache. Each file's checksum is that of the published one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pydantic import Field

from lianzhi.errors import DataError
from lianzhi.tasks import cache
from lianzhi.tasks._task import Task
from lianzhi.tasks.assemble import Facts, assemble
from lianzhi.tasks.catalog import registry
from lianzhi.tasks.known import Published, from_parquet
from lianzhi.tasks.options import ImageOptions
from lianzhi.tasks.part import Part
from lianzhi.tasks.readers import debian, hub, idx
from lianzhi.tasks.readers.mnist import Checksums, read_parts
from lianzhi.tasks.waiting import waiting

PACKAGE = "dataset-fashion-mnist"
INSTALLED = Path("/usr/share/datasets/fashion-mnist")
UNPACKED: Checksums = {  # sha256 of the unpacked contents
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
FACTS = Facts(
    name="fashion_mnist",
    source="",
    num_classes=10,
    labels=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    size=(28, 28),
    channels=1,
    mean=(0.2860,),
    std=(0.3530,),
)


class FashionMnistOptions(ImageOptions):
    """Options of `fashion_mnist`."""

    padding: int = Field(default=2, ge=0)
    verify: bool = Field(default=True, description="compare the checksums of the files")


@registry.register(
    "fashion_mnist",
    "Fashion-MNIST: 28x28 greyscale, 10 classes, 60,000 + 10,000; fetched where it is missing",
    paper="1708.07747",
    config=FashionMnistOptions,
)
def fashion_mnist(data: Path | None, options: FashionMnistOptions) -> Task:
    """Make the task from the given folder, or from where the data is found."""
    folder = find() if data is None else data
    if not folder.is_dir():
        raise DataError(
            f"task 'fashion_mnist': {folder}: no such folder; give the folder of the four IDX files, "
            f"or leave out data and they are fetched"
        )
    parts = read_idx(folder, verify=options.verify)
    if parts is None:
        parts, _ = from_parquet(PUBLISHED, folder)
    if parts is None:
        raise DataError(
            f"task 'fashion_mnist': {folder} holds neither train-images-idx3-ubyte.gz and its three companions "
            f"nor train*.parquet and test*.parquet; leave out data and they are fetched"
        )
    return assemble(parts, replace(FACTS, source=str(folder)), options)


def read_idx(folder: Path, *, verify: bool) -> dict[str, Part] | None:
    """The two parts from IDX files, if any of them is there."""
    return read_parts(folder, unpacked=UNPACKED if verify else {})


def find() -> Path:
    """The folder of the data: installed, fetched earlier, on the hub, or fetched now."""
    cached = cache.folder() / "fashion_mnist"
    for folder in (INSTALLED, cached):
        if idx.find(folder, "train-images-idx3-ubyte") is not None:
            return folder
    with waiting("fetching Fashion-MNIST (31 MB)"):
        try:
            return hub.fetch(PUBLISHED.repository, PUBLISHED.pattern)
        except DataError as error:
            first = error
        try:
            return debian.fetch(PACKAGE, str(INSTALLED), cached)
        except DataError as second:
            raise DataError(
                f"task 'fashion_mnist': the data is not here and cannot be fetched: {first}; {second}. "
                f"Give data: a folder with the four IDX files, or install the Debian package {PACKAGE}"
            ) from None


PUBLISHED = Published(
    facts=FACTS,
    title="Fashion-MNIST",
    repository="zalando-datasets/fashion_mnist",
    label="label",
    native=lambda folder: read_idx(folder, verify=True),
    native_files="the four IDX files",
)
