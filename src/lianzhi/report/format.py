"""How numbers and names are written, decided once for the table, Markdown and HTML.

Sizes are decimal (1 kB = 1,000 bytes, 1 MB = 1,000,000 bytes), as disks, downloads and the papers
count them. Numbers keep three significant digits. What is not known is a dash, never a zero.
"""

from __future__ import annotations

import math
import re

UNKNOWN = "–"
CORRELATIONS = frozenset({"matthews", "mcc", "pearson", "spearman", "pearson_spearman", "correlation"})
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def known(value: float | None) -> bool:
    """Whether there is a finite number.

    >>> known(0), known(None), known(float("nan"))
    (True, False, False)
    """
    return value is not None and math.isfinite(value)


def significant(value: float, digits: int = 3) -> str:
    """Write a number with so many significant digits, never in scientific notation.

    >>> [significant(x) for x in (0.31, 4.2149, 12.34, 153.2, 1234.5, 0, 9.996)]
    ['0.310', '4.21', '12.3', '153', '1,234', '0', '10.0']
    """
    rounded = float(f"{value:.{digits}g}")
    if rounded == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(rounded)))
    return f"{value:,.0f}" if decimals <= 0 else f"{value:.{decimals}f}"


def _scaled(value: float, units: tuple[str, ...]) -> str:
    unit = 0
    while abs(float(f"{value:.3g}")) >= 1000 and unit < len(units) - 1:
        value, unit = value / 1000, unit + 1
    text = f"{value:,.0f}" if unit == 0 else significant(value)
    return text + units[unit]


def size(count: float | None) -> str:
    """Write a number of bytes.

    >>> size(812), size(98_304), size(1_112_345), size(999_999), size(None)
    ('812 B', '98.3 kB', '1.11 MB', '1.00 MB', '–')
    """
    return _scaled(count, (" B", " kB", " MB", " GB", " TB")) if known(count) else UNKNOWN  # type: ignore[arg-type]


def count(number: float | None) -> str:
    """Write a number of parameters or MACs.

    >>> count(820), count(272_474), count(41_000_000), count(4.1e9), count(None)
    ('820', '272k', '41.0M', '4.10G', '–')
    """
    return _scaled(number, ("", "k", "M", "G", "T")) if known(number) else UNKNOWN  # type: ignore[arg-type]


def milliseconds(value: float | None) -> str:
    """Write a latency; the unit is always ms, so that two can be compared at a glance.

    >>> milliseconds(0.31), milliseconds(12.34), milliseconds(1530.2), milliseconds(None)
    ('0.310 ms', '12.3 ms', '1,530 ms', '–')
    """
    return f"{significant(value)} ms" if known(value) else UNKNOWN  # type: ignore[arg-type]


def seconds(value: float | None) -> str:
    """Write how long something took.

    >>> seconds(0.42), seconds(12.34), seconds(252), seconds(3780), seconds(None)
    ('0.4 s', '12.3 s', '4 min 12 s', '1 h 03 min', '–')
    """
    if value is None or not known(value):
        return UNKNOWN
    if round(value, 1) < 60:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(value / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def metric_value(value: float | None, metric: str = "top1") -> str:
    """Write a metric: shares as per cent, correlations as they are.

    >>> metric_value(0.93421), metric_value(0.583, "matthews"), metric_value(None)
    ('93.42%', '0.583', '–')
    """
    if value is None or not known(value):
        return UNKNOWN
    return f"{value:.3f}" if metric in CORRELATIONS else f"{100 * value:.2f}%"


def metric_change(value: float | None, reference: float | None, metric: str = "top1") -> str:
    """Write the difference of a metric, in percentage points for shares.

    >>> metric_change(0.9295, 0.9342), metric_change(0.95, 0.9342), metric_change(0.9342, 0.9342)
    ('−0.47', '+1.58', '±0.00')
    >>> metric_change(0.571, 0.583, "matthews"), metric_change(None, 0.9)
    ('−0.012', '–')
    """
    if value is None or reference is None or not (known(value) and known(reference)):
        return UNKNOWN
    difference = value - reference
    text = f"{difference:+.3f}" if metric in CORRELATIONS else f"{100 * difference:+.2f}"
    if float(text) == 0:
        return "±" + text[1:]
    return text.replace("-", "−")


def times(ratio: float | None) -> str:
    """Write a ratio.

    >>> times(12.345), times(1.3456), times(0.5), times(153.2), times(None)
    ('12.3×', '1.35×', '0.50×', '153×', '–')
    """
    if ratio is None or not known(ratio):
        return UNKNOWN
    if ratio < 0.1 and ratio:
        return f"{significant(ratio, 2)}×"
    return f"{ratio:.2f}×" if round(ratio, 2) < 10 else f"{significant(ratio)}×"


def metric_name(metric: str) -> str:
    """Write a metric's name as people say it.

    >>> metric_name("top1"), metric_name("top5"), metric_name("f1")
    ('top-1', 'top-5', 'f1')
    """
    return re.sub(r"^top_?(\d+)$", r"top-\1", clean(metric))


def runtime(name: str, precision: str | None) -> str:
    """Write what a model runs on.

    >>> runtime("openvino", "bf16"), runtime("pytorch", None)
    ('openvino bf16', 'pytorch')
    """
    return f"{name} {precision}" if precision else name


def clean(text: object) -> str:
    r"""Drop what could act on a terminal or reorder a line: control and direction characters.

    >>> clean("pr\x1b[31mune\u202e")
    'pr[31mune'
    """
    return _CONTROL.sub("", str(text))
