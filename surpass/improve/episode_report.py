"""What the report says of episodes beside the verdict: pictures, how many more episodes, and how to
use the policy."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from surpass.improve.episode_candidates import EpisodeCandidate
from surpass.improve.episodes import GAMMA, SHARES, Weighed
from surpass.improve.hold import settlement
from surpass.improve.on_policy import Confirmation
from surpass.improve.results import Figure, Settlement

__all__ = ["episodes_needed", "figures", "usage"]


def episodes_needed(
    phi: Tensor, floor: float, margin: float, paid: Tensor, level: float
) -> Settlement:  # fmt: skip
    """What would settle a HOLD, in episodes of the whole log.

    Args:
        phi: gains of the judging episodes, [E]. floor: their lower limit. margin: to be exceeded.
        paid: returns of the log's episodes, [E]. level: of the verdict.
    """
    found = settlement(
        float(phi.mean()) - margin, float(phi.std()), floor - margin, len(phi),
        float(paid.mean()), level,
    )  # fmt: skip
    judging = 1.0 - sum(SHARES)
    scale = 0.7 / judging  # `settlement` counts rows of which 70 % are scored

    def more(rows: float | None) -> float | None:
        return None if rows is None else rows * scale

    total = more(found.rows)
    if total is None:
        sentence = "Playing the candidate with --env ID would settle it."
    else:
        sentence = (
            f"About {total:,.0f} episodes of this kind in all would prove a gain of this size four "
            "times in five; playing the candidate with --env ID would settle it sooner."
        )
    return Settlement(total, more(found.rows_low), more(found.rows_high), sentence)


def usage(candidate: EpisodeCandidate) -> tuple[tuple[str, str], ...]:
    """How the policy of a report is used: captions with code."""
    if candidate.key == "tilt":
        code = (
            'import surpass\n\npolicy = surpass.load("report/policy")\n'
            "actions, propensities = policy.sample(observations)  # log both"
        )
    else:
        code = (
            "from surpass.training.run import load_trained\n\n"
            'policy = load_trained("report/policy")\nactions = policy.predict(observations)'
        )
    return (("In Python", code),)


def figures(
    paid: Tensor, scored: list[Weighed], found: Confirmation | None, best: Weighed
) -> tuple[Figure, ...]:
    """The pictures of a report on episodes: the candidates, and the returns that were played.

    Args:
        scored: all candidates, `best` among them. found: what playing came to, where there was an
            environment.
    """
    rows = [
        {
            "label": s.candidate.label, "value": s.worth, "low": None, "high": None,
            "mark": "tested" if s is best else "muted",
        }
        for s in sorted(scored, key=lambda s: -s.worth)[:10]
        if s.worth > float("-inf")
    ]  # fmt: skip
    caption = (
        f"Gain by fitted Q evaluation on the choosing episodes, returns discounted by {GAMMA}. It "
        "rests on a model and takes no part in the verdict, except to choose what is played."
    )
    out = [Figure("forest", "What a model makes of the candidates", {"rows": rows, "zero": 0.0},
                  caption)]  # fmt: skip
    if found is not None:
        counts, edges = np.histogram(torch.cat([found.returns, found.against]).numpy(), bins=20)
        del counts
        shown = {
            name: np.histogram(x.numpy(), edges)[0].tolist()
            for name, x in (("candidate", found.returns), ("reference", found.against))
        }
        body = [
            {"label": f"{edges[i]:.4g} to {edges[i + 1]:.4g}",
             "values": [shown["reference"][i], shown["candidate"][i]]}
            for i in range(20) if shown["reference"][i] or shown["candidate"][i]
        ]  # fmt: skip
        total = max(len(found.returns), 1)
        for row in body:
            row["values"] = [v / total for v in row["values"]]
        data = {"rows": body, "series": ["reference", "candidate"]}
        out.append(Figure("bars", "Returns, played", data, "Share of episodes by return."))
    return tuple(out)
