"""What one run of the main job returns: the verdict, what it rests on, and how it is written
down."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from surpass.errors import atomic_dir
from surpass.improve.results import (
    CandidateResult,
    Check,
    Estimate,
    Figure,
    Settlement,
    Verdict,
    plain,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["HandOver", "Improvement"]

Design = Literal["learned", "given", "journal"]
HandOver = Callable[[Path], Any]
"""Writes the policy into the folder it is given (`policy/` beside the report)."""


def _now() -> str:
    return datetime.now(UTC).replace(microsecond=0).isoformat()


def _card(folder: Path) -> Mapping[str, Any]:
    path = folder / "policy.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


@dataclass(frozen=True)
class Improvement:
    """The verdict on a log, with everything a reader needs to believe or to doubt it.

    Attributes:
        verdict: "PROMOTE", "HOLD" or "REJECT".
        reason: one sentence that says why.
        log: the name of the log, as the user wrote it.
        reference: the reference policy's mean reward, with one-sided bounds at `level` each.
        best: the tested policy, which is the one handed over; None when nothing could be learned.
        candidates: all policies that were weighed, the tested one among them.
        checks: what was looked at before the verdict, in the order of the report.
        settlement: on HOLD, what would settle it.
        diagnosis: the log's own numbers. Every entry is optional; the report draws what it finds:

            - `rows`, `scored`, `units`: int; `unit`: "row" or the name of the group;
            - `columns`: {"action": name, "reward": name, "context": [names], ...};
            - `reward`: {"mean", "low", "high", "values": the distinct values where they are few,
              "range": [lo, hi], "range_source": words};
            - `actions`: [{"action", "count", "share", "reward"}], as logged;
            - `shares`: [{"action", "reference", "candidate"}], mean probabilities on scored rows;
            - `calibration`: {"by": "action" or "propensity", "bins": [{"predicted", "observed",
              "count", "label", "error"}], "p_value"};
            - `overlap`: {"ess", "ess_share", "max", "unsupported", "quantiles": {"50 %": w, ...},
              "histogram": {"edges": [...], "counts": [...]}} of the tested policy's weights;
            - `drift`: {"axis": words, "blocks": [{"label", "reward", "low", "high", "gain",
              "gain_low", "gain_high"}]};
            - `duplicates`: {"pairs", "repeated", "expected"}: pairs of rows with one context, and
              the share of them that take one action;
            - `notes`: [sentences].
        assumptions: sentences: what the verdict takes for granted.
        rows: rows of the log.
        level: the allowed chance of a false PROMOTE.
        margin: the gain that has to be exceeded, in units of the reward.
        seed: of everything random.
        versions: of the packages that made it.
        seconds: per stage.
        figures: further pictures, for logs that are not decision logs.
        usage: (caption, code) pairs, how to use the policy; empty: the ordinary ones.
        design: how the tested policy came about: "learned" from this log, "given" by the user, or
            frozen in a "journal" before the rows that judged it.
        reference_name: what the reference policy is, in words.
        per: what a value is the mean of: "decision", "episode" or "answer" (of a language model).
        method: sentences on how the verdict was made; empty: those of `design`.
        created: when, ISO 8601, UTC.
        hand_over: writes the policy into a folder; None when there is nothing to hand over.
    """

    verdict: Verdict
    reason: str
    log: str
    reference: Estimate
    best: CandidateResult | None
    candidates: tuple[CandidateResult, ...]
    checks: tuple[Check, ...]
    rows: int
    level: float = 0.05
    margin: float = 0.0
    seed: int = 0
    settlement: Settlement | None = None
    diagnosis: Mapping[str, Any] = field(default_factory=dict)
    assumptions: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    figures: tuple[Figure, ...] = ()
    usage: tuple[tuple[str, str], ...] = ()
    design: Design = "learned"
    reference_name: str = "the policy that wrote the log"
    per: str = "decision"
    method: tuple[str, ...] = ()
    created: str = field(default_factory=_now)
    hand_over: HandOver | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The content of `report.json`: plain types, NaN and infinities as null."""
        names = [name for name in self.__dataclass_fields__ if name != "hand_over"]
        return {"format": 1, **{name: plain(getattr(self, name)) for name in names}}

    def json(self) -> str:
        """`report.json`."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False, default=str) + "\n"

    def html(self, *, policy: str | None = None, card: Mapping[str, Any] | None = None) -> str:
        """`report.html`: one self-contained page.

        Args:
            policy: the folder that holds the policy, as the reader would write it.
            card: the content of its policy.json, from which the page says how to use it.
        """
        from surpass.improve.report import render
        from surpass.improve.sections import page

        return render(page(self, policy=policy, card=card))

    def markdown(self) -> str:
        """`verdict.md`: the verdict in a few lines."""
        from surpass.improve.verdict_text import markdown

        return markdown(self)

    def __rich__(self) -> RenderableType:
        from surpass.improve.verdict_text import console

        return console(self)

    def save(
        self, folder: str | Path, *, overwrite: bool = False, hand_over: HandOver | None = None
    ) -> Path:
        """Write `report.html`, `report.json`, `verdict.md` and, where there is a policy,
        `policy/`: all of it or nothing.

        Args:
            folder: where; it must not exist unless `overwrite`.
            overwrite: replace an existing folder, once the new one is complete.
            hand_over: writes the policy into the folder it is given; by default `self.hand_over`.

        Returns:
            The folder.

        Raises:
            InputError: the folder exists, or cannot be written.
        """
        folder = Path(folder)
        hand_over = hand_over or self.hand_over
        with atomic_dir(folder, overwrite=overwrite) as new:
            if hand_over is not None:
                (new / "policy").mkdir()
                hand_over(new / "policy")
            policy = str(folder / "policy") if hand_over is not None else None
            page = self.html(policy=policy, card=_card(new / "policy"))
            (new / "report.html").write_text(page, encoding="utf-8")
            (new / "report.json").write_text(self.json(), encoding="utf-8")
            (new / "verdict.md").write_text(self.markdown(), encoding="utf-8")
        return folder
