"""An option that would count for nothing is refused, unless it has its default."""

from __future__ import annotations

import pytest
from lessons import setting, taught

import lianzhi as lz
from lianzhi import distill
from lianzhi.errors import RecipeError


@pytest.mark.parametrize(
    ("method", "options", "used"),
    [
        ("rkd", {"temperature": 8}, {"soft": 1}),
        ("fitnet", {"temperature": 8}, {"soft": 0.5}),
        ("minilm", {"version": 1, "relation_heads": 12}, {"version": 2}),
        ("minilm", {"version": 1, "query": 0}, {"version": 2}),
        ("minilm", {"version": 2, "attention": 5}, {"version": 1}),
        ("minilm", {"temperature": 8}, {"alpha": 0.5}),
        ("mobilebert", {"one_hot": 0.9}, {"masked_lm": "a", "corpus": {"data": "b"}}),
        ("mobilebert", {"temperature": 7}, {"alpha": 0.5}),
        ("tinybert", {"prediction": 7}, {"joint": True}),
    ],
)
def test_it_is_refused_where_it_is_of_no_use(method, options, used):
    entry = distill.methods.registry.get(method)
    with pytest.raises(RecipeError, match=rf"'{list(options)[-1]}' is [^;]*; leave it out"):
        entry.options(**options)
    assert entry.options(**{**options, **used})
    plain = entry.options().to_dict()
    assert entry.options(**plain).to_dict() == plain, "as a saved recipe has it"


def test_tinybert_reads_no_label_that_could_be_smoothed():
    given = setting()
    given.training = lz.Train(label_smoothing=0.1)
    with pytest.raises(RecipeError, match="tinybert reads no labels"):
        taught(given, "tinybert", projection="none")
