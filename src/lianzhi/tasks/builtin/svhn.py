"""SVHN, cropped digits (Netzer et al. 2011): 73,257 + 26,032 colour images of house numbers, 32×32."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from lianzhi.tasks._task import Task
from lianzhi.tasks.assemble import Facts
from lianzhi.tasks.catalog import registry
from lianzhi.tasks.known import Published, open_published
from lianzhi.tasks.options import ImageOptions
from lianzhi.tasks.part import Part
from lianzhi.tasks.readers.svhn_mat import read_part


class SvhnOptions(ImageOptions):
    """Options of `svhn`: digits are not mirrored."""

    padding: int = Field(default=2, ge=0)
    flip: bool = False


def native(folder: Path) -> dict[str, Part] | None:
    """The parts from the MATLAB files, if they are there."""
    if not (folder / "train_32x32.mat").is_file():
        return None
    return {name: read_part(folder / f"{name}_32x32.mat") for name in ("train", "test")}


PUBLISHED = Published(
    facts=Facts(
        name="svhn",
        source="",
        num_classes=10,
        labels=tuple("0123456789"),
        size=(32, 32),
        mean=(0.4377, 0.4438, 0.4728),
        std=(0.1980, 0.2010, 0.1970),
    ),
    title="SVHN",
    repository="ufldl-stanford/svhn",
    label="label",
    native=native,
    native_files="train_32x32.mat and test_32x32.mat",
    pattern="cropped_digits/*.parquet",
)


@registry.register("svhn", "SVHN: 32x32 colour digits, 10 classes, 73,257 + 26,032", config=SvhnOptions)
def svhn(data: Path | None, options: SvhnOptions) -> Task:
    """Make the task from Parquet, from the MATLAB files, or from the hub."""
    return open_published(PUBLISHED, data, options)
