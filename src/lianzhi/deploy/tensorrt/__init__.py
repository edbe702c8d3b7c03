"""TensorRT: NVIDIA's own parser and builder check and build what is exported."""

from lianzhi.deploy.tensorrt.builder import BuildReport, build, capabilities, check, engine_name
from lianzhi.deploy.tensorrt.library import open_library
from lianzhi.deploy.tensorrt.target import TensorRt

__all__ = ["BuildReport", "TensorRt", "build", "capabilities", "check", "engine_name", "open_library"]
