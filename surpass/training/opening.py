"""The way back from a folder to a policy, whoever wrote it: `surpass train` or `surpass
improve`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from surpass.errors import InputError
from surpass.policies import handover
from surpass.training.run import POLICY, load_trained

__all__ = ["load"]


def load(folder: str | Path) -> Any:
    """The policy in a folder.

    Gives a `HandedPolicy` where decisions were learned, a `LanguagePolicy` where a language model
    was, and else a `Trained`; of a run with several seeds the first, with all in `.seeds`.

    Args:
        folder: of a policy, of a report that holds one as `policy`, or of a training run.

    Raises:
        InputError: when there is no policy, or it is damaged or of another version.
    """
    place = Path(folder)
    if not place.is_dir():
        raise InputError(f"there is no folder {place}; surpass train and surpass improve write one")
    for inner in (place, place / "policy"):
        if (inner / handover.CARD).exists():
            return handover.load(inner)
        if (inner / "surpass.json").exists():
            from surpass.policies.language import LanguagePolicy

            return LanguagePolicy.load(inner)
        if (inner / POLICY).exists():
            return load_trained(inner)
    seeds = sorted(place.glob(f"seed*/{POLICY}"), key=lambda p: int(p.parent.name[4:]))
    if not seeds:
        raise InputError(
            f"{place} holds no policy: neither {handover.CARD} of surpass improve nor {POLICY} of "
            "surpass train is in it"
        )
    runs = [load_trained(p.parent) for p in seeds]
    return replace(runs[0], seeds=runs)
