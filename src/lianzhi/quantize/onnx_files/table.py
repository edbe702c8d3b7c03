"""The report of a file as a printed table."""

from __future__ import annotations

from typing import Any

SHOWN = 10


def report_table(report: dict[str, Any]) -> str:
    """What was quantized, what it gained and what it cost, the worst layers, and what stays float."""
    sizes = report["bytes"]
    lines = [
        f"{report['source']} for {report['target']}: {report['quantized']} quantized"
        if report["quantized"] != "none"
        else f"{report['source']} for {report['target']}: kept in float",
        f"{sizes['float']:,} bytes, now {sizes['output']:,} ({sizes['output'] / max(1, sizes['float']):.2f}x)",
    ]
    if report["worth_it"] is None:
        lines.append(f"not timed: {report['timing']}")
    for item in report.get("attempts", []):
        if "ratio" in item:
            lines.append(
                f"{item['quantized']:<20} {item['int8_ms']:9.3f} ms int8, {item['float_ms']:9.3f} ms {item['baseline']}: "
                f"{item['ratio']:.2f}x the time ({item['threads']} threads)"
            )
    if "control" in report:
        lines.append(_control(report["control"]))
    if report.get("reason"):
        lines.append(report["reason"])
    if "output_sqnr_db" in report:
        counts = f"{len(report['layers'])} layers in {report['weights']}, values in {report['activations']}"
        lines.append(f"{counts}; output SQNR {report['output_sqnr_db']:.1f} dB on {report['checked_on']}")
    rows = sorted(report["layers"], key=lambda row: row["output_sqnr_db"])[:SHOWN]
    width = max((len(row["name"]) for row in rows), default=5)
    lines += [f"{'worst layers':<{width}}  {'weight dB':>10}  {'output dB':>10}"] if rows else []
    lines += [
        f"{row['name']:<{width}}  {row['weight_sqnr_db']:>10.1f}  {row['output_sqnr_db']:>10.1f}"
        for row in rows
    ]
    lines += [f"left float: {row['name']} ({row['reason']})" for row in report["left_float"][:SHOWN]]
    if len(report["left_float"]) > SHOWN:
        lines.append(f"left float: {len(report['left_float']) - SHOWN} more; --json has all of them")
    lines += [f"lint: {finding}" for finding in report["lint"]]
    return "\n".join([*lines, *(f"note: {note}" for note in report["notes"])])


def _control(record: dict[str, Any]) -> str:
    """What accuracy control measured and did."""
    values = record["accuracy"]
    line = f"{record['metric']}: {values['quantized']:.4f}, of float {values['float']:.4f}"
    if record["max_drop"] is None:
        return line
    returned = (
        f"{len(record['returned'])} layers returned to float" if record["returned"] else "no layer returned"
    )
    return f"{line}; may fall by {record['max_drop']:g}: {returned}"
