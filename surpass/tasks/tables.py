"""Language tasks so small that every expectation is exact: all responses can be listed.

A response has exactly L tokens of a vocabulary of V; a policy is a table of logits with one row per
prompt and prefix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from surpass.data.records import About, Sequences
from surpass.errors import InputError
from surpass.tasks.language import Prompts
from surpass.tasks.tabular import draw

__all__ = ["Exact", "TableTask", "lock_table", "random_tree", "sumtriple_table"]


class Exact(NamedTuple):
    """What is true of a table policy, per prompt [X]; differentiable in the logits.

    `success` is the expected reward, `entropy` that of whole responses (nats), `logp` [X, V^L] the
    log-probability of every response, `solutions` the effective number of right responses: exp of
    the entropy of the policy given success.
    """

    success: Tensor
    entropy: Tensor
    logp: Tensor
    solutions: Tensor


@dataclass(frozen=True, eq=False)
class TableTask:
    """Prompts 0 .. X-1, responses of `length` tokens out of `vocab`, and a reward for each.

    Attributes:
        name: of the task.
        summary: what it is, in a line.
        vocab: V.
        length: L.
        rewards: [X, V^L]; the number of a response reads its tokens as digits in base V, first
            token first.
    """

    name: str
    summary: str
    vocab: int
    length: int
    rewards: Tensor

    def __post_init__(self) -> None:
        if self.rewards.dim() != 2 or self.rewards.shape[1] != self.vocab**self.length:
            raise InputError(
                f"rewards must be [X, {self.vocab**self.length}], got {tuple(self.rewards.shape)}"
            )

    @property
    def n_prompts(self) -> int:
        """X."""
        return self.rewards.shape[0]

    @property
    def prefixes(self) -> int:
        """Prefixes of one prompt: 1 + V + ... + V^(L-1)."""
        return sum(self.vocab**i for i in range(self.length))

    @property
    def rows(self) -> int:
        """Rows of a policy's table: X * prefixes."""
        return self.n_prompts * self.prefixes

    def responses(self) -> Int[Tensor, "K L"]:
        """All V^L responses, in the order of `rewards`."""
        number = torch.arange(self.vocab**self.length)
        powers = self.vocab ** torch.arange(self.length - 1, -1, -1)
        return number[:, None] // powers % self.vocab

    def row(self, prompt: Int[Tensor, "B"], response: Int[Tensor, "B L"]) -> Int[Tensor, "B L"]:
        """The table row that decides each token of a response."""
        prefix = torch.zeros_like(prompt)
        start, out = 0, []
        for i in range(self.length):
            out.append(prompt * self.prefixes + start + prefix)
            start += self.vocab**i
            prefix = prefix * self.vocab + response[:, i]
        return torch.stack(out, 1)

    def prompts(self, n: int, generator: torch.Generator | None = None) -> Prompts:
        """n prompts, one token each: the number of the prompt, which is also their `kind`."""
        x = torch.randint(self.n_prompts, (n,), generator=generator)
        return Prompts(x[:, None], torch.ones(n, 1), x)

    def verify(self, prompt: Tensor, response: Tensor, mask: Tensor | None = None) -> Tensor:
        """The reward [B] of each response [B, L] to prompts [B] or [B, 1]."""
        powers = self.vocab ** torch.arange(self.length - 1, -1, -1)
        return self.rewards[prompt.reshape(-1), (response * powers).sum(-1)].float()

    def sample(
        self,
        logits: Float[Tensor, "R V"],
        prompts: Prompts,
        generator: torch.Generator | None = None,
    ) -> Sequences:
        """Responses drawn from a table policy, with exact log-probs, rewarded at the last token."""
        x, n = prompts.tokens[:, 0], prompts.tokens.shape[0]
        logp_table = logits.detach().log_softmax(-1)
        response = torch.zeros(n, self.length, dtype=torch.long)
        logp = torch.zeros(n, self.length, dtype=logits.dtype)
        for i in range(self.length):
            at = self.row(x, response)[:, i]
            response[:, i] = draw(logp_table[at].exp(), generator)
            logp[:, i] = logp_table[at, response[:, i]]
        reward = torch.zeros(n, self.length)
        reward[:, -1] = self.verify(x, response)
        return Sequences(
            action=response,
            mask=torch.ones(n, self.length),
            reward=reward,
            behavior_logp=logp,
            prompt=prompts.tokens,
            prompt_mask=prompts.mask,
            batch_size=[n],  # type: ignore[call-arg]
        ).described(About(name=self.name, actions=tuple(str(i) for i in range(self.vocab))))

    def log_probs(self, logits: Float[Tensor, "R V"]) -> Float[Tensor, "X K"]:
        """The log-probability of every response to every prompt."""
        table = logits.log_softmax(-1)
        responses = self.responses()
        total = torch.zeros(self.n_prompts, len(responses), dtype=logits.dtype)
        rows = [
            self.row(torch.full((len(responses),), x), responses) for x in range(self.n_prompts)
        ]
        at = torch.stack(rows)
        for i in range(self.length):
            total = total + table[at[..., i], responses[:, i]]
        return total

    def truth(self, logits: Float[Tensor, "R V"]) -> Exact:
        """The exact success, entropy and diversity of a table policy, for each prompt."""
        logp = self.log_probs(logits)
        p, rewards = logp.exp(), self.rewards.to(logp.dtype)
        success = (p * rewards).sum(-1)
        given = p * rewards / success.clamp_min(1e-300)[:, None]
        diversity = -torch.xlogy(given, given).sum(-1)
        return Exact(success, -(p * logp).sum(-1), logp, diversity.exp())

    def uniform(self, dtype: torch.dtype = torch.float64) -> Float[Tensor, "R V"]:
        """The logits of the uniform policy."""
        return torch.zeros(self.rows, self.vocab, dtype=dtype)

    def warm_start(self, success: float, dtype: torch.dtype = torch.float64) -> Tensor:
        """Logits with the given expected reward: the uniform policy, tilted toward right responses.

        Every row prefers the tokens in proportion to exp(c x the share of right responses behind
        each); c is found by bisection, to 1e-9 in the mean success over prompts.

        Raises:
            InputError: when no tilt reaches that success.
        """
        share = self._shares(dtype)
        low, high = -1e4, 1e4
        reach = [float(self.truth(c * share).success.mean()) for c in (low, high)]
        if not reach[0] <= success <= reach[1]:
            raise InputError(f"success must lie between {reach[0]:.4g} and {reach[1]:.4g}")
        for _ in range(200):
            middle = (low + high) / 2
            got = float(self.truth(middle * share).success.mean())
            low, high = (middle, high) if got < success else (low, middle)
            if abs(got - success) < 1e-9:
                break
        return (low + high) / 2 * share

    def _shares(self, dtype: torch.dtype) -> Tensor:
        """For every row and token, the share of right responses behind it; a row's largest is 1."""
        X, V, L = self.n_prompts, self.vocab, self.length
        levels = []
        for i in range(L):
            behind = self.rewards.to(dtype).reshape(X, V**i, V, V ** (L - 1 - i)).mean(-1)
            levels.append(behind / behind.max(-1, keepdim=True).values.clamp_min(1e-300))
        return torch.cat(levels, 1).reshape(self.rows, V)


def sumtriple_table() -> TableTask:
    """`sumtriple-table`: prompt t in 0..9, three digits whose sum modulo 10 is t (100 of 1000)."""
    number = torch.arange(1000)
    total = (number // 100 + number // 10 % 10 + number % 10) % 10
    rewards = (total[None] == torch.arange(10)[:, None]).double()
    summary = "three digits whose sum modulo 10 is the prompt (a table, all exact)"
    return TableTask("sumtriple-table", summary, 10, 3, rewards)


def lock_table(vocab: int = 10, length: int = 3, prompts: int = 1, seed: int = 0) -> TableTask:
    """`lock-table`: one right response per prompt; a uniform policy succeeds with V^-L."""
    code = torch.randint(vocab**length, (prompts,), generator=torch.Generator().manual_seed(seed))
    rewards = torch.zeros(prompts, vocab**length, dtype=torch.float64)
    rewards[torch.arange(prompts), code] = 1.0
    summary = "one right response per prompt (a table, all exact)"
    return TableTask("lock-table", summary, vocab, length, rewards)


def random_tree(
    vocab: int = 4, length: int = 6, share: float = 0.05, prompts: int = 1, seed: int = 0
) -> TableTask:
    """`tree-table`: a random `share` of the responses, at least one, is right."""
    generator = torch.Generator().manual_seed(seed)
    right = max(1, round(share * vocab**length))
    order = torch.rand(prompts, vocab**length, generator=generator).argsort(-1)
    rewards = (order < right).double()
    return TableTask(
        "tree-table", "a random share of all responses is right", vocab, length, rewards
    )
