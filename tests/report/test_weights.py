"""The table and the plots of weights by layer."""

from __future__ import annotations

from typing import Any

import pytest

from lianzhi.report import Report, weights


def layer(name: str, size: int, kept: float = 0.1) -> dict[str, Any]:
    return {"name": name, "weights": 1000, "kept": kept, "bits": 4, "entropy": 3.21, "bytes": size}


def report(**last: Any) -> Report:
    drawn = {
        "name": "fc1",
        "low": -1.0,
        "high": 1.0,
        "counts": [1, 5, 9, 5],
        "values": [[-0.5, 8], [0.5, 12]],
    }
    rows = [
        {"step": "original"},
        {"step": "prune", "details": {"stage": {"layers": [layer("fc1", 500), layer("fc2", 600)]}}},
        {
            "step": "share_weights",
            "details": {
                "stage": {"layers": [layer("fc1", 80), layer("fc2", 90, 0.3)]},
                "distributions": [drawn],
            },
        },
        {"step": "last", "details": last},
    ]
    return Report.from_json({"rows": rows})


def test_a_row_a_layer_and_one_of_all():
    found = weights.table(report())
    assert found is not None
    assert found.stages == ["prune", "share_weights"]
    assert found.rows == [
        ("fc1", ["1.00k", "10.0%", "4", "3.21", "4.00 kB", "500 B", "80 B"]),
        ("fc2", ["1.00k", "30.0%", "4", "3.21", "4.00 kB", "600 B", "90 B"]),
        ("", ["2.00k", "20.0%", "–", "–", "8.00 kB", "1.10 kB", "170 B"]),
    ]


def test_it_is_in_all_three_forms():
    made = report()
    for text in (made.table(), made.to_markdown(), made.to_html()):
        assert "fc2" in text
        assert "170 B" in text
    assert max(map(len, made.table().splitlines())) <= 100
    assert made.to_html().count('class="scatter spread"') == 1
    assert made.to_html().count('class="shared"') == 2


def test_nothing_of_it_without_such_steps():
    plain = Report.from_json({"rows": [{"step": "original"}, {"step": "prune", "details": {"kept": 1}}]})
    assert weights.table(plain) is None
    assert "Weights by layer" not in plain.table() + plain.to_markdown()


@pytest.mark.parametrize(
    "bad",
    [
        {"stage": 3},
        {"stage": {"layers": [{"name": "x"}, 7, {**layer("x", 1), "bits": "4"}]}},
        {"distributions": [{"name": "x", "low": 0, "high": 1, "counts": [], "values": []}]},
        {"distributions": [{"name": "x", "low": None, "high": 1, "counts": [1], "values": [[0, 1]]}]},
        {"distributions": "no"},
    ],
)
def test_what_is_no_such_thing_is_left_out(bad):
    assert weights.table(report(**bad)) == weights.table(report())
    assert report(**bad).to_html().count('class="scatter spread"') == 1


def test_one_value_and_names_that_are_markup():
    drawn = {"name": "<b>", "low": 2.0, "high": 2.0, "counts": [7], "values": [[2.0, 7]]}
    page = report(distributions=[drawn], stage={"layers": [layer("<i>x</i>", 1)]}).to_html()
    assert "<i>x</i>" not in page
    assert page.count('class="scatter spread"') == 2
