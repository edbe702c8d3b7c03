"""A few rows of each of GLUE's tasks that a ready recipe is for, in the format of its own files."""

from __future__ import annotations

from pathlib import Path

from tiny_text import sentences, write_stsb, write_table

HEADERS = {
    "sst2": "sentence\tlabel",
    "mrpc": "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
    "rte": "index\tsentence1\tsentence2\tlabel",
}
FOLDERS = {"sst2": "SST-2", "cola": "CoLA", "mrpc": "MRPC", "rte": "RTE", "stsb": "STS-B"}


def write_glue(folder: Path, name: str) -> None:
    """100 + 20 rows in the format of one of GLUE's tasks."""
    place = folder / "glue" / FOLDERS[name]
    if name == "stsb":
        write_stsb(place, 100, 20)
        return
    rows = [
        {
            "sst2": (text, label),
            "cola": ("gj04", label, "" if label else "*", text),
            "mrpc": (label, 1, 2, text, second),
            "rte": (at, text, second, "not_entailment" if label else "entailment"),
        }[name]
        for at, ((text, label), (second, _)) in enumerate(
            zip(sentences(120, 0), sentences(120, 1), strict=True)
        )
    ]
    for file, part in (("train.tsv", rows[:100]), ("dev.tsv", rows[100:])):
        if name == "cola":  # it has no line of names: its first row is in that place
            write_table(place / file, part[1:], header="\t".join(map(str, part[0])))
        else:
            write_table(place / file, part, header=HEADERS[name], mark="\ufeff" if name == "mrpc" else "")
