"""HTML that is safe by construction: every text is escaped unless it was made here.

`element` escapes its children and attributes; only what it returned itself (`Markup`) passes through.
"""

from __future__ import annotations

import html

from lianzhi.report.format import clean
from lianzhi.report.words import WORDS


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escape(content: object) -> Markup:
    """Return text as HTML, what is HTML already unchanged.

    >>> escape("</script><script>"), escape(Markup("<b></b>"))
    ('&lt;/script&gt;&lt;script&gt;', '<b></b>')
    """
    return content if isinstance(content, Markup) else Markup(html.escape(clean(content)))


def join(*parts: object, between: str = "") -> Markup:
    """Escape and concatenate."""
    return Markup(html.escape(between).join(escape(part) for part in parts))


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """Return an element; `class_` is `class`, `stroke_width` is `stroke-width`, None and False are left out.

    >>> element("td", "a<b", class_="number", data_step='"')
    '<td class="number" data-step="&quot;">a&lt;b</td>'
    """
    written = ""
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        name = key.rstrip("_").replace("_", "-")
        written += f" {name}" if value is True else f' {name}="{html.escape(clean(value))}"'
    return Markup(f"<{tag}{written}>{join(*children)}</{tag}>")


def say(key: str, tag: str = "span", **values: object) -> Markup:
    """Return a sentence in both languages; the page's style shows one of them.

    >>> say("step")
    '<span lang="en">Step</span><span lang="zh">步骤</span>'
    """
    inner = {name: escape(value) for name, value in values.items()}
    english, chinese = (Markup(html.escape(text, quote=False).format(**inner)) for text in WORDS[key])
    return join(element(tag, english, lang="en"), element(tag, chinese, lang="zh"))
