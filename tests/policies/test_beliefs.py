"""Beliefs of the right answer: one pass over branches against a pass for every turn."""

import pytest
import torch

transformers = pytest.importorskip("transformers")

from surpass.data.language import collate  # noqa: E402
from surpass.errors import InputError  # noqa: E402
from surpass.policies.beliefs import answer_beliefs, information_gain  # noqa: E402
from surpass.policies.generation import Sampling, converse  # noqa: E402
from surpass.policies.language import LanguagePolicy  # noqa: E402
from surpass.training.language_rollouts import with_answers  # noqa: E402
from tests.methods.language_cases import tiny  # noqa: E402

ANSWERS = [([9, 3, 4, 14], [0.0, 1.0, 1.0, 0.0]), ([5], [1.0]), ([9, 2], [0.0, 1.0])]


def talk(policy):
    """Three ragged conversations: prompts, turns and the tool's answers differ in length."""

    def reply(row, said):
        return None if row == 1 and len(said) > 2 else [7, 8, 9][: 1 + len(said) % 3]

    seq = converse(policy, [[3, 4, 7], [9, 8, 2, 1], [11]], reply, Sampling(new=4), turns=4,
                   generator=torch.Generator().manual_seed(5))  # fmt: skip
    return with_answers(seq, ANSWERS)


@pytest.fixture(scope="module")
def policy():
    model = tiny()
    for name, weight in model.named_parameters():
        if "weight" in name and weight.dim() == 2:
            weight.data.mul_(8.0)  # so that what stands before a token matters
    return LanguagePolicy(model.eval(), temperature=1.3)


def one_by_one(policy, seq):
    """The same beliefs, with a sequence of its own for every turn."""
    found = {}
    for i, (answer, own) in enumerate(ANSWERS):
        prompt = seq.prompt[i][seq.prompt_mask[i] > 0].tolist()
        for k in seq.turn[i][seq.mask[i] > 0].unique().tolist():
            start = int((seq.turn[i] == k).nonzero()[0])
            context = prompt + seq.action[i, :start].tolist()
            with torch.no_grad():
                logp = policy.score(collate([context], [answer])).logp[0]
            found[i, k] = float((logp * torch.tensor(own)).sum() / sum(own))
    return found


def test_one_pass_gives_what_a_pass_for_every_turn_gives(policy):
    seq = talk(policy)
    got, there = answer_beliefs(policy, seq)
    want = one_by_one(policy, seq)
    assert int(there.sum()) == len(want) > 8
    for (i, k), value in want.items():
        assert there[i, k] and float(got[i, k]) == pytest.approx(value, abs=1e-5)
    values = torch.tensor(list(want.values()))
    assert values.std() > 0.1


def test_pieces_change_nothing(policy, monkeypatch):
    from surpass.policies import beliefs

    seq = talk(policy)
    whole, _ = answer_beliefs(policy, seq)
    monkeypatch.setattr(beliefs, "LARGEST", 1)
    torch.testing.assert_close(answer_beliefs(policy, seq)[0], whole)


@pytest.mark.parametrize("kind", ["logprob", "prob"])
def test_a_gain_stands_at_the_end_of_its_turn(policy, kind):
    seq = talk(policy)
    before = one_by_one(policy, seq)
    if kind == "prob":
        before = {at: torch.tensor(b).exp().item() for at, b in before.items()}
    gain = information_gain(kind)({"policy": policy}, seq).extras["gain"]
    want = torch.zeros_like(gain)
    for i, k in before:
        if (i, k + 1) in before:
            last = int(((seq.turn[i] == k) & (seq.mask[i] > 0)).nonzero()[-1])
            want[i, last] = before[i, k + 1] - before[i, k]
    torch.testing.assert_close(gain, want, rtol=0, atol=1e-5)
    assert (want != 0).sum() > 5


def test_what_no_turn_can_change_gains_nothing():
    model = tiny()
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.data.zero_()  # the next token depends on the last one only
    policy = LanguagePolicy(model.eval())
    seq = talk(policy)
    seq = with_answers(seq, [([9, 3], [0.0, 1.0])] * 3)
    gain = information_gain()({"policy": policy}, seq).extras["gain"]
    assert float(gain.abs().max()) < 1e-6


def test_what_is_missing_is_named(policy):
    seq = talk(policy)
    with pytest.raises(InputError, match=r"belief='chance'.*logprob or prob"):
        information_gain("chance")({"policy": policy}, seq)
    seq.extras = None
    with pytest.raises(InputError, match="right answer of each sequence"):
        answer_beliefs(policy, seq)
