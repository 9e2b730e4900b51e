"""Losses on groups of scored answers, rejection sampling, logits as values: closed forms, recipes
that coincide, exact optima."""

import math

import pytest
import torch

transformers = pytest.importorskip("transformers")

from surpass.data.language import open_language  # noqa: E402
from surpass.errors import InputError  # noqa: E402
from surpass.methods.preference.groups import adpo, copg, sppo  # noqa: E402
from surpass.methods.preference.pairs import dpo, rpo_sft  # noqa: E402
from surpass.methods.preference.regression import shiq, tbrm  # noqa: E402
from surpass.methods.preference.rejection import rso  # noqa: E402
from surpass.objectives.groupwise import (  # noqa: E402
    contrastive,
    listwise,
    win_rate_regression,
    wins_in_group,
)
from surpass.objectives.preference import logistic, regression  # noqa: E402
from surpass.objectives.rejection import rejection_sampled  # noqa: E402
from surpass.objectives.soft_bellman import token_residuals  # noqa: E402
from surpass.objectives.views import Side, Sides, Steps  # noqa: E402
from surpass.policies.language import LanguagePolicy  # noqa: E402
from surpass.policies.table_model import table_policy  # noqa: E402
from surpass.tasks.tables import random_tree  # noqa: E402
from surpass.training import language_streams  # noqa: E402
from surpass.training.language_streams import RowStream  # noqa: E402
from surpass.training.modules import ModuleTrainer  # noqa: E402
from tests.methods.language_cases import (  # noqa: E402
    assert_same,
    fresh_trainer,
    gradient,
    pair_trainer,
    rows,
    tiny,
)


def side_of(delta, reward, group, **extras):
    steps = Steps(delta[:, None], torch.ones(len(delta), 1), extras=extras, group=group)
    return Side(delta, torch.ones(len(delta)), steps, reward=reward, group=group)


def random_side(n=6, size=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    delta = torch.randn(n, generator=g, dtype=torch.float64).requires_grad_()
    reward = torch.randn(n, generator=g, dtype=torch.float64)
    return delta, side_of(delta, reward, torch.arange(n) // size)


# ----------------------------------------------------------------------------------------- CoPG


def test_copg_on_pairs_is_rebel_up_to_a_factor():
    beta = 0.7
    delta, s = random_side()
    (ours,) = torch.autograd.grad(contrastive(beta)(s).sum(), delta)
    (theirs,) = torch.autograd.grad(regression(beta)(s).sum(), delta)
    torch.testing.assert_close(beta * ours, theirs)


def test_copg_on_pairs_by_hand():
    delta, s = random_side(2)
    d, r = delta[0] - delta[1], s.reward[0] - s.reward[1]
    want = -(r * d - 0.25 * d.square())
    torch.testing.assert_close(contrastive(0.5)(s).sum(), want)


@pytest.mark.parametrize("size", [2, 5])
def test_copg_finds_the_optimum_from_data_of_another_policy(size):
    """Ten actions, drawn by a policy far from the reference: exp(R / beta) ref / Z."""
    g = torch.Generator().manual_seed(1)
    ref, mu = (torch.randn(10, generator=g, dtype=torch.float64).log_softmax(-1) for _ in range(2))
    reward = torch.randn(10, generator=g, dtype=torch.float64)
    action = torch.multinomial((2 * mu).softmax(-1), 400 * size, replacement=True, generator=g)
    action[:10] = torch.arange(10)
    logits = torch.zeros(10, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=500, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        delta = (logits.log_softmax(-1) - ref)[action]
        value = contrastive(0.5)(side_of(delta, reward[action], torch.arange(len(action)) // size))
        value.mean().backward()
        return value.mean()

    optimizer.step(loss)
    want = (ref + reward / 0.5).log_softmax(-1)
    assert (logits.detach().log_softmax(-1) - want).abs().max() < 1e-3


# ----------------------------------------------------------------------------------------- SPPO


def test_win_rates_count_the_comparison_with_oneself():
    score = torch.tensor([1.0, 0.0, 3.0])
    same = torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]])
    won = float(torch.sigmoid(torch.tensor(1.0)))
    assert wins_in_group(score, same).tolist() == pytest.approx([(0.5 + won) / 2,
                                                                (1.5 - won) / 2, 0.5])  # fmt: skip


def test_sppo_by_hand_on_its_two_ends():
    delta = torch.tensor([0.3, -0.1, 0.2], requires_grad=True)
    s = side_of(delta, torch.tensor([2.0, 1.0, 0.0]), torch.zeros(3, dtype=torch.long))
    w = wins_in_group(s.reward, torch.ones(3, 3))
    each = (delta - (w - 0.5) / 0.1).square()
    whole = win_rate_regression(0.1, ends=False)(s)
    torch.testing.assert_close(whole, each)
    ends = win_rate_regression(0.1)(s)
    torch.testing.assert_close(ends, torch.stack([1.5 * each[0], 0 * each[1], 1.5 * each[2]]))
    torch.testing.assert_close(ends.mean(), (each[0] + each[2]) / 2)


def test_sppo_rounds_are_multiplicative_weights():
    """A regression that is solved exactly gives pi_t exp(eta P(y beats pi_t)), normalized."""
    P = torch.tensor([[0.5, 0.8, 0.3], [0.2, 0.5, 0.9], [0.7, 0.1, 0.5]], dtype=torch.float64)
    eta = 0.05
    log_p = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64).log()
    wins = P @ log_p.exp()
    theta = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([theta], max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        delta = (log_p + theta).log_softmax(-1) - log_p
        s = side_of(delta, torch.zeros(3), torch.zeros(3, dtype=torch.long), wins=wins)
        value = (log_p.exp() * win_rate_regression(1 / eta, ends=False)(s)).sum()
        value.backward()
        return value

    optimizer.step(loss)
    found = (log_p + theta.detach()).log_softmax(-1)
    want = (log_p + eta * wins).log_softmax(-1)
    # the partition function was replaced by eta / 2, which is right to second order in eta
    torch.testing.assert_close(found, want, atol=eta**2, rtol=0)


def test_the_reference_of_sppo_is_the_policy_of_the_last_round():
    trainer = fresh_trainer(sppo(beta=1.0, every=2, group=4, batch=16, horizon=6, lr=1e-3))
    seq = trainer.stream.next().sequences

    def apart():
        with torch.no_grad():
            own = trainer.policy.score(seq).logp
        return float(((own - trainer.twins["reference"].logps(seq, 64)) * seq.mask).abs().max())

    found = []
    for _ in range(4):
        trainer.update()
        found.append(apart())
    assert found[0] > 1e-4 and found[2] > 1e-4
    assert found[1] < 1e-6 and found[3] < 1e-6


# ----------------------------------------------------------------------------------------- ADPO


def test_all_on_the_best_of_a_pair_is_dpo():
    beta = 0.4
    delta, s = random_side(8)
    (ours,) = torch.autograd.grad(listwise(1 / beta, target="best", limit=99)(s).sum(), delta)
    good = s.reward.view(-1, 2).argmax(-1)
    pairs = delta.view(-1, 2)
    z = pairs.gather(1, good[:, None])[:, 0] - pairs.gather(1, 1 - good[:, None])[:, 0]
    (theirs,) = torch.autograd.grad(torch.nn.functional.softplus(-beta * z).sum(), delta)
    torch.testing.assert_close(ours, 2 * theirs)  # a loss per answer, so two for each pair


def test_listwise_is_at_rest_where_its_target_is_and_forgets_constants():
    delta, s = random_side(12, 4)
    tau, sharp = 0.6, 0.3
    z = s.reward.view(3, 4)
    z = (z - z.mean(-1, keepdim=True)) / z.std(-1, unbiased=False, keepdim=True)
    rest = (tau / sharp * z).flatten().requires_grad_()
    (g,) = torch.autograd.grad(listwise(tau, sharp)(side_of(rest, s.reward, s.group)).sum(), rest)
    assert g.abs().max() < 1e-9
    moved = side_of(delta + torch.tensor([1.0, -2, 0.5]).repeat_interleave(4), s.reward, s.group)
    torch.testing.assert_close(listwise(limit=99)(moved), listwise(limit=99)(s))


def test_ranks_do_not_feel_heavy_tails_and_equal_rewards_are_uniform():
    g = torch.zeros(4, dtype=torch.long)
    delta = torch.tensor([0.1, 0.2, -0.3, 0.0])
    part = listwise(target="ranks")
    a = part(side_of(delta, torch.tensor([1.0, 2, 3, 4]), g))
    b = part(side_of(delta, torch.tensor([1.0, 2, 3, 4e6]), g))
    torch.testing.assert_close(a, b)
    flat = listwise()(side_of(delta, torch.ones(4), g))
    torch.testing.assert_close(flat, -(delta / 0.6).log_softmax(-1))
    with pytest.raises(InputError, match="target='mean'"):
        listwise(target="mean")(side_of(delta, torch.ones(4), g))


# --------------------------------------------------------------------------- rejection sampling


def test_the_first_accepted_answer_is_one_of_the_tilted_policy():
    g = torch.Generator().manual_seed(0)
    p = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    r = torch.tensor([0.0, 0.5, 1.0, 0.2], dtype=torch.float64)
    counts = torch.zeros(4)
    for _ in range(4000):
        pool = torch.multinomial(p, 40, replacement=True, generator=g)
        first = rejection_sampled(r[pool], 1, 0.5, g)[0]
        counts[pool[first]] += 1
    want = (p * (r / 0.5).exp()) / (p * (r / 0.5).exp()).sum()
    assert ((counts / 4000 - want).abs() < 4 * (want * (1 - want) / 4000).sqrt() + 0.01).all()


def test_the_limits_are_the_best_and_a_random_choice():
    r = torch.arange(10.0)
    assert rejection_sampled(r, 3, 0.0) == [9, 8, 7]
    g = torch.Generator().manual_seed(0)
    drawn = torch.tensor([rejection_sampled(r, 1, 1e9, g)[0] for _ in range(3000)])
    assert (torch.bincount(drawn, minlength=10) / 3000 - 0.1).abs().max() < 0.03
    assert sorted(rejection_sampled(r, 10, 0.1, g)) == list(range(10))
    with pytest.raises(InputError, match="11 of 10"):
        rejection_sampled(r, 11, 0.5)


def test_rso_learns_from_pairs_of_accepted_answers():
    trainer = fresh_trainer(rso(count=4, group=8, batch=32, horizon=6, lr=1e-3), pairs=True)
    made = trainer.stream.next().pairs
    assert 0 < len(made) <= 8
    assert (made.chosen.total > made.rejected.total).all()
    assert torch.equal(made.chosen.prompt, made.rejected.prompt)
    assert trainer.update()["grad_norm"] > 0
    with pytest.raises(InputError, match="loss='ipo'"):
        rso(loss="ipo")


# --------------------------------------------------------------------------------------- rpo-sft


def test_rpo_at_zero_is_dpo_and_its_term_is_the_summed_likelihood():
    assert_same(gradient(pair_trainer(dpo(batch=12))), gradient(pair_trainer(rpo_sft(eta=0.0))))
    with_term = gradient(pair_trainer(rpo_sft(eta=2.0)))
    plain = gradient(pair_trainer(dpo(batch=12)))
    model = tiny()
    total = 0.0
    for r in rows():
        ids = torch.tensor(r["prompt"] + r["chosen"])
        logp = model(input_ids=ids[None]).logits[0].log_softmax(-1)
        n = len(r["prompt"])
        total = total - logp[n - 1 : -1].gather(-1, ids[n:, None]).sum() / 12
    total.backward()
    extra = {n: p.grad * 0.2 for n, p in model.named_parameters() if p.grad is not None}
    assert_same({n: with_term[n] - plain[n] for n in extra}, extra)


def test_the_adversary_of_rpo_weighs_sides_as_dpo_does():
    zero = Side(torch.zeros(3), torch.ones(3), Steps(torch.zeros(3, 1), torch.ones(3, 1)))
    torch.testing.assert_close(logistic()(Sides(zero, zero)), torch.full((3,), math.log(2)))


# ------------------------------------------------------------------------------------------ ShiQ


def tree_batch(task):
    """Every answer to the only prompt of a table, with its reward."""
    from surpass.data.records import Sequences

    action = task.responses()
    n = len(action)
    reward = torch.zeros(n, task.length)
    reward[:, -1] = task.rewards[0].float()
    return Sequences(action=action, mask=torch.ones(n, task.length), reward=reward,
                     prompt=torch.zeros(n, 1, dtype=torch.long), prompt_mask=torch.ones(n, 1),
                     batch_size=[n])  # fmt: skip


class Fixed:
    """One batch, again and again."""

    fixed, size = False, 0

    def __init__(self, seq):
        from surpass.training.language_streams import Batch

        self.batch = Batch("all", sequences=seq)

    def next(self):
        return self.batch


@pytest.mark.parametrize("make", [shiq, tbrm])
def test_residuals_vanish_at_the_soft_optimum_and_descent_finds_it(make):
    task = random_tree(vocab=3, length=3, share=0.2, seed=2)
    beta = 0.5
    g = torch.Generator().manual_seed(0)
    start = torch.randn(task.rows, task.vocab, generator=g)
    exact = task.truth(start.double()).logp[0] + task.rewards[0] / beta
    want = exact.log_softmax(-1)
    form = make(beta=beta, lr=0.05)
    policy = table_policy(task, start)
    trainer = ModuleTrainer(form, policy, Fixed(tree_batch(task)))
    first = trainer.update()["loss"]
    for _ in range(1500):
        last = trainer.update()["loss"]
    found = task.truth(policy.model.table.weight.detach().double()).logp[0]
    assert last < 1e-4 * first
    assert float((want.exp() * (want - found)).sum()) < 1e-3


def test_token_residuals_by_hand():
    logp, ref = torch.tensor([[-1.0, -2.0, -0.5]]), torch.tensor([[-1.5, -1.0, -0.5]])
    value = torch.tensor([[0.2, 0.4, 9.0]])
    s = Steps(logp, torch.tensor([[1.0, 1.0, 0.0]]), ref_logp=ref,
              advantage=torch.tensor([[3.0, 1.0, 0.0]]),
              extras={"log_partition": value, "soft_value": torch.zeros(1, 3)})  # fmt: skip
    first = 3.0 - 0.1 * ((0.5 - 1.0) + 0.2)
    second = 1.0 - 0.1 * (-1.0 + 0.4)
    assert token_residuals(0.1)(s).tolist() == [pytest.approx([first**2, second**2, 0.0])]


# --------------------------------------------------------------------------- answers in groups


def scored(n, answers):
    return [{"prompt": [1, i % 7, 3], "completion": [2, j, 5], "score": float(j)}
            for i in range(n) for j in range(answers)]  # fmt: skip


def test_answers_to_one_prompt_stay_in_one_batch():
    log = open_language(scored(7, 3), None, kind="scored")
    stream = RowStream(log, 7, kind="sequences", grouped=True)
    assert stream.together == 2 and stream.per_epoch == 3
    for number in range(6):
        found = [log.prompts[i] for i in stream.rows_at(number)]
        assert len(found) == 6 and all(found.count(p) == 3 for p in found)
    seen = {i for n in range(3) for i in stream.rows_at(n)}
    assert len(seen) == 18  # one group waits for the next order
    with pytest.raises(InputError, match="batch=3"):
        RowStream(log, 2, kind="sequences", grouped=True)


def test_answers_to_one_prompt_stay_on_one_process(monkeypatch):
    log = open_language(scored(7, 3), None, kind="scored")
    monkeypatch.setattr(language_streams, "world", lambda: 2)
    stream = RowStream(log, 12, kind="sequences", grouped=True)  # four groups of three
    shares = []
    for number in (0, 1):
        monkeypatch.setattr(language_streams, "rank", lambda number=number: number)
        shares.append(stream.own_rows(0))
        found = [log.prompts[i] for i in shares[-1]]
        assert len(found) == 6 and all(found.count(p) == 3 for p in found)
    assert sorted([*shares[0], *shares[1]]) == sorted(stream.rows_at(0))
    with pytest.raises(InputError, match="batch=6"):
        RowStream(log, 4, kind="sequences", grouped=True)


def test_offline_groups_train(tmp_path):
    from surpass.training.module_run import train_language

    for form in (copg(lr=1e-2, batch=6), adpo(lr=1e-2, batch=6)):
        policy = train_language(form, scored(7, 3), model=LanguagePolicy(tiny()), steps=30)
        log = open_language(scored(7, 3), None, kind="scored")
        with torch.no_grad():
            logp = policy.score(log.sequences(range(21))).logp.sum(-1).view(7, 3)
        assert (logp[:, 2] > logp[:, 0]).all()
