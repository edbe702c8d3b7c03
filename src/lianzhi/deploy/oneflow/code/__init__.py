"""From a captured ATen graph to OneFlow source: a module's parameters under their own names, and its computation as straight code."""

from lianzhi.deploy.oneflow.code.model import Source, write_source

__all__ = ["Source", "write_source"]
