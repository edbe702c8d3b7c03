"""The pipeline: steps in order, a measured row after each, resumable, and a deployable result."""

from lianzhi.pipeline.result import Result
from lianzhi.pipeline.run import compress, run

__all__ = ["Result", "compress", "run"]
