"""`lianzhi init`: from what lies in a folder to a recipe that runs."""

from lianzhi.jobs.init.missing import Ask, Missing
from lianzhi.jobs.init.start import Started, Wish, init

__all__ = ["Ask", "Missing", "Started", "Wish", "init"]
