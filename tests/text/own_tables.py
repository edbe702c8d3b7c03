"""Tables of texts and classes, in every format that the task `text` reads."""

from __future__ import annotations

import csv
import json

from tiny_text import sentences

KNOWN = sentences(120, 2)
TEXTS = [text for text, _ in KNOWN]
NAMES = ["good" if label else "bad" for _, label in KNOWN]


def rows(start, stop, label="label"):
    return [{"id": at, "text": TEXTS[at], label: NAMES[at]} for at in range(start, stop)]


def write(file, table):
    """A table in the format that the file's name says."""
    file.parent.mkdir(parents=True, exist_ok=True)
    kind, names = file.suffix, list(table[0])
    if kind == ".tsv":
        lines = ["\t".join(names), *("\t".join(map(str, row.values())) for row in table)]
        file.write_text("\n".join(lines) + "\n")
    elif kind == ".csv":
        with file.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, names)
            writer.writeheader()
            writer.writerows(table)
    elif kind in (".jsonl", ".json"):
        file.write_text("\n\n".join(json.dumps(row) for row in table))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(table), file)
    return file
