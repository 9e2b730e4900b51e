"""`hop-search`: a question of several hops, a search tool, and a policy that takes turns with it.

The truth is a table T[entity, relation]. A question is an entity and a chain of relations; its
answer stands at the end of the chain. What each turn was worth is known exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from surpass.data.records import About, Sequences
from surpass.errors import InputError
from surpass.tasks.language import Prompts, Vocabulary

__all__ = ["HopSearch", "Question", "Turns", "Worth"]

BLOCK = 6  # columns of a search: S e r ; and what comes back, = v


class Turns(NamedTuple):
    """What the turns of conversations were, [B, K]: `kind` 0 none, 1 search, 2 answer, 3 malformed;
    `entity` searched or answered, `relation` searched, `value` that came back (-1 where none)."""

    kind: Tensor
    entity: Tensor
    relation: Tensor
    value: Tensor


class Question(NamedTuple):
    """What prompts ask for: `relation` [B, H], and the truth: `entity` [B, H + 1] along the chain
    (the answer again beyond it), `hops` [B], `there` [B, H] which relations there are, `taught`,
    and `alike`: the look-alike's value is the same."""

    relation: Tensor
    entity: Tensor
    hops: Tensor
    there: Tensor
    taught: Tensor
    alike: Tensor


class Worth(NamedTuple):
    """Of every turn, [B, K]: its `advantage`, whether it was `useful` (a search for a hop that was
    not known yet, or the right answer), and which turns are `there`."""

    advantage: Tensor
    useful: Tensor
    there: Tensor


@dataclass(frozen=True)
class HopSearch:
    """`hop-search`: find the end of a chain of relations by searching, then answer.

    Prompt `e r1 .. rh ?`. A turn is `S e r ;`, to which the environment writes `= v` with
    v = T[e, r] (with probability `noise` the value of a look-alike entity), or `A v ;`, which ends
    the episode with reward 1 iff v is right. A malformed turn, or none left, ends it with 0.

    A share `known` of the triples is the same in every world and is never searched for in traces:
    a policy warmed up on traces has them in its weights. All other values of traces are drawn anew,
    so that they can be learned from searches only; no search of a trace is unlucky. A trace with
    `error` e replaces every argument by a random one with probability e, and goes on from what
    comes back.

    Attributes:
        entities, relations: how many (an even number of entities: look-alikes are pairs).
        hops: fewest and most relations of a question.
        turns: most turns.
        world: number of the table.
    """

    entities: int = 40
    relations: int = 6
    hops: tuple[int, int] = (2, 3)
    known: float = 0.3
    noise: float = 0.15
    turns: int = 6
    world: int = 0
    name: str = field(default="hop-search", init=False)
    summary: str = field(
        default="answer questions of several hops with a search tool, in turns (a toy language)",
        init=False,
    )

    def __post_init__(self) -> None:
        if self.entities < 2 or self.entities % 2 or self.relations < 1:
            raise InputError(
                f"hop-search: an even number of entities and a relation or more, "
                f"got {self.entities} and {self.relations}"
            )
        if not 1 <= self.hops[0] <= self.hops[1]:
            raise InputError(f"hop-search: hops must be a range such as (2, 3), got {self.hops}")
        if not (0 <= self.known <= 1 and 0 <= self.noise <= 1):
            raise InputError("hop-search: known and noise are probabilities")
        if self.turns < 1:
            raise InputError(f"hop-search: one turn or more, got {self.turns}")

    # ------------------------------------------------------------------------------- the words

    @property
    def vocabulary(self) -> Vocabulary:
        """Entities, relations, `S`, `A`, `=`, `?`; a turn ends with EOS, which is read as `;`."""
        return self._words

    @cached_property
    def _words(self) -> Vocabulary:
        words = [f"e{i}" for i in range(self.entities)] + [f"r{i}" for i in range(self.relations)]
        return Vocabulary((*words, "S", "A", "=", "?", "BOS", "EOS", "PAD"))

    @property
    def prompt_length(self) -> int:
        """Columns of a prompt: BOS, entity, relations, `?`."""
        return self.hops[1] + 3

    @property
    def response_length(self) -> int:
        """Columns of a conversation."""
        return BLOCK * self.turns - 2

    @property
    def turn_length(self) -> int:
        """Most tokens of a turn."""
        return 4

    def text(self, tokens: Sequence[int]) -> str:
        """Tokens as a person reads them."""
        words = {"EOS": ";", "BOS": "", "PAD": ""}
        read = [self.vocabulary.words[i] for i in tokens]
        return " ".join(w for w in (words.get(w, w) for w in read) if w)

    def _word(self, text: str) -> int:
        return self.vocabulary.words.index(text)

    # ------------------------------------------------------------------------------- the world

    @cached_property
    def taught(self) -> Bool[Tensor, "E R"]:
        """Which triples are the same in every world."""
        draw = torch.Generator().manual_seed(7)
        return torch.rand(self.entities, self.relations, generator=draw) < self.known

    @cached_property
    def table(self) -> Int[Tensor, "E R"]:
        """The value of every entity and relation in this world."""
        return self._tables(1, torch.Generator().manual_seed(1000 + self.world))[0]

    def _tables(self, n: int, generator: torch.Generator | None) -> Int[Tensor, "n E R"]:
        shape = (self.entities, self.relations)
        common = torch.randint(self.entities, shape, generator=torch.Generator().manual_seed(8))
        fresh = torch.randint(self.entities, (n, *shape), generator=generator)
        return torch.where(self.taught, common, fresh)

    def prompts(self, n: int, generator: torch.Generator | None = None) -> Prompts:
        """n random questions; `kind` is the number of hops."""
        low, high = self.hops
        kind = torch.randint(low, high + 1, (n,), generator=generator)
        entity = torch.randint(self.entities, (n, 1), generator=generator)
        chain = self.entities + torch.randint(self.relations, (n, high), generator=generator)
        v, P = self.vocabulary, self.prompt_length
        at = torch.arange(P) - (P - 3 - kind)[:, None]
        tokens = chain.gather(1, (at - 2).clamp(0, high - 1))
        tokens = torch.where(at == 1, entity, tokens)
        tokens = torch.where(at == kind[:, None] + 2, self._word("?"), tokens)
        tokens = torch.where(at == 0, v.bos, tokens)
        return Prompts(torch.where(at < 0, v.pad, tokens), (at >= 0).float(), kind)

    def question(self, prompt: Int[Tensor, "B P"], tables: Tensor | None = None) -> Question:
        """What prompts ask for, and the truth about it; in other worlds where `tables` [B, E, R]
        are given."""
        high, rows = self.hops[1], torch.arange(len(prompt))
        asked = (prompt >= self.entities) & (prompt < self.entities + self.relations)
        hops = asked.sum(-1)
        first = prompt.shape[1] - 1 - hops  # of the relations, which stand before the last word
        at = (first[:, None] + torch.arange(high)).clamp_max(prompt.shape[1] - 2)
        relation = prompt.gather(1, at) - self.entities
        there = torch.arange(high) < hops[:, None]
        entity = [prompt.gather(1, first[:, None] - 1)[:, 0]]
        alike = []
        for j in range(high):
            here, mate = entity[-1], entity[-1] ^ 1
            found, other = (
                self.table[e, relation[:, j]] if tables is None else tables[rows, e, relation[:, j]]
                for e in (here, mate)
            )
            entity.append(torch.where(there[:, j], found, here))
            alike.append(found == other)
        entities = torch.stack(entity, 1)
        taught = self.taught[entities[:, :-1], relation] & there
        return Question(relation, entities, hops, there, taught, torch.stack(alike, 1))

    def answer(self, prompt: Int[Tensor, "B P"]) -> Int[Tensor, "B"]:
        """The right answer to each question."""
        return self.question(prompt).entity[:, -1]

    def wrapped_answer(
        self, prompt: Int[Tensor, "B P"]
    ) -> tuple[Int[Tensor, "B L"], Float[Tensor, "B L"]]:
        """The turn that answers rightly, and 1 at the tokens that are the answer itself."""
        answer = self.answer(prompt)
        full = torch.full_like
        turn = torch.stack([full(answer, self._word("A")), answer,
                            full(answer, self.vocabulary.eos)], 1)  # fmt: skip
        return turn, torch.tensor([0.0, 1.0, 0.0]).expand(len(prompt), 3)

    # ------------------------------------------------------------------------- the environment

    def reply(
        self, prompt: Sequence[int], said: Sequence[Sequence[int]],
        generator: torch.Generator | None = None,
    ) -> list[int] | None:  # fmt: skip
        """What the environment writes after the last of the turns said so far: the result of a
        search, or None, which ends the episode."""
        turn, E = said[-1], self.entities
        if len(turn) != 4 or turn[0] != self._search or turn[3] != self._end:
            return None
        entity, relation = turn[1], turn[2] - E
        if not (0 <= entity < E and 0 <= relation < self.relations):
            return None
        alike = float(torch.rand((), generator=generator)) < self.noise
        return [self._equals, self._rows[entity ^ 1 if alike else entity][relation]]

    @cached_property
    def _rows(self) -> list[list[int]]:
        return self.table.tolist()

    @cached_property
    def _search(self) -> int:
        return self._word("S")

    @cached_property
    def _end(self) -> int:
        return self.vocabulary.eos

    @cached_property
    def _equals(self) -> int:
        return self._word("=")

    def turns_of(
        self, action: Int[Tensor, "B T"], mask: Float[Tensor, "B T"] | None = None
    ) -> Turns:
        """The turns of conversations, [B, K]. Where `mask` is given, what the environment wrote is
        read where the mask is 0 before the next turn."""
        width = BLOCK * self.turns
        v, E, R = self.vocabulary, self.entities, self.relations
        decided = torch.ones_like(action) if mask is None else (mask > 0).long()
        seen = decided.flip(-1).cumsum(-1).flip(-1) > 0  # up to the last decision
        x = torch.where(seen, action, v.pad)
        x = torch.nn.functional.pad(x, (0, max(width - x.shape[1], 0)), value=v.pad)[:, :width]
        x = x.unflatten(1, (self.turns, BLOCK))
        there = (x[..., 0] != v.pad).long().cumprod(1).bool()
        is_entity, is_relation = x[..., 1] < E, (x[..., 2] >= E) & (x[..., 2] < E + R)
        search = (x[..., 0] == self._search) & is_entity & is_relation & (x[..., 3] == v.eos)
        answer = (x[..., 0] == self._word("A")) & is_entity & (x[..., 2] == v.eos)
        # A turn counts where all before it were searches.
        before = torch.cat([torch.ones_like(search[:, :1]), search[:, :-1]], 1).long().cumprod(1)
        there = there & before.bool()
        kind = torch.where(search, 1, torch.where(answer, 2, 3))
        kind = torch.where(there, kind, 0)
        none = torch.full_like(kind, -1)
        back = (kind == 1) & (x[..., 4] == self._equals)
        return Turns(
            kind, torch.where((kind == 1) | (kind == 2), x[..., 1], none),
            torch.where(kind == 1, x[..., 2] - E, none), torch.where(back, x[..., 5], none),
        )  # fmt: skip

    def verify(
        self, prompt: Int[Tensor, "B P"], response: Int[Tensor, "B T"], mask: Tensor | None = None
    ) -> Float[Tensor, "B"]:
        """1 where the conversation ends with the right answer, else 0."""
        turns = self.turns_of(response, mask)
        right = (turns.kind == 2) & (turns.entity == self.answer(prompt)[:, None])
        return right.any(-1).float()

    # ------------------------------------------------------------------------------ the truth

    def values(self, question: Question, skill: float) -> Float[Tensor, "B H+1 K+1"]:
        """V[j, k]: the chance of a right answer where j entities of the chain are known and k turns
        are left, for an agent whose turn is the right one with probability `skill`, and else is of
        no use.

        With s the skill, c_j the chance that hop j's search comes back true, h the hops:

            V[h, k] = s + (1 - s) V[h, k-1];   V[j, 0] = 0;   V[j, k] = V[j+1, k] where hop j is
            taught, else s c_j V[j+1, k-1] + (1 - s c_j) V[j, k-1]
        """
        high, n = self.hops[1], len(question.hops)
        true = 1 - self.noise * (~question.alike).double()
        V = torch.zeros(n, high + 1, self.turns + 1, dtype=torch.float64)
        for k in range(1, self.turns + 1):
            V[:, high, k] = skill + (1 - skill) * V[:, high, k - 1]
            for j in reversed(range(high)):
                found = skill * true[:, j]
                search = found * V[:, j + 1, k - 1] + (1 - found) * V[:, j, k - 1]
                free = question.taught[:, j] | ~question.there[:, j]
                V[:, j, k] = torch.where(free, V[:, j + 1, k], search)
        return V

    def worth(
        self, prompt: Int[Tensor, "B P"], action: Int[Tensor, "B T"], mask: Float[Tensor, "B T"],
        skill: float | None = None,
    ) -> Worth:  # fmt: skip
        """What every turn was worth to the agent of `values`, exactly: Q - V. A search counts by
        what it asks for, not by what came back.

        Args:
            skill: of the agent; the share of useful turns where None.
        """
        turns, q = self.turns_of(action, mask), self.question(prompt)
        rows, depth = torch.arange(len(prompt)), torch.zeros_like(q.hops)
        before, asked, useful = [], [], []
        for k in range(self.turns):
            depth = self._free(q, depth)
            match = (turns.entity[:, k, None] == q.entity[:, :-1]) & q.there & (
                turns.relation[:, k, None] == q.relation)  # fmt: skip
            right = (turns.kind[:, k] == 2) & (turns.entity[:, k] == q.entity[:, -1])
            before.append(depth)
            asked.append(_next(match, depth))
            useful.append((asked[-1] > depth) | right)
            came = match & (turns.value[:, k, None] == q.entity[:, 1:])
            depth = _next(came, depth)
        there, helped = turns.kind > 0, torch.stack(useful, 1)
        share = float(helped[there].double().mean()) if skill is None else skill
        V, out = self.values(q, share), []
        for k in range(self.turns):
            left = self.turns - k - 1
            now, stay = V[rows, before[k], left + 1], V[rows, before[k], left]
            hop = (asked[k] - 1).clamp_min(0)
            wrong = self.noise * (~q.alike[rows, hop]).double()
            search = torch.where(
                asked[k] > before[k], (1 - wrong) * V[rows, asked[k], left] + wrong * stay, stay
            )
            said = (turns.entity[:, k] == q.entity[:, -1]).double()
            kind = turns.kind[:, k]
            out.append(torch.where(kind == 1, search, torch.where(kind == 2, said, 0.0)) - now)
        advantage = torch.where(there, torch.stack(out, 1), 0.0).float()
        return Worth(advantage, helped & there, there)

    def _free(self, q: Question, depth: Tensor) -> Tensor:
        """The depth with what is taught from there on."""
        for j in range(self.hops[1]):
            depth = torch.where((depth == j) & q.taught[:, j], j + 1, depth)
        return depth

    # ------------------------------------------------------------------------------ the traces

    def traces(
        self, prompts: Prompts, generator: torch.Generator | None = None, error: float = 0.0
    ) -> Sequences:
        """Conversations in worlds of their own: search for what is not taught, then answer; with
        probability `error` an argument is a random one."""
        n, v = len(prompts.tokens), self.vocabulary
        tables = self._tables(n, generator)
        q, rows = self.question(prompts.tokens, tables), torch.arange(n)
        width = BLOCK * (self.hops[1] + 1)
        action = torch.full((n, width), v.pad)
        decided = torch.zeros(n, width)
        turn = torch.full((n, width), -1)
        at, number, here = torch.zeros_like(q.hops), torch.zeros_like(q.hops), q.entity[:, 0]

        def slipped(x: Tensor, most: int) -> Tensor:
            slip = torch.rand(n, generator=generator) < error
            return torch.where(slip, torch.randint(most, (n,), generator=generator), x)

        def write(tokens: list[Tensor], own: bool, where: Tensor) -> None:
            nonlocal at
            for x in tokens:
                column = at.clamp_max(width - 1)
                action[rows, column] = torch.where(where, x, action[rows, column])
                decided[rows, column] = torch.where(where, float(own), decided[rows, column])
                turn[rows, column] = torch.where(where & own, number, turn[rows, column])
                at = at + where.long()

        full = torch.full_like
        for j in range(self.hops[1]):
            relation = q.relation[:, j]
            free = self.taught[here, relation]
            search = q.there[:, j] & ~free
            e, r = slipped(here, self.entities), slipped(relation, self.relations)
            write([full(e, self._search), e, r + self.entities, full(e, self._end)], True, search)
            back = tables[rows, e, r]
            write([full(e, self._equals), back], False, search)
            number = number + search.long()
            found = torch.where(free, tables[rows, here, relation], back)
            here = torch.where(q.there[:, j], found, here)
        said = slipped(here, self.entities)
        every = torch.ones(n, dtype=torch.bool)
        write([full(said, self._word("A")), said, full(said, self._end)], True, every)
        score = (said == q.entity[:, -1]).float()
        last = torch.nn.functional.one_hot(at - 1, width)
        return Sequences(
            action=action, mask=decided, reward=score[:, None] * last, turn=turn,
            prompt=prompts.tokens, prompt_mask=prompts.mask,
            batch_size=[n],  # pyright: ignore[reportCallIssue]
        ).described(About(name=self.name, actions=v.words))  # fmt: skip


def _next(found: Bool[Tensor, "B H"], depth: Int[Tensor, "B"]) -> Int[Tensor, "B"]:
    """How far along the chain one is once some of its hops are found: up to the first of them that
    was not known."""
    step = torch.arange(found.shape[1])
    behind = found.shape[1] + 1
    reached = torch.where(found & (step >= depth[:, None]), step + 1, behind).amin(-1)
    return torch.where(reached < behind, reached, depth)
