"""What a gradient rule sees: the terms of a loss, and their gradients, each by itself."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from surpass.errors import InputError, nearest

__all__ = ["Descending"]

Tensors = dict[str, Tensor]


class Descending:
    """The terms of a loss at the trained parameters.

    Attributes:
        terms: their values, by name. parameters: what is trained, by name.
    """

    def __init__(
        self, terms: Tensors, pull: Callable[..., tuple[Tensors]], parameters: Tensors,
        terms_at: Callable[[Tensors], Tensors],
    ) -> None:  # fmt: skip
        self.terms, self.parameters = terms, parameters
        self._pull, self._terms_at = pull, terms_at

    def grad(self, *names: str) -> Tensors:
        """The gradient of the sum of some terms (all, when none is named), by parameter.

        Raises:
            InputError: when the loss has no such term.
        """
        for name in names:
            if name not in self.terms:
                raise InputError(
                    f"a gradient rule asks for the term {name!r}{nearest(name, list(self.terms))}; "
                    f"the loss has {', '.join(self.terms)}"
                )
        wanted = names or tuple(self.terms)
        weights = {
            n: torch.ones_like(v) if n in wanted else torch.zeros_like(v)
            for n, v in self.terms.items()
        }
        return self._pull(weights)[0]

    def at(self, parameters: Tensors) -> Tensors:
        """The terms at other parameters, to be differentiated again."""
        return self._terms_at(parameters)
