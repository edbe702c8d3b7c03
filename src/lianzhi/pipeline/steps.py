"""How each step of a recipe is carried out on the state. One function a step.

A step that changes the structure (`prune`) leaves its plans beside its weights, so that a resumed run
replays the structure and loads the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lianzhi.config import Config
from lianzhi.pipeline.distilling import run_distill
from lianzhi.pipeline.packing import run_pack
from lianzhi.pipeline.pruning import run_prune
from lianzhi.pipeline.quantizing import run_quantize
from lianzhi.pipeline.sharing import run_share
from lianzhi.pipeline.training import run_sparsify, run_train
from lianzhi.pipeline.vocabulary import run_vocabulary
from lianzhi.recipe import Distill, Pack, Prune, Quantize, ReduceVocabulary, ShareWeights, Sparsify, Train

RUNNERS: dict[type[Config], Callable[..., dict[str, Any]]] = {
    Train: run_train,
    Sparsify: run_sparsify,
    Prune: run_prune,
    Distill: run_distill,
    Quantize: run_quantize,
    ShareWeights: run_share,
    Pack: run_pack,
    ReduceVocabulary: run_vocabulary,
}
