"""The guide to training: its example runs, and its table names every option there is."""

import re
from pathlib import Path

import pytest

from lianzhi.train import TrainOptions

DOCS = Path(__file__).parents[2] / "docs"
GUIDES = [DOCS / "training.md", DOCS / "zh" / "training.md"]


def test_the_example_runs(capsys):
    blocks = [re.findall(r"```python\n(.*?)```", guide.read_text(encoding="utf-8"), re.S) for guide in GUIDES]
    assert blocks[0] == blocks[1]
    for block in blocks[0]:
        exec(block, {})
    accuracy, loss = map(float, capsys.readouterr().out.split())
    assert 0 <= accuracy <= 1
    assert loss > 0


@pytest.mark.parametrize("guide", GUIDES, ids=["en", "zh"])
def test_every_option_is_explained(guide):
    text = guide.read_text(encoding="utf-8")
    missing = [key for key in TrainOptions.model_fields if f"`{key}`" not in text and f"`{key}: " not in text]
    assert not missing
