"""Files that are whole or absent, and reading what somebody else may have written."""

from lianzhi.files.disk import (
    explain,
    is_text,
    make_folder,
    member,
    open_regular,
    read_bytes,
    read_text,
    require_empty,
    require_writable,
    whole_folder,
    write_bytes,
    write_json,
    write_text,
    writing,
)
from lianzhi.files.places import expanded, find_folder
from lianzhi.files.strict_json import finite, parse_json, read_json
from lianzhi.files.strict_yaml import parse_yaml
from lianzhi.files.tensors import TensorInfo, owners_in, read_tensors, same_bits, tensor_table, write_tensors

__all__ = [
    "TensorInfo",
    "expanded",
    "explain",
    "find_folder",
    "finite",
    "is_text",
    "make_folder",
    "member",
    "open_regular",
    "owners_in",
    "parse_json",
    "parse_yaml",
    "read_bytes",
    "read_json",
    "read_tensors",
    "read_text",
    "require_empty",
    "require_writable",
    "same_bits",
    "tensor_table",
    "whole_folder",
    "write_bytes",
    "write_json",
    "write_tensors",
    "write_text",
    "writing",
]
