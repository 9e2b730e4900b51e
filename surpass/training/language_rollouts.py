"""Fresh answers of the policy to prompts, judged: the stream of policy gradients and online
preferences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from surpass.critics.verifiers import Answered, Reward
from surpass.data.language import LanguageLog, collate
from surpass.data.records import Pairs, Sequences
from surpass.errors import InputError
from surpass.forms import Source
from surpass.objectives.advantage import at_last, group_mean, with_columns
from surpass.objectives.uncertainty import Heat
from surpass.policies.generation import Sampling, converse, generate
from surpass.policies.language import LanguagePolicy
from surpass.policies.sharding import agreed, rank, world
from surpass.training.language_replay import Replay
from surpass.training.language_streams import Batch, RowStream
from surpass.training.pieces import joined
from surpass.training.prompt_pool import PromptPool

__all__ = ["Fresh", "Judge", "LogPrompts", "RolloutStream", "TaskPrompts", "best_and_worst"]


@dataclass(frozen=True)
class Asked:
    """Prompts of one batch, [n, P], padded on the left; `rows` are those of the log."""

    prompt: Tensor
    mask: Tensor
    rows: list[int]

    def share(self) -> Asked:
        """Those that this process answers."""
        own = slice(rank(), None, world())
        return Asked(self.prompt[own], self.mask[own], self.rows[own])


Answer = tuple[list[int], list[float]]  # tokens, and 1 at those that are no wrapping


class TaskPrompts:
    """Prompts that a task with an exact verifier draws anew each time; a task may take turns."""

    def __init__(self, task: Any, seed: int, device: Any = "cpu") -> None:
        self.task, self.device = task, device
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self, n: int) -> Asked:
        """n prompts."""
        drawn = self.task.prompts(n, self.generator)
        return Asked(drawn.tokens.to(self.device), drawn.mask.to(self.device), [])

    def judge(self, seq: Sequences, rows: list[int]) -> tuple[Tensor, int]:
        """The reward of each sequence, [B], and how many could not be judged."""
        prompt, action, mask = (x.cpu() for x in (seq.prompt, seq.action, seq.mask))  # type: ignore[union-attr]
        pad = self.task.vocabulary.pad if hasattr(self.task, "vocabulary") else 0
        filled = torch.where(mask > 0, action, pad)
        return self.task.verify(prompt, filled, mask).float().to(self.device), 0

    @property
    def reply(self) -> Any:
        """What answers the model between its turns, where the task takes turns; else None."""
        if not hasattr(self.task, "reply"):
            return None
        return lambda prompt, said: self.task.reply(prompt, said, self.generator)

    def text(self, ids: list[int], row: int | None = None) -> str:
        """Tokens as a person reads them."""
        if hasattr(self.task, "text"):
            return self.task.text(ids)
        words = getattr(self.task, "vocabulary", None)
        return " ".join(map(str, ids)) if words is None else words.decode(ids)

    def answers(self, seq: Sequences, rows: list[int], wrap: tuple[str, str]) -> list[Answer]:
        """The right answer to each prompt as the policy would write it; a task wraps it itself."""
        if not hasattr(self.task, "wrapped_answer"):
            raise InputError(f"the recipe asks for right answers, and {self.task.name} names none")
        assert seq.prompt is not None
        tokens, own = self.task.wrapped_answer(seq.prompt.cpu())
        return list(zip(tokens.tolist(), own.tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state().tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.generator.set_state(torch.tensor(state["generator"], dtype=torch.uint8))


class LogPrompts:
    """Prompts of a log, in a new random order every epoch, judged by a reward on texts."""

    def __init__(
        self, log: LanguageLog, reward: Reward, tokenizer: Any, seed: int, device: Any = "cpu"
    ) -> None:
        self.log, self.reward, self.tokenizer, self.device = log, reward, tokenizer, device
        self.order: RowStream | None = None
        self.seed = seed
        self.size = 0  # rows that are taken from the order at a time: those of the first draw
        self.left: list[int] = []
        self.state: dict[str, Any] = {}

    def draw(self, n: int) -> Asked:
        """The next n prompts."""
        if self.order is None:
            self.size = self.size or n
            self.order = RowStream(self.log, self.size, kind="prompts", seed=self.seed)
            if self.state:
                self.order.load_state_dict(self.state)
        while len(self.left) < n:
            self.left += self.order.rows_at(self.order.drawn)
            self.order.drawn += 1
        rows, self.left = self.left[:n], self.left[n:]
        seq = collate([self.log.prompts[i] for i in rows], [[0]] * n)
        assert seq.prompt is not None and seq.prompt_mask is not None
        return Asked(seq.prompt.to(self.device), seq.prompt_mask.to(self.device), rows)

    def judge(self, seq: Sequences, rows: list[int]) -> tuple[Tensor, int]:
        """The reward of each sequence, [B], and how many could not be judged."""
        before = self.reward.failed
        answers = []
        for i, row in enumerate(rows):
            ids = seq.action[i][seq.mask[i] > 0].tolist()
            truth = None if self.log.truth is None else self.log.truth[row]
            texts = self.log.texts
            prompt = texts[row] if texts is not None else self.text(list(self.log.prompts[row]))
            answers.append(Answered(prompt, self.text(ids), truth))
        scores = self.reward(answers)
        if scores.shape != (len(rows),) or not bool(scores.isfinite().all()):
            raise InputError(
                f"the reward gave {list(scores.shape)} numbers for {len(rows)} answers, or some "
                "that are not finite; it must give one finite number for each"
            )
        return scores.to(self.device), self.reward.failed - before

    def answers(self, seq: Sequences, rows: list[int], wrap: tuple[str, str]) -> list[Answer]:
        """The right answer of each row as the policy would write it, between two texts; of several
        the first."""
        if self.log.truth is None or any(isinstance(t, dict) for t in self.log.truth):
            raise InputError("the recipe asks for right answers, but the data have no column "
                             "'answer'; name it with columns={'answer': ...}")  # fmt: skip
        if self.tokenizer is None:
            raise InputError("right answers are texts; give tokenizer=...")
        found = []
        for row in rows:
            truth: Any = self.log.truth[row]
            truth = truth[0] if isinstance(truth, list | tuple) else truth
            pieces = [self.tokenizer.encode(text, add_special_tokens=False)
                      for text in (wrap[0], str(truth), wrap[1])]  # fmt: skip
            own = [float(i == 1) for i, piece in enumerate(pieces) for _ in piece]
            found.append(([token for piece in pieces for token in piece], own))
        return found

    def text(self, ids: list[int], row: int | None = None) -> str:
        """Tokens as text."""
        if self.tokenizer is None:
            return " ".join(map(str, ids))
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def state_dict(self) -> dict[str, Any]:
        order = self.state if self.order is None else self.order.state_dict()
        return {"left": self.left, "order": order, "size": self.size}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.left, self.state, self.order = list(state["left"]), dict(state["order"]), None
        self.size = int(state.get("size", 0))


Judge = Callable[[Sequences, list[int]], tuple[Tensor, int]]


@dataclass(frozen=True)
class Fresh:
    """A fresh, judged batch that `then` parts of a source may edit.

    Attributes:
        sequences: the answers, in groups.
        expert: gives expert traces for the rows of `sequences`, one for each, [B]; its
            `examples(n)` are n solved examples of any prompts.
        judge: the reward of further sequences.
        policy: that answers.
        more: from places of rows of `sequences`, and how many further answers each one's prompt
            gets, to those answers, judged, and their rows; `shown` is what stands before the prompt
            of each answer when it is drawn, and is stripped from it then: its `behavior_logp` are
            those given what was shown.
    """

    sequences: Sequences
    sources: tuple[str, ...]
    rows: list[int]
    expert: Any
    judge: Judge
    policy: LanguagePolicy
    more: Callable[..., tuple[Sequences, list[int]]]


class RolloutStream:
    """Groups of fresh answers, rewards at their last decisions.

    Args:
        source: `rollouts(envs, horizon, group)`: sequences per batch, most new tokens, answers per
            prompt; `refill` is how many batches may be drawn to fill one with groups that `select`
            keeps; `replay` the share of groups of the last `oldest` batches (`language_replay`);
            `choose` a chooser of prompts (`objectives.prompt_choice`) from a `pool` of so many;
            `heat` how warm tokens are sampled after a batch of such entropies
            (`objectives.uncertainty`);
            `turns` how many times the model speaks, with what `reply` answers between.
        pairs: give the best and the worst of each group as pairs.
        select: the form's selection, for `refill`.
        expert: expert traces for prompts, for `then` parts that ask for them.
        answers: attach the right answer of each sequence, for forms whose signals ask for it.
        reply: a tool or environment: from the prompt's tokens and the turns of the model and of
            itself so far to the tokens that it writes next, or None to end the answer.
    """

    fixed = False

    def __init__(
        self, policy: LanguagePolicy, prompts: Any, source: Source, *, seed: int = 0,
        pairs: bool = False, select: Any = None, expert: Any = None, stop: tuple[str, ...] = (),
        reply: Any = None, answers: bool = False,
    ) -> None:  # fmt: skip
        options = source.options
        if options.get("choose") is not None:
            prompts = PromptPool(prompts, options["choose"], int(options.get("pool", 2000)), seed)
        self.policy, self.prompts, self.source = policy, prompts, source
        self.answers = answers
        self.reply: Any = getattr(prompts, "reply", None) if reply is None else reply
        self.pairs, self.select, self.expert = pairs, select, expert
        self.group = int(options.get("group", 1))
        self.count = source.size // self.group
        if self.count * self.group != source.size or self.count < 1:
            raise InputError(
                f"a batch of {source.size} sequences does not divide into groups of {self.group}"
            )
        if self.count % world():
            raise InputError(
                f"{self.count} groups do not divide over {world()} processes; give another batch"
            )
        if pairs and self.group < 2:
            raise InputError("pairs are made of groups; give group=2 or more")
        self.warmed = options.get("heat")
        heat = None if self.warmed is None else Heat()
        self.sampling = Sampling(new=int(options.get("horizon", 256)), stop=stop, heat=heat)
        self.entropies: list[Tensor] = []
        self.generator = torch.Generator(device=policy.device).manual_seed(seed + 1 + 7919 * rank())
        share = float(options.get("replay", 0.0))
        self.replay = None if not share else Replay(
            share, int(options.get("oldest", 4)), source.size // world(), self.group,
            seed + 2 + 7919 * rank(),
        )  # fmt: skip
        if int(options.get("turns", 1)) > 1 and self.reply is None:
            raise InputError(
                "answers in several turns need reply=..., what answers the model, or a task that "
                "takes turns"
            )
        if int(options.get("turns", 1)) > 1 and heat is not None:
            raise InputError("heat=... is for answers in one turn")
        self.drawn = self.spent = 0
        self.samples: list[dict[str, Any]] = []

    @property
    def exact(self) -> bool:
        """Whether log-probs at sampling are those of training: in full precision they are."""
        plain = self.policy.sampler is None and self.policy.precision is None
        plain = plain and self.warmed is None
        return plain and next(self.policy.model.parameters()).dtype == torch.float32

    def next(self) -> Batch:
        """Fresh answers, judged."""
        self.drawn += 1
        name = f"of fresh answers {self.drawn}"
        fresh, notes = self._fill()
        for part in self.source.options.get("then", ()):
            fresh = part(fresh)
        if self.warmed is not None:
            heat = self.warmed(torch.cat(self.entropies))
            self.sampling, self.entropies = replace(self.sampling, heat=heat), []
        seq = fresh.sequences
        self._keep_samples(seq, fresh.rows)
        if self.pairs:
            made = best_and_worst(seq)
            return Batch(name, pairs=made, rows=fresh.rows, notes=notes, exact=self.exact)
        if self.answers:
            seq = with_answers(seq, self._right_answers(seq, fresh.rows))
        own = self.exact and (seq.age is None or not bool(seq.age.any()))
        return Batch(name, sequences=seq, rows=fresh.rows, notes=notes, exact=own,
                     sources=fresh.sources)  # fmt: skip

    def _fill(self) -> tuple[Fresh, dict[str, float]]:
        """A batch; with `refill`, of groups with signal only, from as many batches as it takes;
        with `replay`, completed by groups of batches before."""
        old = [] if self.replay is None else self.replay.draw()
        old = old[: agreed(len(old), largest=False)]
        groups = self.count - len(old) * world()
        size = groups * self.group // world()
        most = int(self.source.options.get("refill", 1))
        whole: Sequences | None = None
        rows: list[int] = []
        notes: dict[str, float] = {}
        for number in range(most):
            seq, these, notes = self._once(groups)
            if most > 1 and self.select is not None:
                kept = self.select(seq).nonzero()[:, 0]
                seq, these = seq[kept], [these[i] for i in kept.tolist()] if these else []
            if len(seq):
                seq.group = seq.group + number * self.count  # type: ignore[operator]
                whole = seq if whole is None else joined(whole, seq)
                rows += these
            full = whole is not None and len(whole) >= size
            if agreed(int(full), largest=False):  # processes sample equally often
                break
        if not agreed(int(whole is not None), largest=False):
            again = self._once(groups)
            if whole is None:
                whole, rows, notes = again
        assert whole is not None
        whole, rows = whole[:size], rows[:size]
        if self.replay is not None:
            self.replay.keep(whole, rows)
            whole, rows = _with_old(whole, rows, old)

        def more(
            places: list[int], counts: list[int], shown: list[list[int]] | None = None
        ) -> tuple[Sequences, list[int]]:
            return self._more(whole, rows, places, counts, shown)

        return (
            Fresh(whole, ("own",), rows, self.expert, self.prompts.judge, self.policy, more), notes
        )  # fmt: skip

    def _more(
        self, seq: Sequences, rows: list[int], places: list[int], counts: list[int],
        shown: list[list[int]] | None = None,
    ) -> tuple[Sequences, list[int]]:  # fmt: skip
        """Further answers to the prompts of some rows, in the groups of these."""
        assert seq.prompt is not None and seq.prompt_mask is not None and seq.group is not None
        at = [i for i, n in zip(places, counts, strict=True) for _ in range(n)]
        plain = seq.prompt[at], seq.prompt_mask[at]
        prompt, mask = plain if shown is None else _behind(shown, *plain)
        out = generate(self.policy, prompt, mask, self.sampling, generator=self.generator)
        out.prompt, out.prompt_mask = plain
        self._cooled(out)
        theirs = [rows[i] for i in at] if rows else []
        score, _ = self.prompts.judge(out, theirs)
        out.reward, out.group = at_last(out, score), seq.group[at]
        self.spent += len(out)
        return out, theirs

    def _once(self, groups: int) -> tuple[Sequences, list[int], dict[str, float]]:
        asked: Asked = self.prompts.draw(groups).share()
        seq = self._cooled(self._answers(asked))
        rows = [r for r in asked.rows for _ in range(self.group)]
        score, failed = self.prompts.judge(seq, rows)
        seq.reward = at_last(seq, score)
        self.spent += len(seq)
        notes = {"reward": float(score.mean()), "answer_length": float(seq.length.mean()),
                 "sampled_entropy": float(-seq.behavior_logp.sum() / seq.mask.sum()),  # type: ignore[union-attr]
                 "answers": float(self.spent)}  # fmt: skip
        if self.group > 1:
            apart = (score - group_mean(seq, score)).abs() > 1e-6
            notes["with_signal"] = float(apart.view(-1, self.group).any(-1).float().mean())
        if failed:
            notes["reward_failed"] = float(failed)
        return seq, rows, notes

    def _answers(self, asked: Asked) -> Sequences:
        turns = int(self.source.options.get("turns", 1))
        if turns == 1:
            return generate(
                self.policy, asked.prompt, asked.mask, self.sampling, group=self.group,
                generator=self.generator,
            )  # fmt: skip
        prompts = [
            ids[own > 0].tolist()
            for ids, own in zip(asked.prompt, asked.mask, strict=True)
            for _ in range(self.group)
        ]
        said: list[list[list[int]]] = [[] for _ in prompts]

        def reply(i: int, answer: list[int]) -> list[int] | None:
            said[i].append(answer)
            back = self.reply(prompts[i], said[i])
            if back is not None:
                said[i].append(list(back))
            return back

        with self.policy.gathered():
            seq = converse(
                self.policy, prompts, reply, self.sampling, turns=turns, generator=self.generator
            )
        seq.group = (
            torch.arange(len(asked.prompt)).repeat_interleave(self.group).to(seq.mask.device)
        )
        return seq

    def _cooled(self, seq: Sequences) -> Sequences:
        """The same answers, whose entropies are kept here for the next batch's heat."""
        if self.warmed is not None:
            assert seq.extras is not None
            self.entropies.append(seq.extras["entropy"][seq.mask > 0])
            seq.extras = None
        return seq

    def _right_answers(self, seq: Sequences, rows: list[int]) -> list[Answer]:
        return self.prompts.answers(seq, rows, self.source.options.get("answer", ("", "")))

    def _keep_samples(self, seq: Sequences, rows: list[int], most: int = 3) -> None:
        self.samples = []
        for i in range(0, len(seq), max(len(seq) // most, 1)):
            assert seq.prompt is not None and seq.prompt_mask is not None
            before = seq.prompt[i][seq.prompt_mask[i] > 0].tolist()
            after = seq.action[i][seq.mask[i] > 0].tolist()
            self.samples.append({
                "prompt": self.prompts.text(before), "completion": self.prompts.text(after),
                "reward": round(float(seq.total[i]), 6),
            })  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Where it stands."""
        return {
            "drawn": self.drawn, "spent": self.spent, "prompts": self.prompts.state_dict(),
            "generator": self.generator.get_state().tolist(),
            **({} if self.replay is None else {"replay": self.replay.state_dict()}),
            **({} if self.sampling.heat is None else {"heat": list(self.sampling.heat)}),
            **({"expert": self.expert.state_dict()} if hasattr(self.expert, "state_dict") else {}),
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Carry on from there."""
        self.drawn, self.spent = int(state["drawn"]), int(state["spent"])
        self.prompts.load_state_dict(state["prompts"])
        if self.replay is not None:
            self.replay.load_state_dict(state["replay"])
        if self.sampling.heat is not None:
            self.sampling = replace(self.sampling, heat=Heat(*state["heat"]))
        if hasattr(self.expert, "state_dict"):
            self.expert.load_state_dict(state["expert"])
        self.generator.set_state(torch.tensor(state["generator"], dtype=torch.uint8))


def with_answers(seq: Sequences, answers: list[Answer]) -> Sequences:
    """The same sequences with the right answer of each: `answer` [B, M], `answer_mask` which tokens
    there are, `answer_own` which of them are the answer itself."""
    width = max(len(tokens) for tokens, _ in answers)

    def table(rows: list[list[Any]]) -> Tensor:
        filled = [[*row, *[0] * (width - len(row))] for row in rows]
        return torch.tensor(filled, device=seq.mask.device)

    return with_columns(
        seq, answer=table([t for t, _ in answers]), answer_own=table([o for _, o in answers]),
        answer_mask=table([[1.0] * len(t) for t, _ in answers]),
    )  # fmt: skip


def _with_old(
    fresh: Sequences, rows: list[int], old: list[tuple[Sequences, list[int], int]]
) -> tuple[Sequences, list[int]]:
    """Fresh groups, of age 0, and replayed ones."""
    device = fresh.mask.device
    whole = fresh.clone()
    whole.age = torch.zeros(len(whole), dtype=torch.long, device=device)
    for seq, these, age in old:
        group = seq.clone().to(device)
        assert whole.group is not None
        number = int(whole.group.max()) + 1
        group.group = torch.full((len(group),), number, device=device)
        group.age = torch.full_like(group.group, age)
        whole, rows = joined(whole, group), rows + these
    return whole, rows


def best_and_worst(seq: Sequences) -> Pairs:
    """The best and the worst answer of each group whose rewards differ, as pairs."""
    assert seq.group is not None
    score, best, worst = seq.total, [], []
    for group in seq.group.unique().tolist():
        rows = (seq.group == group).nonzero()[:, 0]
        high, low = rows[score[rows].argmax()], rows[score[rows].argmin()]
        if score[high] > score[low]:
            best.append(int(high))
            worst.append(int(low))
    return Pairs(
        chosen=seq[best], rejected=seq[worst],
        batch_size=[len(best)],  # pyright: ignore[reportCallIssue]
    )  # fmt: skip


def _behind(shown: list[list[int]], prompt: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Prompts [n, P] behind what is shown to each, padded on the left."""
    own = [ids[m > 0].tolist() for ids, m in zip(prompt, mask, strict=True)]
    seq = collate([s + p for s, p in zip(shown, own, strict=True)], [[0]] * len(own))
    assert seq.prompt is not None and seq.prompt_mask is not None
    return seq.prompt.to(prompt.device), seq.prompt_mask.to(prompt.device)


def with_expert(fresh: Fresh, traces: Sequences, name: str = "expert") -> Fresh:
    """A batch and traces of its groups as one, numbered as the source `name`."""
    own = fresh.sequences
    for seq, number in ((own, 0), (traces, 1)):
        seq.source = torch.full((len(seq),), number, device=seq.mask.device)
    return replace(
        fresh, sequences=joined(own, traces), sources=("own", name),
        rows=fresh.rows + [-1] * len(traces),
    )  # fmt: skip
