"""The page: a verdict block, then sections of blocks, as one self-contained HTML file.

A report of any domain is a `Page`; what it says is decided where it is made (`sections` for
decision logs), how it looks is decided here and in `templates/`. Text is escaped by the template;
pictures are made as escaped markup in `pictures`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import jinja2

from surpass.improve.pictures import picture
from surpass.improve.results import Verdict
from surpass.improve.wording import plain_text

__all__ = ["Block", "Headline", "Number", "Page", "Section", "render"]

_TEMPLATES = Path(__file__).parent / "templates"

Kind = Literal["text", "list", "checks", "picture", "pictures", "table", "code", "tiles"]


@dataclass(frozen=True)
class Number:
    """A number as it is shown (`text`), what it is (`value`), and what it means (`label`)."""

    label: str
    text: str
    value: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Block:
    """One thing in a section. `kind` says what `data` is:

    - text: a paragraph; list: sentences; checks: a list of `Check`;
    - picture: a `Figure`; pictures: several, side by side where there is room;
    - table: {"head": [...], "rows": [[...]], "title": str}; numbers align right;
    - code: {"title", "code"}; tiles: a list of `Number`.
    """

    kind: Kind
    data: Any


@dataclass(frozen=True)
class Section:
    """A titled part of the page; `folded` ones open on a click."""

    key: str
    title: str
    blocks: tuple[Block, ...]
    lead: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Headline:
    """The verdict block: the word, the sentence, the reason, the gain, and the numbers beside
    it."""

    verdict: Verdict
    sentence: str
    reason: str
    gain: Number | None = None
    share: Number | None = None
    interval: tuple[Number, Number] | None = None
    meaning: str = ""
    confidence: str = ""
    picture: Any = None
    tiles: tuple[Number, ...] = ()


@dataclass(frozen=True)
class Page:
    """A report."""

    title: str
    subtitle: str
    headline: Headline
    sections: tuple[Section, ...] = field(default=())
    footer: str = ""


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["picture"] = picture
    environment.filters["line"] = plain_text
    environment.filters["minus"] = lambda text: str(text).replace("-", "\u2212", 1)
    return environment


def render(page: Page) -> str:
    """The page as HTML: no scripts, no requests, light and dark by the reader's setting."""
    environment = _environment()
    style = (_TEMPLATES / "report.css").read_text(encoding="utf-8")
    return environment.get_template("report.html.j2").render(page=page, style=style)
