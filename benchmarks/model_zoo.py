"""The model zoo's pages, in English and Chinese, and their charts, from the JSON under `benchmarks/results/`.

    python benchmarks/model_zoo.py                 # `make zoo`: docs/model_zoo.md, docs/zh/model_zoo.md, docs/img/
    python benchmarks/model_zoo.py --check         # write nothing; say which file in git is not what the JSON gives

The same JSON gives the same bytes. A table is a file in `benchmarks/zoo/tables/`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from records import RESULTS
from zoo.book import book
from zoo.results import Results

from lianzhi import files

DOCS = Path(__file__).parents[1] / "docs"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON files")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder that the pages are written to")
    parser.add_argument("--check", action="store_true", help="compare and write nothing")
    given = parser.parse_args()
    made = book(Results(given.results))
    if given.check:
        other = [name for name, content in made.items() if not _same(given.docs / name, content)]
        for name in other:
            print(f"{given.docs / name} is not what the JSON gives; make it again: make zoo")
        return 1 if other else 0
    for name, content in made.items():
        files.make_folder((given.docs / name).parent)
        files.write_text(given.docs / name, content)
        print(given.docs / name)
    return 0


def _same(file: Path, content: str) -> bool:
    return file.is_file() and file.read_text(encoding="utf-8") == content


if __name__ == "__main__":
    raise SystemExit(main())
