"""OneFlow: its checkpoints read and written, and models as source for it, without OneFlow."""

from lianzhi.deploy.oneflow.code import Source, write_source
from lianzhi.deploy.oneflow.target import OneFlow
from lianzhi.deploy.oneflow.writing import write
from lianzhi.models.checkpoints import read_oneflow as read

__all__ = ["OneFlow", "Source", "read", "write", "write_source"]
