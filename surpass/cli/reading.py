"""How the command line reads what is not a plain word or number."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import arg

from surpass.errors import InputError

__all__ = ["Column", "mapping"]

Column = Annotated[str | None, arg(metavar="COLUMN")]


def mapping(text: str | None) -> dict[str, str] | None:
    """`prompt=question,answer=solution` as a dict."""
    if text is None:
        return None
    pairs = [item.partition("=") for item in text.split(",")]
    if not all(equals and value for _, equals, value in pairs):
        raise InputError(f"--columns {text}: write --columns prompt=question,answer=solution")
    return {role.strip(): value.strip() for role, _, value in pairs}
