"""Policies that choose among listed candidates, as one module from raw features to scores: what a
sidecar serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surpass.errors import InputError, atomic, extra
from surpass.policies.onnx_graph import Graph

__all__ = ["CandidateScores", "candidate_scores", "save_scores"]


class CandidateScores(nn.Module):
    """scores [B, k] of k candidates with d raw features each, [B, k, d]; NaN features stand for a
    candidate that is not there, whose score is -1e8.

    Args:
        q: gives the values [n, B, k] of observations [B, k d] by `q.all`; the mean over n counts.
        mean, std: of the raw features [k d], or None where `q` reads them as they are.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, q: nn.Module, candidates: int, features: int, mean: Tensor | None = None,
        std: Tensor | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.q, self.candidates, self.features = q, candidates, features
        width = candidates * features
        self.register_buffer("mean", torch.zeros(width) if mean is None else mean.detach().clone())
        self.register_buffer("std", torch.ones(width) if std is None else std.detach().clone())

    def forward(self, raw: Float[Tensor, "B k d"]) -> Float[Tensor, "B k"]:
        standard = (raw.flatten(1) - self.mean) / self.std
        values: Any = self.q.all  # type: ignore[union-attr]
        return values(standard).mean(0)


def candidate_scores(trained: Any, net: str = "q") -> CandidateScores:
    """The scores of a trained recipe whose actions are listed candidates, such as "cold-rl".

    Raises:
        InputError: when its nets do not score candidates.
    """
    q = dict(getattr(trained, "nets", {})).get(net)
    k, d = getattr(q, "actions", 0), getattr(q, "features", 0)
    if q is None or not k or not d:
        raise InputError(f"the net {net!r} of this policy does not score listed candidates; "
                         "cold-rl and cold-rl:shared do")  # fmt: skip
    return CandidateScores(q, k, d, trained.policy.mean, trained.policy.std).eval()


def save_scores(scores: CandidateScores, path: str | Path, tolerance: float = 1e-4) -> Path:
    """Write the scores as an ONNX graph, input `candidates` [rows, k, d], output `scores` [rows, k]
    (both float), once ONNX Runtime gives what the module gives.

    Raises:
        MissingExtra: when onnx or onnxruntime is not installed.
        InputError: when the net has no ONNX translation, or differs by more than the tolerance.
    """
    k, d = scores.candidates, scores.features
    graph = Graph(taken=("candidates", "scores"))
    value = graph.input("candidates", "float32", ("rows", k, d))
    example = scores.mean.reshape(k, d) + scores.std.reshape(k, d) * torch.randn(3, k, d)
    example[1, k // 2 + 1 :] = float("nan")
    out = graph.add_module(scores, [example], [value])
    graph.output(out, "scores", "float32", ("rows", k))
    payload = graph.model("candidate scores", {"candidates": str(k), "features": str(d)})
    session = extra("onnxruntime").InferenceSession(payload, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        want = scores(example)
    found = torch.as_tensor(session.run(None, {"candidates": example.numpy()})[0])
    here = ~example[..., 0].isnan()
    apart = float((found - want)[here].abs().max())
    if not apart <= tolerance:
        raise InputError(f"the exported scores differ by {apart:g}, more than {tolerance:g}")
    with atomic(path) as temporary:
        temporary.write_bytes(payload)
    return Path(path)
