"""How docs/ becomes two sites: which pages are of which language, and pages that have another source than docs/.

A Chinese page `zh/x.md` lies at `zh/x.html`, an English one at `x.html`; each site has its own menu and search. The first page is the
README, the changelog is CHANGELOG.md, and the reference is made of the docstrings, by the names on the page `api.md`.
"""

from __future__ import annotations

import re
from pathlib import Path

import reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
CHINESE = "zh/"
SWITCH = re.compile(r"^\*\[(?:English|中文)\]\([^)]*\)\*\n", re.MULTILINE)
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s:]+)\)")
FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
BROKEN_LINE = re.compile(r"(?<=[\u3000-\u9fff\uff00-\uffef])\n(?=[\u4e00-\u9fff\uff00-\uffef])")


def is_chinese(config: MkDocsConfig) -> bool:
    return str(config.theme["language"]) == "zh"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The rooms' pages join the menu; for Chinese, every page and section by its Chinese counterpart."""
    prefix = CHINESE if is_chinese(config) else ""
    names = config.extra.get("sections", {})
    menu: list[object] = []
    for item in config.nav or []:
        if isinstance(item, str):
            menu.append(prefix + item)
            continue
        ((section, pages),) = item.items()
        inside: list[object] = [prefix + page for page in pages]
        if "api.md" in pages:
            rooms = [
                {f"lz.{room}" if room else "lz": prefix + reference.page(room)} for room in reference.ROOMS
            ]
            inside.insert(1, {"API": rooms})
        menu.append({names.get(section, section): inside})
    config.nav = menu
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Keep one language's pages, and add those made from elsewhere."""
    chinese = is_chinese(config)
    kept = []
    for file in files:
        if file.is_documentation_page() and file.src_uri.startswith(CHINESE) != chinese:
            continue
        kept.append(file)
    pages = {
        "index.md": front_page(chinese),
        "changelog.md": changes(chinese),
        **{reference.page(room): reference.text(room, chinese=chinese) for room in reference.ROOMS},
    }
    prefix = CHINESE if chinese else ""
    kept += [File.generated(config, prefix + name, content=text) for name, text in pages.items()]
    for file in kept:
        file.dest_uri = file.dest_uri.removeprefix(CHINESE)
    return Files(kept)


def front_page(chinese: bool) -> str:
    """The README, with its links as seen from docs/."""
    text = (ROOT / ("README.zh-CN.md" if chinese else "README.md")).read_text("utf-8")
    here = "docs/zh/" if chinese else "docs/"
    up = "../" * here.count("/")
    for there, seen in ((here, ""), ("CHANGELOG.md", "changelog.md"), ("examples/", f"{up}examples/")):
        text = text.replace(f"]({there}", f"]({seen}")
    return text


def changes(chinese: bool) -> str:
    """The changelog, which is in English; on the Chinese site it leads to Chinese pages, whose headings have other names."""
    text = (ROOT / "CHANGELOG.md").read_text("utf-8").replace("](docs/", "](")
    if not chinese:
        return text
    text = text.replace("# Changelog", "# 更新记录（英文）", 1)
    return LINK.sub(lambda link: f"[{link[1]}]({link[2].partition('#')[0]})", text)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Take out the line that leads to the other language (the head of the page has it) and links to files of the repository."""
    markdown = SWITCH.sub("", markdown, count=1)
    markdown = LINK.sub(lambda link: outside(link, page.file), markdown)
    if page.file.src_uri.endswith("api.md"):
        markdown = reference.linked(markdown)
    if is_chinese(config):
        parts = FENCE.split(markdown)
        markdown = "".join(part if part.startswith("```") else BROKEN_LINE.sub("", part) for part in parts)
    return markdown


def outside(link: re.Match[str], file: File) -> str:
    """A link to a file that is in the repository but not in docs/, as plain text: the site has no copy of it."""
    there = (ROOT / "docs" / file.src_uri).parent / link[2].partition("#")[0]
    inside = there.resolve().is_relative_to(ROOT / "docs")
    return link[0] if inside or not there.exists() else link[1]
