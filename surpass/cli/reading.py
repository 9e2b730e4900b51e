"""How the command line reads what is not a plain word or number."""

from __future__ import annotations

from typing import Annotated, Any

from tyro.conf import UseAppendAction, arg

from surpass.errors import InputError

__all__ = ["Column", "Many", "flat", "mapping", "named"]

Column = Annotated[str | None, arg(metavar="COLUMN")]
Many = UseAppendAction[list[tuple[str, ...]]]


def flat(given: Many) -> list[str]:
    """`--set a=1 b=2 --set c=3` as one list."""
    return [word for words in given for word in words]


def named(**columns: Any) -> dict[str, Any]:
    """The columns that were named, by role."""
    return {role: column for role, column in columns.items() if column is not None}


def mapping(text: str | None) -> dict[str, str] | None:
    """`prompt=question,answer=solution` as a dict."""
    if text is None:
        return None
    pairs = [item.partition("=") for item in text.split(",")]
    if not all(equals and value for _, equals, value in pairs):
        raise InputError(f"--columns {text}: write --columns prompt=question,answer=solution")
    return {role.strip(): value.strip() for role, _, value in pairs}
