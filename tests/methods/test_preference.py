"""Recipes of the preference family: values by hand, and recipes that must coincide."""

import math

import pytest
import torch

transformers = pytest.importorskip("transformers")

from surpass.data.language import collate  # noqa: E402
from surpass.forms import Adam, Pairwise, PolicyGradient, log  # noqa: E402
from surpass.methods.preference.luffy import luffy  # noqa: E402
from surpass.methods.preference.online import best_of_n, online_dpo  # noqa: E402
from surpass.methods.preference.pairs import (  # noqa: E402
    cdpo,
    dpo,
    ipo,
    orpo,
    pairs,
    reward_model,
    simpo,
)
from surpass.methods.preference.robust import rdpo  # noqa: E402
from surpass.methods.preference.scored import kto, rebel, sft  # noqa: E402
from surpass.objectives.advantage import best_of_group, ones  # noqa: E402
from surpass.objectives.preference import logistic  # noqa: E402
from surpass.objectives.ratio import averaged  # noqa: E402
from surpass.objectives.reduce import sequence_mean  # noqa: E402
from surpass.objectives.trust import nll  # noqa: E402
from surpass.objectives.unified import shaped, unified  # noqa: E402
from surpass.objectives.views import Steps  # noqa: E402
from surpass.parts import run  # noqa: E402
from surpass.policies.language import LanguagePolicy  # noqa: E402
from tests.methods.language_cases import (  # noqa: E402
    assert_same,
    fresh_trainer,
    gradient,
    pair_trainer,
    row_trainer,
    rows,
    scored_rows,
    tiny,
)


def logp_by_hand(model, prompt, answer):
    """log pi(answer | prompt), summed, from the model's own logits."""
    ids = torch.tensor([[*prompt, *answer]])
    logp = model(input_ids=ids).logits[0].log_softmax(-1)
    at = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
    return sum(logp[i, token] for i, token in zip(at, answer, strict=True))


def margins_by_hand(model, reference):
    def delta(row, side):
        args = (row["prompt"], row[side])
        with torch.no_grad():
            ref = logp_by_hand(reference, *args)
        return logp_by_hand(model, *args) - ref

    return torch.stack([delta(r, "chosen") - delta(r, "rejected") for r in rows()])


def gradient_by_hand(model, loss):
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters()}


LOSSES = {
    "dpo": (dpo(0.3, lr=1e-2), lambda z: torch.nn.functional.softplus(-0.3 * z)),
    "ipo": (ipo(0.3, lr=1e-2), lambda z: (z - 1 / 0.6).square()),
    "cdpo": (
        cdpo(0.2, 0.3, lr=1e-2),
        lambda z: 0.8 * torch.nn.functional.softplus(-0.3 * z)
        + 0.2 * torch.nn.functional.softplus(0.3 * z),
    ),
    "rdpo": (
        rdpo(0.2, 0.3, lr=1e-2),
        lambda z: (
            0.8 * torch.nn.functional.softplus(-0.3 * z)
            - 0.2 * torch.nn.functional.softplus(0.3 * z)
        ) / 0.6,
    ),
}  # fmt: skip


@pytest.mark.parametrize("key", LOSSES)
def test_pair_losses_are_those_of_the_papers(key):
    form, by_hand = LOSSES[key]
    trainer = pair_trainer(form)
    trainer.update()  # away from the reference, where the margin is not zero
    model = trainer.policy.model
    loss = by_hand(margins_by_hand(model, tiny())).mean()
    want = gradient_by_hand(model, loss)
    model.zero_grad()
    assert_same(want, gradient(trainer), atol=1e-5)
    assert trainer.running.notes["margin"] == pytest.approx(
        float(margins_by_hand(model, tiny()).mean().detach()), abs=1e-4
    )


def test_the_first_loss_of_dpo_is_log_two():
    assert pair_trainer(dpo()).update()["loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_dpo_variants_without_their_variation_are_dpo():
    want = gradient(pair_trainer(dpo(0.3, lr=1e-2)), updates=2)
    assert_same(want, gradient(pair_trainer(cdpo(0.0, 0.3, lr=1e-2)), updates=2))
    assert_same(want, gradient(pair_trainer(rdpo(0.0, 0.3, lr=1e-2)), updates=2))


def test_simpo_by_hand_and_as_dpo_of_mean_log_probs():
    def delta(model, row, side):
        return logp_by_hand(model, row["prompt"], row[side]) / len(row[side])

    trainer = pair_trainer(simpo(2.0, 1.0))
    model = tiny()
    z = torch.stack([delta(model, r, "chosen") - delta(model, r, "rejected") for r in rows()])
    loss = torch.nn.functional.softplus(-(2 * z - 1)).mean()
    assert_same(gradient_by_hand(model, loss), gradient(trainer))
    bare = Pairwise(logistic(2.0), ratio=averaged(), nets={}, source=pairs(12))
    assert_same(gradient(pair_trainer(bare)), gradient(pair_trainer(simpo(2.0, 0.0))))


def test_orpo_without_odds_is_supervised_training_on_the_chosen():
    chosen = [{"prompt": r["prompt"], "completion": r["chosen"]} for r in rows()]
    imitation = PolicyGradient(ones(), nll(), reduce=sequence_mean(), source=log(12))
    want = gradient(row_trainer(imitation, chosen, "sequences"))
    assert_same(want, gradient(pair_trainer(orpo(lam=0.0))))
    trainer, model = pair_trainer(orpo(lam=0.5)), tiny()
    total = 0.0
    for r in rows():
        good, bad = (
            logp_by_hand(model, r["prompt"], r[s]) / len(r[s]) for s in ("chosen", "rejected")
        )
        odds = [p - torch.log1p(-p.exp()) for p in (good, bad)]
        total = total - good - 0.5 * torch.nn.functional.logsigmoid(odds[0] - odds[1])
    assert_same(gradient_by_hand(model, total / 12), gradient(trainer))


def test_sft_is_the_model_s_own_loss():
    model, data = tiny(), scored_rows()
    seq = collate([r["prompt"] for r in data], [r["completion"] for r in data])
    total, count = 0.0, 0
    for r in data:
        total = total - logp_by_hand(model, r["prompt"], r["completion"])
        count += len(r["completion"])
    want = gradient_by_hand(model, total / count)
    form = sft(batch=12)
    trainer = row_trainer(form, [{k: r[k] for k in ("prompt", "completion")} for r in data],
                          "sequences")  # fmt: skip
    assert_same(want, gradient(trainer))
    assert float(seq.mask.sum()) == count


def test_kto_at_the_start_pulls_and_pushes_by_label():
    trainer = row_trainer(kto(0.1), scored_rows(), "sequences")
    got = gradient(trainer)
    model = tiny()
    total = 0.0
    for r in scored_rows():  # sigma' (0) = 1 / 4, and the reference point is 0
        sign = 1.0 if r["label"] else -1.0
        total = total - sign * 0.1 * 0.25 * logp_by_hand(model, r["prompt"], r["completion"])
    assert_same(gradient_by_hand(model, total / 12), got)


def test_reward_model_learns_what_is_chosen():
    trainer = pair_trainer(reward_model(lr=3e-3, batch=12))
    first = trainer.update()
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    for _ in range(30):
        last = trainer.update()
    assert last["accuracy"] == 1.0 and last["loss"] < 0.2
    net, data = trainer.nets["reward"], trainer.stream.log.pairs(range(12))
    apart = (net(data.chosen) - net(data.rejected)).detach()
    alone = torch.stack([net(data.chosen[i : i + 1])[0] for i in range(12)]).detach()
    torch.testing.assert_close(alone, net(data.chosen).detach(), rtol=1e-4, atol=1e-5)
    assert (apart > 0).all()


def test_online_dpo_is_dpo_on_the_pairs_it_made():
    trainer = fresh_trainer(online_dpo(0.3, group=4, batch=16, horizon=6), pairs=True)
    batch = trainer.stream.next()
    assert (batch.pairs.chosen.total > batch.pairs.rejected.total).all()
    assert torch.equal(batch.pairs.chosen.group, batch.pairs.rejected.group)
    trainer.stream.next = lambda: batch
    data = [
        {
            "prompt": c.prompt[c.prompt_mask > 0].tolist(),
            "chosen": c.action[c.mask > 0].tolist(),
            "rejected": r.action[r.mask > 0].tolist(),
        }
        for c, r in zip(batch.pairs.chosen, batch.pairs.rejected, strict=True)
    ]
    assert_same(gradient(row_trainer(dpo(0.3), data, "pairs")), gradient(trainer))


def test_ties_make_no_pairs():
    form = online_dpo(group=4, batch=16, horizon=6)
    trainer = fresh_trainer(form, reward=lambda seq: torch.ones(len(seq)), pairs=True)
    before = [p.clone() for p in trainer.policy.model.parameters()]
    assert trainer.update()["pairs"] == 0
    assert all(
        torch.equal(a, b) for a, b in zip(before, trainer.policy.model.parameters(), strict=True)
    )


def test_best_of_n_is_supervised_training_on_the_best():
    trainer = fresh_trainer(best_of_n(4, batch=16, horizon=6))
    batch = trainer.stream.next()
    trainer.stream.next = lambda: batch
    best = batch.sequences[best_of_group()(batch.sequences).nonzero()[:, 0]]
    assert len(best) == 4
    data = [
        {
            "prompt": s.prompt[s.prompt_mask > 0].tolist(),
            "completion": s.action[s.mask > 0].tolist(),
        }
        for s in best
    ]
    assert_same(gradient(row_trainer(sft(), data, "sequences")), gradient(trainer))


def test_rebel_moves_nothing_where_rewards_are_equal():
    form = rebel(batch=16, group=4)
    form.source.options["horizon"] = 6
    trainer = fresh_trainer(form, reward=lambda seq: torch.ones(len(seq)))
    assert trainer.update()["loss"] == pytest.approx(0.0, abs=1e-10)
    assert max(float(g.abs().max()) for g in gradient(fresh_trainer(form)).values()) > 1e-3


def test_luffy_weighs_tokens_most_at_gamma():
    p = torch.linspace(0.01, 0.99, 99)
    logp = p.log().requires_grad_()
    s = Steps(logp[None], torch.ones(1, 99), advantage=torch.ones(1, 99))
    run(unified(denominator=shaped(0.1)), (s,))[0].sum().backward()
    torch.testing.assert_close(-logp.grad, 0.1 * p / (p + 0.1).square())
    assert float(p[(-logp.grad).argmax()]) == pytest.approx(0.1)


def test_luffy_counts_the_expert_in_the_group():
    def traces(seq, index):
        out = seq.clone()
        out.action, out.mask = out.action * 0 + 5, torch.ones_like(out.mask)
        return out

    form = luffy(group=3, batch=12, horizon=6)
    trainer = fresh_trainer(form, reward=lambda seq: (seq.action == 5).all(-1).float(),
                            expert=traces)  # fmt: skip
    batch = trainer.stream.next()
    seq = batch.sequences
    assert batch.sources == ("own", "expert") and len(seq) == 16
    assert seq.source.tolist() == [0] * 12 + [1] * 4
    a = form.advantage(seq)
    assert torch.allclose(a[12:].amax(-1), torch.full((4,), 0.75))
    assert torch.allclose(a[:12].amin(-1), torch.full((12,), -0.25))
    trainer.stream.next = lambda: batch
    assert math.isfinite(trainer.update()["loss"])


def test_an_optimizer_set_in_a_recipe_is_used():
    assert dpo(lr=3e-4).optimizer == Adam(3e-4, max_norm=1.0)
    assert LanguagePolicy(tiny()).vocabulary == 18
