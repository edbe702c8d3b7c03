"""What `inspect` prints."""

from lianzhi.jobs.inspect import Inspection


def test_columns_are_as_wide_as_what_stands_in_them() -> None:
    rows = [
        {
            "name": "up",
            "type": "conv_transpose2d",
            "shape": (1024, 1024, 1024, 16),
            "parameters": 1_234_567_890,
            "macs": 10**18,
        },
        {"name": "fc", "type": "linear", "shape": (10,), "parameters": 110, "macs": 100},
    ]
    lines = str(Inspection("net", 0, 0, rows, groups=[], frozen=[])).splitlines()[2:5]
    assert [line.split() for line in lines] == [
        ["layer", "type", "output", "parameters", "MACs"],
        ["up", "conv_transpose2d", "1024x1024x1024x16", "1,234,567,890", f"{10**18:,}"],
        ["fc", "linear", "10", "110", "100"],
    ]
