"""Sampling answers: batched, with a cache, one log-prob per token as it was sampled.

`generate` gives `Sequences` whose `behavior_logp` agrees with `token_logps` of the same model.
Answers end with the end token or a stop string; what a group of answers shares is computed once.
`converse` lets a model and an environment take turns in one sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from surpass.data.language import collate
from surpass.data.records import Sequences
from surpass.errors import InputError
from surpass.objectives.divergence import entropy, read_out
from surpass.objectives.uncertainty import Heat
from surpass.policies.language import LanguagePolicy
from surpass.policies.llama import FusedLlama, fits
from surpass.policies.token_logps import base_of

__all__ = ["Sampling", "converse", "generate"]


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn.

    Attributes:
        new: most tokens of an answer.
        temperature: of the softmax; None takes the policy's, 0 the likeliest token.
        stop: texts that end an answer once they stand in it (the tokenizer must be known).
        eos: the token that ends an answer; None takes the policy's, -1 none.
        heat: a temperature of each token's own, by its entropy; then answers have the entropies, at
            the policy's temperature, as a column `entropy`, and `behavior_logp` is that of the
            distribution that was sampled, with the heat.
    """

    new: int = 256
    temperature: float | None = None
    stop: tuple[str, ...] = ()
    eos: int | None = None
    heat: Heat | None = None


class _Cached:
    """Any causal language model of transformers with its own cache; the same face as
    `FusedLlama`."""

    def __init__(self, model: nn.Module, padding: Tensor, length: int) -> None:
        from transformers import DynamicCache

        self.model, self.padding = model, padding
        self.cache: Any = DynamicCache(config=base_of(model).config)  # type: ignore[arg-type]
        self.padded = bool(padding.any())

    def feed(self, ids: Tensor, place: int) -> Tensor:
        columns = torch.arange(place + ids.shape[1], device=ids.device)
        named: dict[str, Any] = {}
        if self.padded:
            named["attention_mask"] = (columns >= self.padding[:, None]).long()
        position = (columns[place:] - self.padding[:, None]).clamp_min(0)
        out = self.model(
            input_ids=ids, past_key_values=self.cache, use_cache=True, position_ids=position,
            logits_to_keep=1, **named,
        )  # fmt: skip
        return out.logits[:, -1]

    def repeat(self, times: int) -> None:
        self.cache.batch_repeat_interleave(times)
        self.padding = self.padding.repeat_interleave(times, 0)

    def keep(self, rows: Tensor) -> None:
        self.cache.batch_select_indices(rows)
        self.padding = self.padding[rows]


@torch.no_grad()
def generate(
    policy: LanguagePolicy, prompt: Tensor, prompt_mask: Tensor, sampling: Sampling, *,
    group: int = 1, generator: torch.Generator | None = None,
) -> Sequences:  # fmt: skip
    """Answers to prompts [n, P] padded on the left: `group` in a row to each, n x group rows.

    Raises:
        InputError: when prompt and answer do not fit into the context, or stop strings have no
            tokenizer.
    """
    width = prompt.shape[1]
    if width + sampling.new > policy.context:
        raise InputError(
            f"a prompt of {width} tokens and {sampling.new} new ones do not fit into the model's "
            f"context of {policy.context}; lower horizon"
        )
    if sampling.stop and policy.tokenizer is None:
        raise InputError("stop strings need a tokenizer; give tokenizer=...")
    if policy.sampler is not None:
        if sampling.heat is not None:
            raise InputError("another engine samples all tokens at one temperature; the recipe's "
                             "heat needs sampler='own'")  # fmt: skip
        return policy.sampler.answers(policy, prompt, prompt_mask, sampling, group, generator)
    with policy.gathered(), policy.precise():
        return _answered(policy, prompt, prompt_mask, sampling, group, generator)


def _answered(
    policy: LanguagePolicy, prompt: Tensor, prompt_mask: Tensor, sampling: Sampling, group: int,
    generator: torch.Generator | None,
) -> Sequences:  # fmt: skip
    n, width = prompt.shape
    model = policy.model
    training = model.training
    model.eval()
    try:
        padding = width - prompt_mask.sum(-1).long()
        engine = FusedLlama if fits(model) else _Cached
        state = engine(model, padding, width + sampling.new)
        logits = state.feed(prompt, 0)
        if group > 1:
            state.repeat(group)
            logits = logits.repeat_interleave(group, 0)
        drawn = _sample(policy, state, logits, width, sampling, generator)
    finally:
        model.train(training)
    action, logp, length = drawn[:3]
    used = max(int(length.max()), 1)
    column = torch.arange(used, device=prompt.device)
    mask = (column < length[:, None]).float()
    seen = None if sampling.heat is None else {"entropy": drawn[3][:, :used] * mask}
    return Sequences(
        action=torch.where(mask > 0, action[:, :used], 0), mask=mask,
        behavior_logp=logp[:, :used] * mask,
        prompt=prompt.repeat_interleave(group, 0),
        prompt_mask=prompt_mask.repeat_interleave(group, 0).float(),
        group=torch.arange(n, device=prompt.device).repeat_interleave(group),
        extras=None if seen is None else TensorDict(seen, batch_size=[n * group]),
        batch_size=[n * group],  # pyright: ignore[reportCallIssue]
    )  # fmt: skip


def _sample(
    policy: LanguagePolicy, state: Any, logits: Tensor, width: int, sampling: Sampling,
    generator: torch.Generator | None, whole: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Tokens and log-probs [B, new], the length of each answer, its end token included, and, where
    there is heat, entropies [B, new]; `whole` keeps ended rows in the cache."""
    b, device = len(logits), logits.device
    temperature = policy.temperature if sampling.temperature is None else sampling.temperature
    eos = policy.eos if sampling.eos is None else sampling.eos
    action = torch.zeros(b, sampling.new, dtype=torch.long, device=device)
    logp, entropies = (torch.zeros(b, sampling.new, device=device) for _ in range(2))
    length = torch.full((b,), sampling.new, device=device)
    rows = torch.arange(b, device=device)  # of the answers that go on
    going = torch.ones(b, dtype=torch.bool, device=device)
    stops = _Stops(policy.tokenizer, sampling.stop) if sampling.stop else None
    for t in range(sampling.new):
        warmth: Any = temperature
        if sampling.heat is not None and temperature > 0:
            unsure = _entropy(logits.float() / temperature)
            entropies[rows, t] = unsure
            warmth = temperature * sampling.heat.factor(unsure)[:, None]
        token, chosen = _draw(logits.float(), warmth, generator)
        action[rows, t], logp[rows, t] = token, chosen
        over = torch.zeros_like(going) if eos is None or eos < 0 else token == eos
        if stops is not None:
            over = over | stops.reached(action[rows, : t + 1], going)
        length[rows[going & over]] = t + 1
        going = going & ~over
        left = int(going.sum())
        if left == 0 or t + 1 == sampling.new:
            break
        if not whole and left <= 0.5 * len(going) and len(going) >= 8:  # go on without the ended
            keep = going.nonzero()[:, 0]
            state.keep(keep)
            rows, token, going = rows[keep], token[keep], going[keep]
        logits = state.feed(token[:, None], width + t)
    return action, logp, length, entropies


def _entropy(logits: Tensor) -> Tensor:
    return entropy(read_out(logits, torch.zeros_like(logits[:, 0], dtype=torch.long), ("mean",)))


def _draw(
    logits: Tensor, temperature: float | Tensor, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """A token and its log-prob, at one temperature or at one of each row's own, [n, 1]."""
    if isinstance(temperature, Tensor):
        logits, temperature = logits / temperature, 1.0
    if temperature <= 0:
        token = logits.argmax(-1)
        return token, torch.zeros_like(logits[:, 0])
    logp = (logits if temperature == 1 else logits / temperature).log_softmax(-1)
    heap = logp.exp().cumsum(-1)
    u = torch.rand(len(logits), 1, generator=generator, device=logits.device) * heap[:, -1:]
    # The first place whose sum exceeds u: a token of probability 0 is never that.
    token = torch.searchsorted(heap, u, right=True).clamp(max=logits.shape[1] - 1)
    return token[:, 0], logp.gather(1, token)[:, 0]


class _Stops:
    """Whether an answer holds a stop string: its last tokens are made text again."""

    def __init__(self, tokenizer: Any, stop: tuple[str, ...]) -> None:
        self.tokenizer, self.stop = tokenizer, stop
        self.window = max(len(s) for s in stop) + 4

    def reached(self, action: Tensor, going: Tensor) -> Tensor:
        tails = self.tokenizer.batch_decode(action[going, -self.window :].tolist())
        found = torch.zeros_like(going)
        found[going] = torch.tensor(
            [any(s in tail for s in self.stop) for tail in tails], device=going.device
        )
        return found


# ------------------------------------------------------------------------------------ turns

Reply = Callable[[int, list[int]], Sequence[int] | None]


@torch.no_grad()
def converse(
    policy: LanguagePolicy, prompts: Iterable[Sequence[int]], reply: Reply, sampling: Sampling, *,
    turns: int = 4, generator: torch.Generator | None = None,
) -> Sequences:  # fmt: skip
    """Sequences in which the model and an environment take turns.

    Args:
        reply: from the number of a row and the tokens of its last turn to the tokens that the
            environment writes next, or None to end the row. They are seen by the model and masked
            out of loss, ratio and entropy.
        turns: most turns of the model.

    `Sequences.turn` numbers the model's turns from 0, and is -1 where the environment wrote.
    """
    talk = _Talk([list(p) for p in prompts])
    open_rows = list(range(len(talk.prompts)))
    speak = _speaker(policy, talk, sampling, generator)
    for number in range(turns):
        still_open = []
        for i, (said, logp) in zip(open_rows, speak(open_rows), strict=True):
            talk.add(i, said, logp, number)
            answer = reply(i, said) if number + 1 < turns else None
            if answer is None:
                continue
            if len(talk.tokens(i)) + len(answer) + sampling.new > policy.context:
                continue
            talk.add(i, list(answer))
            still_open.append(i)
        open_rows = still_open
        if not open_rows:
            break
    seq = collate(talk.prompts, talk.action, talk.mask).to(policy.device)
    seq.turn = _ragged(talk.turn, -1).to(policy.device)
    seq.behavior_logp = _ragged(talk.logp, 0.0).to(policy.device)
    return seq


class _Talk:
    """What was said in each row, as lists."""

    def __init__(self, prompts: list[list[int]]) -> None:
        self.prompts = prompts
        self.action: list[list[int]] = [[] for _ in prompts]
        self.mask: list[list[int]] = [[] for _ in prompts]
        self.turn: list[list[int]] = [[] for _ in prompts]
        self.logp: list[list[float]] = [[] for _ in prompts]

    def tokens(self, i: int) -> list[int]:
        """All of a row."""
        return self.prompts[i] + self.action[i]

    def add(self, i: int, said: list[int], logp: list[float] | None = None, turn: int = -1) -> None:
        """What the model said, with its log-probs, or what the environment wrote."""
        self.action[i] += said
        self.mask[i] += [int(logp is not None)] * len(said)
        self.turn[i] += [turn] * len(said)
        self.logp[i] += [0.0] * len(said) if logp is None else logp


Said = tuple[list[int], list[float]]


def _speaker(
    policy: LanguagePolicy, talk: _Talk, sampling: Sampling, generator: torch.Generator | None
) -> Callable[[list[int]], list[Said]]:
    """Gives the next turn of the model in some rows: tokens and log-probs."""
    if policy.sampler is None and policy.precision is None and fits(policy.model):
        return _Listening(policy, talk, sampling, generator)

    def speak(rows: list[int]) -> list[Said]:
        context = collate([talk.tokens(i) for i in rows], [[0]] * len(rows))
        assert context.prompt is not None and context.prompt_mask is not None
        done = generate(
            policy, context.prompt.to(policy.device), context.prompt_mask.to(policy.device),
            sampling, generator=generator,
        )  # fmt: skip
        assert done.behavior_logp is not None
        return _said(done.action, done.behavior_logp, done.mask.sum(-1).long())

    return speak


def _said(action: Tensor, logp: Tensor, length: Tensor) -> list[Said]:
    rows = zip(action.tolist(), logp.tolist(), length.tolist(), strict=True)
    return [(a[:n], p[:n]) for a, p, n in rows]


class _Listening:
    """Speaks in turns with one cache: of what was said before, only what is new is computed.

    After a turn rows differ in length; what the cache holds is moved until they end in one column,
    and the last tokens of each row, as many as the row with most new ones has, are run.
    """

    def __init__(
        self, policy: LanguagePolicy, talk: _Talk, sampling: Sampling,
        generator: torch.Generator | None,
    ) -> None:  # fmt: skip
        self.policy, self.talk = policy, talk
        self.sampling, self.generator = sampling, generator
        self.state: FusedLlama | None = None
        self.rows: list[int] = []
        self.held: dict[int, int] = {}  # tokens of each row in the cache

    def __call__(self, rows: list[int]) -> list[Said]:
        device = self.policy.device
        texts = [self.talk.tokens(i) for i in rows]
        width = max(map(len, texts))
        if width + self.sampling.new > self.policy.context:
            raise InputError(
                f"a prompt of {width} tokens and {self.sampling.new} new ones do not fit into the "
                f"model's context of {self.policy.context}; lower horizon"
            )
        padding = torch.tensor([width - len(t) for t in texts], device=device)
        new = max(len(t) - self.held.get(i, 0) for i, t in zip(rows, texts, strict=True))
        model = self.policy.model
        with self.policy.gathered():
            if self.state is None:
                self.state = FusedLlama(model, padding, width + self.sampling.new)
            else:
                place = {i: k for k, i in enumerate(self.rows)}
                if len(rows) < len(self.rows):
                    self.state.keep(torch.tensor([place[i] for i in rows], device=device))
                self.state.moved(padding, width + self.sampling.new)
            last = [[0] * (new - len(t)) + t[-new:] for t in texts]
            logits = self.state.feed(torch.tensor(last, device=device), width - new)
            action, logp, length, _ = _sample(
                self.policy, self.state, logits, width, self.sampling, self.generator, whole=True
            )
        self.rows = rows
        # The last token of a turn was not run; those behind the end of a short turn do not count.
        said = _said(action, logp, length)
        self.held = {i: len(t) + len(s[0]) - 1 for i, t, s in zip(rows, texts, said, strict=True)}
        return said


def _ragged(rows: list[Any], fill: Any) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])
