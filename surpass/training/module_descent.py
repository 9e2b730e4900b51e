"""Gradient rules on language models: what a rule sees of a batch that may be in pieces.

A rule (`surpass.objectives.descent`) asks for the gradient of some of the loss's terms, by name.
The terms are differentiated down to the log-probs of the batch, and from there down to the
parameters, piece by piece where the batch is in pieces: the same gradients in any number of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from surpass.data.records import Sequences
from surpass.errors import InputError
from surpass.policies.language import LanguagePolicy
from surpass.policies.token_logps import TokenStats
from surpass.training.pieces import leaves_of, pieces_of, score_all, slice_rows

__all__ = ["ModuleDescent", "descent_of", "descent_of_terms"]

Pull = Callable[[Tensor], list[Tensor | None]]


class ModuleDescent:
    """The terms of a loss, and their gradients with respect to a module's trained parameters.

    Args:
        terms: by name, scalars with their graphs.
        parameters: by name.
        pull: the gradients of a scalar with respect to the parameters, None where it has none; the
            graph of the terms is kept.
    """

    def __init__(
        self, terms: Mapping[str, Tensor], parameters: dict[str, Tensor], pull: Pull
    ) -> None:
        self._graph, self._pull = dict(terms), pull
        self.terms = {name: value.detach() for name, value in terms.items()}
        self.parameters = parameters

    def grad(self, *names: str) -> dict[str, Tensor]:
        """The gradient of the sum of some terms (all, when none is named), by parameter name.

        Raises:
            InputError: on a term that the loss does not have.
        """
        unknown = [n for n in names if n not in self._graph]
        if unknown:
            raise InputError(f"a gradient rule asks for the term {unknown[0]!r}; the loss "
                             f"has {', '.join(self._graph)}")  # fmt: skip
        value = torch.stack([self._graph[n] for n in names or tuple(self._graph)]).sum()
        found = self._pull(value) if value.requires_grad else [None] * len(self.parameters)
        return {
            name: torch.zeros_like(p) if g is None else g
            for (name, p), g in zip(self.parameters.items(), found, strict=True)
        }

    def at(self, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        """Terms at other parameters: language models do not give them."""
        raise InputError(
            "this gradient rule looks at the loss elsewhere than at the parameters, which language "
            "models do not run"
        )


def trained_of(module: nn.Module) -> dict[str, Tensor]:
    """The parameters that are trained, by name."""
    return {n: p for n, p in module.named_parameters() if p.requires_grad}


def descent_of_terms(terms: Mapping[str, Tensor], module: nn.Module) -> ModuleDescent:
    """What a rule sees of terms whose graph goes down to a module's parameters."""
    parameters = trained_of(module)

    def pull(value: Tensor) -> list[Tensor | None]:
        wanted = list(parameters.values())
        return list(torch.autograd.grad(value, wanted, retain_graph=True, allow_unused=True))

    return ModuleDescent(terms, parameters, pull)


def descent_of(
    policy: LanguagePolicy, seq: Sequences, loss: Callable[[TokenStats], Any], size: int,
    needs: tuple[Any, ...], known: TokenStats | None = None,
) -> ModuleDescent:  # fmt: skip
    """What a rule sees of a batch, `size` rows at a time.

    Args:
        loss: of the log-probs of all rows; gives terms by name.
    """
    if size >= len(seq):
        return descent_of_terms(loss(policy.score(seq, needs)), policy.model)
    parameters = trained_of(policy.model)
    stats = known if known is not None else score_all(policy, seq, size, needs)
    leaves = leaves_of(stats)
    names = list(leaves.statistics)
    targets = [leaves.logp, *(leaves.statistics[n] for n in names)]

    def pull(value: Tensor) -> list[Tensor | None]:
        wanted = list(parameters.values())
        total: list[Tensor | None] = [None] * len(wanted)
        grads = torch.autograd.grad(value, targets, retain_graph=True, allow_unused=True)
        for start, end in pieces_of(seq, size):
            here = policy.score(slice_rows(seq, start, end), needs)
            outputs = [here.logp, *(here.statistics[n] for n in names)]
            used = [(o, g[start:end]) for o, g in zip(outputs, grads, strict=True) if g is not None]
            found = torch.autograd.grad(
                [o for o, _ in used], wanted, [g for _, g in used], allow_unused=True
            )
            total = [b if a is None else a if b is None else a + b
                     for a, b in zip(total, found, strict=True)]  # fmt: skip
        return total

    return ModuleDescent(loss(leaves), parameters, pull)
