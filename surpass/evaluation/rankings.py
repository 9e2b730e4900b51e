"""Both answers of preference pairs under a language model and its reference."""

from __future__ import annotations

import torch
from torch import Tensor

from surpass.data.language import LanguageLog
from surpass.errors import InputError
from surpass.objectives.rankings import RankedPairs
from surpass.policies.language import LanguagePolicy

__all__ = ["ranked_pairs"]


@torch.no_grad()
def ranked_pairs(
    policy: LanguagePolicy, reference: LanguagePolicy, log: LanguageLog, size: int = 64
) -> RankedPairs:
    """Log-probabilities of a log's pairs, `size` rows at a time.

    Raises:
        InputError: when the log holds no pairs.
    """
    if log.kind != "pairs":
        raise InputError(f"rankings need pairs; this log holds {log.kind}")
    found: dict[str, list[Tensor]] = {}
    for start in range(0, len(log), size):
        rows = range(start, min(start + size, len(log)))
        for side in ("chosen", "rejected"):
            seq = log.side(side, rows)
            for name, model in (("", policy), ("ref_", reference)):
                here = seq.to(model.device)
                total = (model.score(here).logp * here.mask).sum(-1).double().cpu()
                found.setdefault(name + side, []).append(total)
            found.setdefault(f"{side} length", []).append(seq.length)
    sides = {k: torch.cat(v) for k, v in found.items()}
    lengths = torch.stack([sides.pop("chosen length"), sides.pop("rejected length")], -1)
    return RankedPairs(**sides, lengths=lengths)
