"""The model zoo's pages, in English and Chinese, and their charts, from the JSON under `benchmarks/results/`.

    python benchmarks/model_zoo.py                 # `make zoo`: docs/model_zoo.md, docs/zh/model_zoo.md, docs/img/
    python benchmarks/model_zoo.py --quick         # `make zoo QUICK=1`: every benchmark at small size first; pages in out/zoo-quick/
    python benchmarks/model_zoo.py --check         # write nothing; say which file in git is not what the JSON gives

The same JSON gives the same bytes. A table is a file in `benchmarks/zoo/tables/`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from records import RESULTS
from zoo import quick
from zoo.book import book
from zoo.results import Results

from lianzhi import files

DOCS = Path(__file__).parents[1] / "docs"
QUICK = Path("out/zoo-quick")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="remake all of it at small size in out/zoo-quick/"
    )
    parser.add_argument("--only", nargs="+", default=[], help="with --quick: words in the names of parts")
    parser.add_argument("--check", action="store_true", help="compare and write nothing")
    given = parser.parse_args()
    if given.quick:
        failed = quick.run(QUICK, given.only)
        write(book(Results(QUICK / "results", small=True)), QUICK)
        if failed:
            print(
                f"{len(failed)} failed: {', '.join(failed)}; run it again, and what is done is not done again"
            )
        return 1 if failed else 0
    made = book(Results(RESULTS))
    if given.check:
        other = [name for name, content in made.items() if not _same(DOCS / name, content)]
        for name in other:
            print(f"{DOCS / name} is not what the JSON gives; make it again: make zoo")
        return 1 if other else 0
    write(made, DOCS)
    return 0


def write(made: dict[str, str], folder: Path) -> None:
    """The files below a folder."""
    for name, content in made.items():
        files.make_folder((folder / name).parent)
        files.write_text(folder / name, content)
        print(folder / name)


def _same(file: Path, content: str) -> bool:
    return file.is_file() and file.read_text(encoding="utf-8") == content


if __name__ == "__main__":
    raise SystemExit(main())
