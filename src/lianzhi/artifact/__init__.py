"""The artifact: a compressed model as a folder. No pickle, no source code needed, nothing evaluated."""

from lianzhi.artifact.layout import (
    CACHE,
    CALIBRATION,
    FORMAT,
    MEMBERS,
    ONEFLOW,
    PACKED,
    PLACED,
    check_architecture,
    check_folder,
    checked_labels,
    is_plain,
)
from lianzhi.artifact.predict_script import NO_SCRIPT, SCRIPTED, write_predict
from lianzhi.artifact.reading import example_inputs, inputs_of, labels_of, load, rebuild, stored
from lianzhi.artifact.savable import check_savable
from lianzhi.artifact.skeleton import image_inputs
from lianzhi.artifact.writing import save

__all__ = [
    "CACHE",
    "CALIBRATION",
    "FORMAT",
    "MEMBERS",
    "NO_SCRIPT",
    "ONEFLOW",
    "PACKED",
    "PLACED",
    "SCRIPTED",
    "check_architecture",
    "check_folder",
    "check_savable",
    "checked_labels",
    "example_inputs",
    "image_inputs",
    "inputs_of",
    "is_plain",
    "labels_of",
    "load",
    "rebuild",
    "save",
    "stored",
    "write_predict",
]
