"""Masked diffusion over sequences of L letters out of V: every place is masked, then revealed.

At step i of F each place that is still masked is revealed with chance 1 / (F - i), drawn from
p(. | what is seen). Simple and Effective Masked Diffusion Language Models (2024), with its
log-linear schedule; the net does not read the time, which what is masked already tells.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import mish, one_hot

from surpass.errors import InputError
from surpass.forms import Spaces
from surpass.objectives.concrete_scores import Scored, checked
from surpass.parts import part

__all__ = ["MaskedDiffusion", "MaskedPath", "masked_diffusion"]


class MaskedDiffusion(nn.Module):
    """A residual perceptron over whole sequences; the decisions are the letters of the end.

    The score of a neighbor is s(x)_y = p(v | x without place i) / p(x_i | x without place i). With
    `leave_out` it comes from L passes with that place masked, as the net was trained; else, as in
    SEPO, from one pass over x as it stands: the net was never trained on places that it sees, but
    what moves its letters there moves them elsewhere too.
    """

    def __init__(
        self, obs_dim: int, length: int, letters: int, hidden: int, blocks: int, steps: int,
        leave_out: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.length, self.letters, self.steps = length, letters, steps
        self.leave_out = leave_out
        self.first = nn.Linear(obs_dim + length * (letters + 1), hidden)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(blocks))
        self.wide = nn.ModuleList(nn.Linear(hidden, 2 * hidden) for _ in range(blocks))
        self.back = nn.ModuleList(nn.Linear(2 * hidden, hidden) for _ in range(blocks))
        self.last = nn.Linear(hidden, length * letters)

    def letter_logp(
        self, obs: Float[Tensor, "N d"], tokens: Int[Tensor, "N L"]
    ) -> Float[Tensor, "N L V"]:
        """log p(. | seen) of every place; letter V is the mask."""
        seen = one_hot(tokens, self.letters + 1).to(obs.dtype).flatten(-2)
        hidden = self.first(torch.cat([obs, seen], -1))
        for norm, wide, back in zip(self.norms, self.wide, self.back, strict=True):
            hidden = hidden + back(mish(wide(norm(hidden))))
        out = self.last(mish(hidden)).unflatten(-1, (self.length, self.letters))
        return out.log_softmax(-1)

    def imitation(self, obs: Float[Tensor, "B d"], action: Int[Tensor, "B L"]) -> Tensor:
        """1/t times the cross-entropy of masked places, each masked with chance t ~ U(0, 1]: on
        average a bound on -log p(x), in nats, [B]."""
        action = action.long()
        t = 1.0 - torch.rand(action.shape[0], 1, device=action.device)
        hidden = torch.rand(action.shape, device=action.device) < t
        logp = self.letter_logp(obs, torch.where(hidden, self.letters, action))
        own = logp.gather(-1, action[..., None])[..., 0]
        return -(own * hidden / t).sum(-1)

    # ------------------------------------------------------------------------------------------
    # drawing

    def _revealed(
        self, obs: Tensor, tokens: Int[Tensor, "N L"], i: int
    ) -> tuple[Tensor, Float[Tensor, "N"]]:
        """The tokens after step i, and the log-probability of the letters that it revealed."""
        logp = self.letter_logp(obs, tokens)
        uniform = torch.rand_like(logp).clamp(1e-12, 1 - 1e-7)
        letters = (logp - torch.log(-torch.log(uniform))).argmax(-1)
        shown = torch.rand(tokens.shape, device=obs.device) < 1.0 / (self.steps - i)
        shown = shown & (tokens == self.letters)
        own = logp.gather(-1, letters[..., None])[..., 0]
        return torch.where(shown, letters, tokens), (own * shown).sum(-1)

    def _start(self, obs: Tensor) -> Tensor:
        shape = (obs.shape[0], self.length)
        return torch.full(shape, self.letters, dtype=torch.long, device=obs.device)

    @torch.no_grad()
    def sample(self, obs: Float[Tensor, "B d"], samples: int | None = None) -> tuple[Tensor, None]:
        """Sequences [B, L], or [m, B, L]."""
        if samples is not None:
            return torch.stack([self.sample(obs)[0] for _ in range(samples)]), None
        tokens = self._start(obs)
        for i in range(self.steps):
            tokens, _ = self._revealed(obs, tokens, i)
        return tokens, None

    def walk(self, obs: Float[Tensor, "B d"]) -> tuple[Tensor, dict[str, Tensor]]:
        """Finished sequences, and their letters as decisions, [B, L]."""
        tokens, _ = self.sample(obs)
        wide = obs[:, None].expand(-1, self.length, -1)
        return tokens, {"obs": wide, "action": tokens, "mask": torch.ones_like(wide[..., 0])}

    def forward(self, obs: Float[Tensor, "B d"]) -> Int[Tensor, "B L"]:
        """Place by place from the left, the most probable letter."""
        tokens = self._start(obs)
        for i in range(self.length):
            best = self.letter_logp(obs, tokens).argmax(-1)
            place = torch.arange(self.length, device=obs.device) == i
            tokens = torch.where(place, best, tokens)
        return tokens

    # ------------------------------------------------------------------------------------------
    # scoring

    def table(self, obs: Float[Tensor, "N d"], tokens: Int[Tensor, "N L"]) -> Tensor:
        """log s(x)_y of every neighbor, [N, L, V]."""
        if self.leave_out:
            place = torch.eye(self.length, dtype=torch.bool, device=tokens.device)
            without = torch.where(place, self.letters, tokens[:, None])  # [N, L, L]
            many = obs[:, None].expand(-1, self.length, -1)
            logp = self.letter_logp(many.flatten(0, 1), without.flatten(0, 1))
            logp = logp.unflatten(0, (-1, self.length))
            logp = (logp * place[..., None]).sum(2)  # each place from its own pass
        else:
            logp = self.letter_logp(obs, tokens)
        return logp - logp.gather(-1, tokens[..., None])

    def scored(
        self, obs: Float[Tensor, "B L d"], action: Int[Tensor, "B L"], needs: tuple[Any, ...]
    ) -> tuple[Float[Tensor, "B L"], dict[str, Tensor]]:
        """log p(x_i | x without place i), and the statistics that parts need."""
        tokens, first = action.long(), obs[:, 0]
        table = self.table(first, tokens)

        def again(further: Tensor) -> Tensor:
            many = first.repeat_interleave(further.shape[0] // first.shape[0], 0)
            return self.table(many, further)

        seen = Scored(tokens, table, again)
        found = {n.__name__: checked(lambda need: need(seen), n, self) for n in needs}
        return -table.logsumexp(-1), found


class MaskedPath(MaskedDiffusion):
    """The same model, whose decisions are the steps that reveal letters: [B, F], each an action of
    L letters, what is still masked standing as V. The places are revealed by chance, whatever the
    net says, so the log-probability of a step is that of its letters."""

    @torch.no_grad()
    def walk(self, obs: Float[Tensor, "B d"]) -> tuple[Tensor, dict[str, Tensor]]:
        """Finished sequences, and the steps that led there."""
        tokens, rows = self._start(obs), []
        for i in range(self.steps):
            after, logp = self._revealed(obs, tokens, i)
            seen = torch.cat([obs, tokens.to(obs.dtype)], -1)
            rows.append((seen, after, logp, torch.ones_like(logp)))
            tokens = after
        names = ("obs", "action", "behavior_logp", "mask")
        columns = {
            n: torch.stack(v, 1) for n, v in zip(names, zip(*rows, strict=True), strict=True)
        }
        return tokens, columns

    def scored(
        self, obs: Float[Tensor, "B F e"], action: Int[Tensor, "B F L"], needs: tuple[Any, ...]
    ) -> tuple[Float[Tensor, "B F"], dict[str, Tensor]]:
        """The log-probability of every step; a path has no further statistics."""
        for need in needs:
            raise InputError(f"a path of reveals has no {need.__name__}")
        flat, after = obs.flatten(0, 1), action.flatten(0, 1).long()
        before = flat[:, -self.length :].round().long()
        logp = self.letter_logp(flat[:, : -self.length], before)
        shown = (before == self.letters) & (after != self.letters)
        letters = torch.where(shown, after, 0)
        own = logp.gather(-1, letters[..., None])[..., 0]
        return (own * shown).sum(-1).reshape(obs.shape[:2]), {}


@part
def masked_diffusion(
    spaces: Spaces, /, hidden: int = 256, blocks: int = 2, steps: int | None = None,
    path: bool = False, leave_out: bool = False,
) -> nn.Module:  # fmt: skip
    """A generator of sequences: `spaces` has V actions and `extras["agents"]` = L letters. `steps`
    reveal all (L where not given); with `path` these are the decisions, else the letters are.

    Raises:
        InputError: when the task does not ask for several discrete letters at once.
    """
    length = int(spaces.extras.get("agents", 0))
    if not spaces.discrete or length < 2:
        raise InputError("masked diffusion writes sequences: a task with several discrete letters")
    kind = MaskedPath if path else MaskedDiffusion
    many = length if steps is None else steps
    return kind(spaces.obs_dim, length, spaces.n_actions, hidden, blocks, many, leave_out)
