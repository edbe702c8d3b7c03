"""Read the built site: every link leads somewhere, and no page fetches anything from another host.

python check.py ../out/site
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src"}
FETCHED_RELATIONS = {"stylesheet", "icon", "preload", "preconnect", "prefetch"}


@dataclass
class Seen(HTMLParser):
    """What a page names: anchors, links, and what a browser fetches for it."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.anchors |= {given[key] for key in ("id", "name") if key in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "link" and FETCHED_RELATIONS & set(given.get("rel", "").split()):
            self.fetched.append(given["href"])
        if given.get(FETCHED.get(tag, "")):
            self.fetched.append(given[FETCHED[tag]])


def read(page: Path) -> Seen:
    seen = Seen()
    seen.feed(page.read_text("utf-8"))
    return seen


def faults(site: Path) -> list[str]:
    """A line for each link without an end and each thing fetched from elsewhere."""
    pages = {page.resolve(): read(page) for page in sorted(site.rglob("*.html"))}
    found = []
    for page, seen in pages.items():
        if page.name == "404.html":  # its links start at the root of a server
            continue
        where = page.relative_to(site.resolve())
        found += [f"{where}: fetches {url}" for url in seen.fetched if urlsplit(url).netloc]
        for url in [*seen.links, *seen.fetched]:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(parts.fragment)
            if not target.is_file():
                found.append(f"{where}: {url} is not there")
            elif anchor and target in pages and anchor not in pages[target].anchors:
                found.append(f"{where}: {url} has no such place")
    return found


if __name__ == "__main__":
    found = faults(Path(sys.argv[1]))
    pages = len(list(Path(sys.argv[1]).rglob("*.html")))
    sys.stdout.write("\n".join([*found, f"{pages} pages, {len(found)} faults in their links"]) + "\n")
    sys.exit(bool(found) or not pages)
