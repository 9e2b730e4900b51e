"""Values of choosing one of several candidates that an observation lists: [B, k d], d features of
each of k candidates; a candidate that is not there is NaN, and its value is -1e8.

    Q_i = V + A_i - mean of A over the candidates that are there
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from surpass.critics.ensembles import Critic
from surpass.errors import InputError
from surpass.forms import Spaces
from surpass.parts import part
from surpass.policies.networks import StackedMLP

__all__ = ["ABSENT", "PlacedCandidates", "SharedCandidates", "per_candidate", "per_place"]

ABSENT = -1e8


class _Listed(Critic):
    """Dueling values of listed candidates; features are clipped to +-`clip`."""

    def __init__(self, spaces: Spaces, n: int, hidden: tuple[int, ...], clip: float) -> None:
        k = spaces.n_actions
        if not spaces.discrete or spaces.obs_dim % k:
            raise InputError(
                f"an observation lists as many numbers for each of the candidates: {spaces.obs_dim}"
                f" numbers do not divide into {k or 'continuous actions'}"
            )
        nn.Module.__init__(self)
        self._prepare("scalar", 1, (0.0, 0.0))
        self.n, self.actions, self.clip = n, k, clip
        self.features = spaces.obs_dim // k

    def _every(self, obs: Tensor, first: int | None = None) -> Float[Tensor, "n B A 1"]:
        listed = obs.reshape(-1, self.actions, self.features)
        absent = listed[..., 0].isnan()
        seen = torch.where(absent[..., None], torch.zeros_like(listed), listed)
        value, extra = self.streams(seen.clamp(-self.clip, self.clip), ~absent, first)
        here = (~absent).to(extra.dtype)
        mean = (extra * here).sum(-1, keepdim=True) / here.sum(-1, keepdim=True).clamp(min=1.0)
        q = value + extra - mean
        return torch.where(absent, torch.full_like(q, ABSENT), q)[..., None]

    @abstractmethod
    def streams(
        self, x: Float[Tensor, "B k d"], here: Bool[Tensor, "B k"], first: int | None
    ) -> tuple[Float[Tensor, "n B 1"], Float[Tensor, "n B k"]]:
        """The state's value, and what each candidate adds."""


class PlacedCandidates(_Listed):
    """One net over the whole list, which tells candidates apart by their place."""

    def __init__(
        self, spaces: Spaces, n: int, hidden: tuple[int, ...], head: int, clip: float
    ) -> None:
        super().__init__(spaces, n, hidden, clip)
        reads = spaces.obs_dim + self.actions
        self.trunk = StackedMLP(n, (reads, *hidden), norm=True)
        self.value = StackedMLP(n, (hidden[-1], head, 1))
        self.advantage = StackedMLP(n, (hidden[-1], head, self.actions))

    def streams(
        self, x: Float[Tensor, "B k d"], here: Bool[Tensor, "B k"], first: int | None
    ) -> tuple[Float[Tensor, "n B 1"], Float[Tensor, "n B k"]]:
        inside = self.trunk(torch.cat([x.flatten(1), here.to(x.dtype)], -1), first)
        inside = nn.functional.layer_norm(inside, inside.shape[-1:]).relu()
        return self.value(inside, first), self.advantage(inside, first)


class SharedCandidates(_Listed):
    """One net for every candidate, which sees the mean of all: swapping two candidates swaps their
    values.

    Deep Sets (2017).
    """

    def __init__(
        self, spaces: Spaces, n: int, hidden: tuple[int, ...], head: int, clip: float
    ) -> None:
        super().__init__(spaces, n, hidden, clip)
        self.encoder = StackedMLP(n, (self.features, *hidden), norm=True)
        self.context = StackedMLP(n, (hidden[-1], hidden[-1]))
        self.value = StackedMLP(n, (hidden[-1], head, 1))
        self.advantage = StackedMLP(n, (hidden[-1], head, 1))

    def streams(
        self, x: Float[Tensor, "B k d"], here: Bool[Tensor, "B k"], first: int | None
    ) -> tuple[Float[Tensor, "n B 1"], Float[Tensor, "n B k"]]:
        k = self.actions
        code = self.encoder(x.reshape(-1, self.features), first)  # [n, B k, h]
        code = code.reshape(code.shape[0], -1, k, code.shape[-1])
        mask = here.to(x.dtype)[..., None]
        pooled = (code.relu() * mask).sum(2) / mask.sum(1).clamp(min=1.0)
        aware = (code + self.context(pooled, first)[:, :, None]).relu()
        extra = self.advantage(aware.flatten(1, 2), first)
        return self.value(pooled, first), extra.reshape(extra.shape[0], -1, k)


@part
def per_place(
    spaces: Spaces, /, n: int = 1, hidden: tuple[int, ...] = (256, 256), head: int = 128,
    clip: float = 5.0,
) -> nn.Module:  # fmt: skip
    """Dueling values of listed candidates from one net over the list.

    Dueling Network Architectures for Deep Reinforcement Learning (2015).

    Raises:
        InputError: when observations do not list as many numbers for each action.
    """
    return PlacedCandidates(spaces, n, tuple(hidden), head, clip)


@part
def per_candidate(
    spaces: Spaces, /, n: int = 1, hidden: tuple[int, ...] = (64,), head: int = 64,
    clip: float = 5.0,
) -> nn.Module:  # fmt: skip
    """Dueling values of listed candidates from one net for each of them.

    Raises:
        InputError: when observations do not list as many numbers for each action.
    """
    return SharedCandidates(spaces, n, tuple(hidden), head, clip)
