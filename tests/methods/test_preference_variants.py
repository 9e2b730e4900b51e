"""WPO, humanline, QRPO, TBRM, Nash-MP, HPT, CHORD and max@k on a tiny model: by hand, and recipes
that must coincide."""

import math

import pytest
import torch

transformers = pytest.importorskip("transformers")

from surpass.errors import InputError  # noqa: E402
from surpass.forms import PolicyGradient, rollouts  # noqa: E402
from surpass.methods.preference.best_of_many import max_at_k  # noqa: E402
from surpass.methods.preference.games import nash_mp  # noqa: E402
from surpass.methods.preference.humanline import (  # noqa: E402
    humanline,
    humanline_grpo,
    humanline_kto,
)
from surpass.methods.preference.luffy import luffy  # noqa: E402
from surpass.methods.preference.mixed import chord, hpt  # noqa: E402
from surpass.methods.preference.pairs import dpo  # noqa: E402
from surpass.methods.preference.regression import qrpo, tbrm  # noqa: E402
from surpass.methods.preference.scored import sft  # noqa: E402
from surpass.methods.preference.weighted import wpo  # noqa: E402
from surpass.methods.rlvr.policy_gradients import dr_grpo, rloo  # noqa: E402
from surpass.objectives.advantage import leave_one_out  # noqa: E402
from surpass.objectives.preference import quantile_regression  # noqa: E402
from surpass.objectives.reduce import sum_over  # noqa: E402
from surpass.objectives.trust import ratio_loss  # noqa: E402
from surpass.objectives.views import Side, Steps  # noqa: E402
from surpass.parts import cosine, linear, run, schedules  # noqa: E402
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

SMALL = {"batch": 16, "horizon": 6}


def log_softmax(model, row, side):
    ids = torch.tensor([[*row["prompt"], *row[side]]])
    logp = model(input_ids=ids).logits[0].log_softmax(-1)[len(row["prompt"]) - 1 : -1]
    return logp, logp.gather(-1, torch.tensor(row[side])[:, None])[:, 0]


def hand_gradient(model, loss):
    model.zero_grad()
    loss.backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    return found


def test_wpo_by_hand():
    """At the reference every margin is 0, so a pair's gradient is -w beta / 2 (grad z)."""
    model, weights = tiny(), []
    for r in rows():
        typical = []
        for side in ("chosen", "rejected"):
            logp, own = log_softmax(model, r, side)
            apart = own - (2 * logp).logsumexp(-1)
            typical.append(apart.mean().detach())
        weights.append(min(1.0, float((typical[0] + typical[1]).exp())))
    assert min(weights) < 0.999 and len(set(weights)) > 6
    loss = 0.0
    for r, w in zip(rows(), weights, strict=True):
        z = log_softmax(model, r, "chosen")[1].sum() - log_softmax(model, r, "rejected")[1].sum()
        loss = loss - w * 0.3 / 2 * z / 12
    assert_same(hand_gradient(model, loss), gradient(pair_trainer(wpo(0.3, batch=12))))


def test_wpo_with_no_cap_on_its_weight_below_is_dpo():
    """Weights capped at a tiny number are all that number: DPO, scaled."""
    want = gradient(pair_trainer(dpo(0.3, batch=12, lr=1e-2)))
    got = gradient(pair_trainer(wpo(0.3, cap=1e-2, batch=12, lr=1e-2)))
    assert_same(want, got, factor=1e-2, atol=1e-7)


def test_humanline_without_clamp_and_sync_is_dpo():
    form = humanline(0.3, low=-1e9, high=1e9, sync=10**6, lr=1e-2, batch=12)
    want = gradient(pair_trainer(dpo(0.3, lr=1e-2, batch=12)), updates=3)
    assert_same(want, gradient(pair_trainer(form), updates=3), atol=1e-5)


def test_humanline_s_reference_is_one_step_behind_and_clamped_tokens_do_not_move():
    form = humanline(0.3, lr=3e-2, batch=12)
    trainer = pair_trainer(form)
    before = []
    for _ in range(3):
        before.append({k: v.clone() for k, v in trainer.policy.model.state_dict().items()})
        trainer.update()
    shown = trainer.twins["reference"].shown.model.state_dict()
    for name, value in before[-1].items():
        torch.testing.assert_close(shown[name], value)
    model, reference = trainer.policy.model, tiny()
    reference.load_state_dict(shown)
    total, held = 0.0, 0
    for r in rows():
        delta = []
        for side in ("chosen", "rejected"):
            with torch.no_grad():
                ref = log_softmax(reference, r, side)[1]
            apart = log_softmax(model, r, side)[1] - ref
            held += int(((apart < -1) | (apart > 1.5)).sum())
            delta.append(apart.clamp(-1.0, 1.5).sum())
        total = total + torch.nn.functional.softplus(-0.3 * (delta[0] - delta[1])) / 12
    assert held > 0
    assert_same(hand_gradient(model, total), gradient(trainer), atol=1e-5)


def test_humanline_kto_begins_as_kto_and_humanline_grpo_as_grpo():
    from surpass.methods.preference.scored import kto

    want = gradient(row_trainer(kto(0.1), scored_rows(), "sequences"))
    assert_same(want, gradient(row_trainer(humanline_kto(0.1), scored_rows(), "sequences")))
    form = humanline_grpo(group=4, **SMALL)
    trainer = fresh_trainer(form)
    batch = trainer.stream.next()
    trainer.stream.next = lambda: batch
    plain = PolicyGradient(form.advantage, ratio_loss(), source=rollouts(16, 6, 4))
    other = fresh_trainer(plain)
    other.stream.next = lambda: batch
    assert_same(gradient(other), gradient(trainer))  # ratio 1: no clip acts, k3 has no gradient


# ------------------------------------------------------------------------------- regressions


TRANSFORMS = {"identity": lambda q: q, "log": torch.log, "normal": torch.special.ndtri}
CASES = [(b, name) for b in (0.05, 0.3, 1.0) for name in TRANSFORMS]


@pytest.mark.parametrize(
    ("beta", "transform"), [c for c in CASES if c != (0.05, "normal")]  # all of it in the tail
)  # fmt: skip
def test_the_partition_functions_of_qrpo_are_integrals(beta, transform):
    """beta log of the integral of exp(f(q) / beta) over q in (0, 1), and a loss of 0 there."""
    m, f = 400_000, TRANSFORMS[transform]
    q = (torch.arange(m, dtype=torch.float64) + 0.5) / m
    log_z = float((f(q) / beta).logsumexp(0) - math.log(m))
    theirs = torch.arange(8, dtype=torch.float64).expand(1, 8)
    here = torch.tensor([4.5], dtype=torch.float64)  # above 5 of 8
    fq = float(f(torch.tensor(5 / 8, dtype=torch.float64)))
    delta = torch.tensor([fq / beta - log_z], dtype=torch.float64)
    steps = Steps(delta[:, None], torch.ones(1, 1), extras={"reference_rewards": theirs})
    loss = quantile_regression(beta, transform)(Side(delta, torch.ones(1), steps, here))
    assert float(loss) == pytest.approx(0.0, abs=2e-5 if transform != "normal" else 0.02)
    up = quantile_regression(beta, transform)(Side(delta + 0.1, torch.ones(1), steps, here))
    assert float(up) == pytest.approx(
        (0.1 * beta) ** 2, abs=0.02 if transform == "normal" else 1e-4
    )


def test_qrpo_on_a_model_by_hand_and_without_its_column():
    data = [
        {**r, "label": 0.5 + i % 2, "reference_rewards": [0.0, 1.0, 2.0, 3.0]}
        for i, r in enumerate(scored_rows())
    ]
    model, beta = tiny(), 0.5
    log_z = math.log(beta * (math.exp(1 / beta) - 1))
    loss = 0.0
    for r in data:
        q = sum(v <= r["label"] for v in r["reference_rewards"]) / 4
        _, own = log_softmax(model, r, "completion")
        loss = loss - 2 * (q - beta * log_z) * beta * (own.sum() - own.sum().detach()) / 12
    trainer = row_trainer(qrpo(beta, batch=12), data, "sequences")
    assert_same(hand_gradient(model, loss), gradient(trainer), atol=1e-5)
    with pytest.raises(InputError, match="a column reference_rewards"):
        row_trainer(qrpo(beta, batch=12), scored_rows(), "sequences").update()


@pytest.mark.parametrize("shift", [True, False])
def test_tbrm_by_hand(shift):
    trainer = fresh_trainer(tbrm(0.5, shift=shift, lr=1e-2, **SMALL))
    batch = trainer.stream.next()
    trainer.stream.next = lambda: batch
    trainer.update()  # away from the reference
    model, reference, seq = trainer.policy.model, tiny(), batch.sequences
    loss = 0.0
    for i in range(len(seq)):
        prompt = seq.prompt[i][seq.prompt_mask[i] > 0]
        answer = seq.action[i][seq.mask[i] > 0]
        both = []
        for m in (model, reference):
            logits = m(input_ids=torch.cat([prompt, answer])[None]).logits[0, len(prompt) - 1 : -1]
            logp = logits.log_softmax(-1).gather(-1, answer[:, None]).sum()
            both.append((logits[0].logsumexp(-1), logp))
        (v, logp), (v_ref, ref) = both[0], [x.detach() for x in both[1]]
        residual = 0.5 * (v - shift * v_ref + logp - ref) - seq.total[i]
        loss = loss + residual.square() / len(seq)
    assert_same(hand_gradient(model, loss), gradient(trainer), atol=2e-5)


# ---------------------------------------------------------------------- mixtures and the best of k


def traces(seq, index):
    out = seq.clone()
    out.action, out.mask = out.action * 0 + 5, torch.ones_like(out.mask)
    return out


def mixed_trainer(form, batch=None):
    trainer = fresh_trainer(form, expert=traces, reward=lambda s: (s.action.sum(-1) % 2).float())
    batch = batch or trainer.stream.next()
    trainer.stream.next = lambda: batch
    return trainer, batch


def test_hpt_at_the_ends_of_its_gate_is_grpo_and_sft():
    always, batch = mixed_trainer(hpt(gate=1.0, bonus=0.0, group=4, **SMALL))
    expert = batch.sequences[batch.sequences.source == 1]
    data = [{"prompt": s.prompt[s.prompt_mask > 0].tolist(), "completion": s.action.tolist()}
            for s in expert]  # fmt: skip
    imitation = row_trainer(sft(batch=4), data, "sequences")
    assert_same(gradient(imitation), gradient(always))
    never, _ = mixed_trainer(hpt(gate=-1.0, bonus=0.0, group=4, **SMALL), batch)
    own = fresh_trainer(dr_grpo(group=4, **SMALL))
    rows_ = batch.sequences[batch.sequences.source == 0]
    own.stream.next = lambda: type(batch)("own", sequences=rows_)
    assert_same(gradient(own), gradient(never))


def test_chord_mixes_two_normalized_losses():
    only_own, batch = mixed_trainer(chord(0.0, group=4, **SMALL))
    ends = [gradient(only_own)]
    ends.append(gradient(mixed_trainer(chord(1.0, group=4, **SMALL), batch)[0]))
    got = gradient(mixed_trainer(chord(0.3, group=4, **SMALL), batch)[0])
    assert_same({n: 0.7 * a + 0.3 * ends[1][n] for n, a in ends[0].items()}, got)
    fixed = gradient(mixed_trainer(chord(1.0, phi=False, group=4, **SMALL), batch)[0])
    always = gradient(mixed_trainer(hpt(gate=1.0, bonus=0.0, group=4, **SMALL), batch)[0])
    assert_same(always, fixed)  # without phi its expert half is supervised training


def test_chord_s_schedule_weighs_both_halves_to_one():
    late = linear(0.9, 0.05, steps=200, after=100, every=50)
    for mu in (late, cosine(0.9, 0.05, steps=200)):
        form = chord(mu, phi=False)
        both = sorted(schedules(form).values(), key=lambda s: s.start)
        for step in (0, 100, 120, 200, 1000):
            assert sum(s.at(step) for s in both) == pytest.approx(1.0)
    assert both[1].at(0) == 0.9 and both[1].at(500) == pytest.approx(0.05)


def test_luffy_s_own_half_is_dr_grpo_with_the_trace_in_the_baseline():
    trainer, batch = mixed_trainer(luffy(bonus=0.0, group=4, **SMALL))
    kept = batch.sequences[batch.sequences.source == 0]
    moved = gradient(trainer)
    a = trainer.form.advantage(batch.sequences)[: len(kept)]
    other = fresh_trainer(PolicyGradient(lambda_of(a), ratio_loss(), reduce=sum_over(6.0),
                                         source=rollouts(16, 6, 4)))  # fmt: skip
    other.stream.next = lambda: type(batch)("own", sequences=kept)
    expert_only, _ = mixed_trainer(luffy(bonus=0.0, group=4, **SMALL), batch)
    expert_only.stream.next = lambda: batch
    own = gradient(other)
    assert max(float((moved[n] - 0.8 * own[n]).abs().max()) for n in own) > 1e-5  # the trace acts
    zero = luffy(bonus=0.0, group=4, gamma=1e9, **SMALL)  # its weight is 0
    assert_same(own, gradient(mixed_trainer(zero, batch)[0]), factor=0.8)


def lambda_of(advantage):
    from surpass.parts import part

    @part
    def stored(seq, /):
        return advantage

    return stored()


def test_max_at_one_is_rloo_and_clips_as_grpo():
    trainer = fresh_trainer(max_at_k(1, group=4, **SMALL))
    batch = trainer.stream.next()
    trainer.stream.next = lambda: batch
    other = fresh_trainer(rloo(beta=0.0, group=4, **SMALL))
    other.stream.next = lambda: batch
    width = batch.sequences.action.shape[1]
    assert_same(gradient(trainer), gradient(other), factor=6 / width)
    assert max_at_k(1).advantage(batch.sequences).equal(leave_one_out()(batch.sequences))


def test_nash_mp_begins_as_rloo_on_wins():
    """At the start policy, target and reference are one: only wins count."""
    trainer = fresh_trainer(nash_mp(group=4, **SMALL))
    batch = trainer.stream.next()
    trainer.stream.next = lambda: batch
    seq = batch.sequences.clone()
    r = seq.total.view(-1, 4)
    beats = 0.5 * (1 + (r[:, :, None] - r[:, None]).sign())
    wins = (beats.sum(-1) - 0.5) / 3
    rest = (wins.sum(-1, keepdim=True) - wins) / 3
    other = fresh_trainer(PolicyGradient(lambda_of((wins - rest).flatten()[:, None] * seq.mask),
                                         ratio_loss(), reduce=sum_over(),
                                         source=rollouts(16, 6, 4)))  # fmt: skip
    other.stream.next = lambda: batch
    assert_same(gradient(other), gradient(trainer))
    assert float(run(trainer.form.advantage, (with_logps(seq),))[1][""]["turn"]) == 1


def with_logps(seq):
    from surpass.objectives.advantage import with_columns

    return with_columns(seq, target_logp=seq.behavior_logp, ref_logp=seq.behavior_logp)
