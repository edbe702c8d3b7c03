"""Options that image tasks have in common."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import AfterValidator, Field

from lianzhi.config import Config


def _check_count(value: int | float) -> int | float:
    if value < 0 or (isinstance(value, float) and value >= 1):
        raise ValueError(f"is a number of samples (0 for none), or a share such as 0.1; got {value}")
    return value


Count: TypeAlias = Annotated[int | float, AfterValidator(_check_count)]
"""A number of samples, or, below 1, a share of them."""


def _check_size(value: int | tuple[int, int]) -> int | tuple[int, int]:
    sides = (value,) if isinstance(value, int) else value
    if min(sides) < 1:
        raise ValueError(f"is a number of pixels, or (height, width); got {value}")
    return value


Size: TypeAlias = Annotated[int | tuple[int, int], AfterValidator(_check_size)]
"""Pixels of a square, or (height, width)."""


class SplitOptions(Config):
    """How the training part is cut, and how much of each split is used.

    >>> SplitOptions(validation=0.2).calibration
    1024
    """

    OPEN: ClassVar[frozenset[str]] = frozenset({"calibration"})  # cut from a lone test part where it is given

    validation: Count = Field(default=5000, description="samples cut from train to choose by")
    calibration: Count = Field(default=1024, description="samples cut from train to calibrate quantizers")
    split_seed: int = Field(default=0, description="another seed is another cut")
    limit: int | None = Field(default=None, ge=1, description="use at most so many samples of each split")


class ImageOptions(SplitOptions):
    """Options of every image task. `mean` and `std` are per channel, of pixels in 0–1."""

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    padding: int = Field(
        default=4, ge=0, description="augmentation: pixels that a crop may be off the middle"
    )
    flip: bool = Field(default=True, description="augmentation: mirror half of the images")


class OwnImageOptions(ImageOptions):
    """Options of tasks on data of one's own: what is not given is found in the data."""

    validation: Count = 0.1
    calibration: Count = 0.1
    test: Count = Field(default=0.1, description="cut from the data where it has no test part")
    classes: int | None = Field(default=None, ge=1, description="number of classes (default: as in train)")
    size: Size | None = Field(
        default=None, description="height and width (default: 224, or as small images are)"
    )
    channels: Literal[1, 3] | None = Field(
        default=None, description="1: greyscale, 3: colour (default: as the first)"
    )
    min_area: float = Field(
        default=0.35, gt=0, le=1, description="augmentation of large images: least share kept"
    )
