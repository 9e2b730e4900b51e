"""hop-search: what is right, what comes back, and what a turn was worth, against enumeration."""

import itertools

import pytest
import torch

from surpass.errors import InputError
from surpass.tasks.catalog import task
from surpass.tasks.hop_search import HopSearch
from surpass.tasks.language import Prompts

PLAIN = HopSearch(entities=8, relations=3, known=0.0, noise=0.0, turns=4)


def said(t, *turns):
    """A conversation as tokens, from words; what the environment writes stands in brackets."""
    words, mask = [], []
    for turn in turns:
        own = not turn.startswith("=")
        ids = [t.vocabulary.words.index("EOS" if w == ";" else w) for w in turn.split()]
        words += ids
        mask += [float(own)] * len(ids)
    return torch.tensor([words]), torch.tensor([mask])


def asked(t, text):
    ids = [t.vocabulary.bos, *(t.vocabulary.words.index(w) for w in text.split())]
    return torch.tensor([[t.vocabulary.pad] * (t.prompt_length - len(ids)) + ids])


def walk(t, *chain):
    e = chain[0]
    for r in chain[1:]:
        e = int(t.table[e, r])
    return e


def test_questions_are_read_and_answered_from_the_table():
    prompts = PLAIN.prompts(50, torch.Generator().manual_seed(0))
    assert set(prompts.kind.tolist()) == {2, 3}
    for row, kind, right in zip(
        prompts.tokens, prompts.kind, PLAIN.answer(prompts.tokens), strict=True
    ):
        words = PLAIN.text(row.tolist()).split()
        assert len(words) == kind + 2 and words[-1] == "?"
        assert right == walk(PLAIN, *(int(w[1:]) for w in words[:-1]))


def test_replies_and_what_ends_an_episode():
    t = PLAIN
    turn = said(t, "S e3 r1 ;")[0][0].tolist()
    assert t.reply([], [turn]) == [t.vocabulary.words.index("="), walk(t, 3, 1)]
    alike = HopSearch(entities=8, relations=3, known=0.0, noise=1.0)
    assert alike.reply([], [turn])[1] == walk(alike, 2, 1)  # e3 is taken for e2
    for other in ("A e3 ;", "S e3 r1", "S r1 e3 ;", "S e3 r1 e1", "e3 r1 ;"):
        assert t.reply([], [said(t, other)[0][0].tolist()]) is None


def test_only_a_right_answer_after_searches_counts():
    t = PLAIN
    prompt, right = asked(t, "e1 r0 r2 ?"), walk(t, 1, 0, 2)
    first = f"= e{walk(t, 1, 0)}"
    good = said(t, "S e1 r0 ;", first, "S e4 r2 ;", f"= e{walk(t, 4, 2)}", f"A e{right} ;")
    assert t.verify(prompt, *good) == 1
    assert t.turns_of(*good).kind.tolist() == [[1, 1, 2, 0]]
    for bad in (
        said(t, "S e1 r0 ;", first, f"A e{(right + 1) % 8} ;"),
        said(t, "S e1 r0 ;", first, f"A e{right} r0"),
        said(t, "S e1 r0 r0"),
        said(t, "S e1 r0 ;", first),
    ):
        assert t.verify(prompt, *bad) == 0
    tokens, own = t.wrapped_answer(prompt)
    assert t.verify(prompt, tokens) == 1 and tokens[0][own[0] > 0].tolist() == [right]


def brute_value(hops, turns, skill, true):
    """The chance that the agent answers in time, summed over everything that can happen."""
    total = 0.0
    for events in itertools.product(itertools.product((0, 1), repeat=2), repeat=turns):
        p, known, done = 1.0, 0, False
        for right, lucky in events:
            p *= (skill if right else 1 - skill) * (0.5 if known >= hops else (
                true[known] if lucky else 1 - true[known]))  # fmt: skip
            if right and known >= hops:
                done = True
            elif right and lucky:
                known += 1
        total += p * done
    return total


def test_values_are_those_of_all_that_can_happen():
    t = HopSearch(entities=8, relations=3, known=0.0, noise=0.3, turns=4)
    prompts = t.prompts(20, torch.Generator().manual_seed(2))
    q = t.question(prompts.tokens)
    V = t.values(q, 0.6)
    for i in range(20):
        true = [1.0 if same else 0.7 for same in q.alike[i].tolist()]
        assert V[i, 0, 4] == pytest.approx(brute_value(int(q.hops[i]), 4, 0.6, true))


def test_what_is_taught_needs_no_search():
    t = HopSearch(entities=8, relations=3, known=1.0, turns=3)
    prompts = t.prompts(10, torch.Generator().manual_seed(0))
    V = t.values(t.question(prompts.tokens), 0.5)
    torch.testing.assert_close(V[:, 0, 3], torch.full((10,), 1 - 0.5**3, dtype=torch.float64))
    traces = t.traces(prompts)
    assert (t.turns_of(traces.action, traces.mask).kind[:, 0] == 2).all()
    assert t.verify(prompts.tokens, traces.action, traces.mask).all()
    assert torch.equal(t.table, HopSearch(8, 3, known=1.0, world=5).table)
    assert not torch.equal(PLAIN.table, HopSearch(8, 3, known=0.0, world=5).table)


def test_advantages_average_to_nothing_under_the_agent():
    t = HopSearch(entities=8, relations=3, known=0.3, noise=0.2, turns=4)
    draw = torch.Generator().manual_seed(1)
    prompts = t.prompts(200, draw)
    q, skill = t.question(prompts.tokens), 0.45
    rows = []
    for useful in (True, False):
        words, mask = [], []
        for i in range(200):
            depth = 0
            while depth < int(q.hops[i]) and q.taught[i, depth]:
                depth += 1
            if depth == int(q.hops[i]):
                turn = f"A e{int(q.entity[i, -1])} ;" if useful else "S e0 r0 ;"
            else:
                e, r = int(q.entity[i, depth]), int(q.relation[i, depth])
                turn = f"S e{e} r{r} ;" if useful else f"S e{(e + 1) % 8} r{r} ;"
            action, own = said(t, turn)
            words.append(torch.nn.functional.pad(action[0], (0, 4 - action.shape[1])))
            mask.append(torch.nn.functional.pad(own[0], (0, 4 - own.shape[1])))
        rows.append(t.worth(prompts.tokens, torch.stack(words), torch.stack(mask), skill))
    good, idle = rows
    asks = ~idle.useful[:, 0]  # a search at random may be of use after all
    assert asks.sum() > 150 and good.useful[:, 0].all()
    mean = skill * good.advantage[:, 0] + (1 - skill) * idle.advantage[:, 0]
    torch.testing.assert_close(mean[asks], torch.zeros(int(asks.sum())), rtol=0, atol=1e-6)
    assert (good.advantage[:, 0] > 0).all()


def test_a_search_counts_by_what_it_asks_and_knowledge_by_what_came():
    t = HopSearch(entities=8, relations=3, known=0.0, noise=0.2, turns=4)
    prompt = asked(t, "e1 r0 r2 ?")
    v, w = walk(t, 1, 0), walk(t, 1, 0, 2)
    true = said(t, "S e1 r0 ;", f"= e{v}", f"S e{v} r2 ;", f"= e{w}", f"A e{w} ;")
    wrong = said(t, "S e1 r0 ;", f"= e{(v + 1) % 8}", "S e1 r0 ;", f"= e{v}", f"A e{w} ;")
    one, two = t.worth(prompt, *true, 0.5), t.worth(prompt, *wrong, 0.5)
    assert one.useful[0].tolist() == two.useful[0].tolist() == [True, True, True, False]
    assert one.advantage[0, 0] == two.advantage[0, 0] > 0
    q, left = t.question(prompt), 2
    V = t.values(q, 0.5)[0]
    assert one.advantage[0, 2] == pytest.approx(float(1 - V[2, left]), abs=1e-6)
    assert two.advantage[0, 2] == pytest.approx(float(1 - V[1, left]), abs=1e-6)
    assert t.worth(prompt, *true).useful.sum() == 3


def test_traces_are_conversations_of_their_own_worlds():
    t = HopSearch(entities=8, relations=3, known=0.0, noise=0.0)
    draw = torch.Generator().manual_seed(0)
    prompts = t.prompts(300, draw)
    clean = t.traces(prompts, draw)
    assert clean.total.min() == 1
    turns = t.turns_of(clean.action, clean.mask)
    assert torch.equal((turns.kind > 0).sum(-1), prompts.kind + 1)
    assert torch.equal(clean.turn.amax(-1), prompts.kind)
    assert (clean.turn[clean.mask > 0] >= 0).all() and (clean.turn[clean.mask == 0] == -1).all()
    slipped = t.traces(prompts, draw, error=0.2)
    # Of 2 h + 1 arguments each is right with 0.8 + 0.2 / 8 or / 3; luck can mend a slip.
    likely = ((0.825 * (0.8 + 0.2 / 3)) ** prompts.kind * 0.825).mean()
    assert likely - 0.05 < slipped.total.mean() < likely + 0.15


def test_settings_are_checked_and_the_task_has_a_name():
    assert task("hop-search", entities=10).entities == 10
    for bad in ({"entities": 7}, {"hops": (3, 2)}, {"noise": 1.5}, {"turns": 0}):
        with pytest.raises(InputError, match="hop-search"):
            HopSearch(**bad)
    repeated = PLAIN.prompts(2).repeated(3)
    assert isinstance(repeated, Prompts) and len(repeated.tokens) == 6
