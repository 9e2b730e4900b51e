"""`evaluate` on logs with known truth: in memory, streaming, clustered, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from surpass.data.records import About, Decisions
from surpass.errors import InputError
from surpass.evaluation.decisions import DEFAULT, evaluate
from surpass.forms import Estimator
from surpass.objectives.scores import importance, linearized, modeled, self_normalized, weighted
from surpass.objectives.views import Query
from surpass.parts import part

A, D = 4, 3
W = torch.randn(A, D, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def logged(n: int, seed: int = 0, full: bool = True) -> tuple[Decisions, Tensor, Tensor]:
    """A log, the target's probabilities and the true mean rewards [n, A]."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, D, generator=g, dtype=torch.float64)
    mu, pi = torch.softmax(0.5 * x @ W.T, -1), torch.softmax(1.5 * x @ W.T, -1)
    q = torch.sigmoid(x @ W.T - 0.5)
    action = torch.multinomial(mu, 1, generator=g)
    reward = torch.bernoulli(q.gather(1, action)[:, 0], generator=g)
    log = Decisions(
        context=x, action=action[:, 0], reward=reward, propensity=mu.gather(1, action)[:, 0],
        propensities=mu if full else None, batch_size=[n],
    )  # fmt: skip
    return log.described(About(actions=tuple("abcd"))), pi, q


def test_every_estimator_is_near_the_truth_and_covers_it_where_it_has_no_bias():
    log, pi, q = logged(20_000)
    truth = (pi * q).sum(-1).mean().item()
    found = evaluate(pi, log)
    assert [r.estimator for r in found] == list(DEFAULT)
    for r in found:
        assert abs(r.value - truth) < 0.03, r.estimator
        if not r.biased:
            assert r.low < truth < r.high
    w = pi.gather(1, log.action[:, None])[:, 0] / log.propensity
    assert found["ips"].value == pytest.approx((w @ log.reward).item() / 20_000, rel=1e-12)
    assert found["snips"].value == pytest.approx((w @ log.reward / w.sum()).item(), rel=1e-12)
    assert found["ips"].ess == pytest.approx((w.sum() ** 2 / (w @ w)).item(), rel=1e-9)
    assert found["ips"].max_weight == pytest.approx(w.max().item())
    scores = w * log.reward
    assert found["ips"].error == pytest.approx(scores.std().item() / 20_000**0.5, rel=1e-9)
    gains = scores - log.reward
    assert found["ips"].gain_error == pytest.approx(gains.std().item() / 20_000**0.5, rel=1e-9)
    assert found["dr"].error < 0.8 * found["ips"].error


def test_streaming_agrees_with_memory():
    log, pi, _ = logged(7000)
    memory = evaluate(pi, log, fit_rows=3000)
    for size in (911, 4000):
        stream = evaluate(
            pi, iter([log[i : i + size] for i in range(0, 7000, size)]), fit_rows=3000
        )
        for a, b in zip(memory, stream, strict=True):
            assert a.score == b.score
            for name in ("value", "error", "gain", "gain_error", "ess", "max_weight"):
                assert getattr(b, name) == pytest.approx(getattr(a, name), rel=1e-9, abs=1e-12)
            assert b.low == pytest.approx(a.low, rel=1e-6)


def test_the_delta_method_is_the_linearized_score():
    log, pi, _ = logged(3000)
    found = evaluate(pi, log, {"snips": Estimator(self_normalized())}, interval="normal")["snips"]
    w = pi.gather(1, log.action[:, None])[:, 0] / log.propensity
    influence = w * (log.reward - found.value) / w.mean()
    assert found.error == pytest.approx(influence.std().item() / 3000**0.5, rel=1e-9)
    gain = influence - (log.reward - log.reward.mean())
    assert found.gain_error == pytest.approx(gain.std().item() / 3000**0.5, rel=1e-9)


def test_every_form_of_a_policy_says_the_same():
    log, pi, _ = logged(500)

    class Object:
        def probabilities(self, context: Tensor) -> Tensor:
            return torch.softmax(1.5 * context @ W.T, -1)

    class Module(torch.nn.Module):
        def forward(self, context: Tensor, reference: Tensor) -> Tensor:
            return torch.softmax(1.5 * context @ W.T, -1)

    three = torch.stack((pi.flip(1), pi), -1)  # Open Bandit Pipeline: [n, A, positions]
    log.position = torch.ones(500, dtype=torch.int64)
    policies = {
        "numbers": pi, "object": Object(), "module": Module(), "function": Object().probabilities,
        "obp": three.numpy(),
    }  # fmt: skip
    found = evaluate(policies, log, ["dr"])
    assert len({round(r.value, 12) for r in found}) == 1
    assert found["obp", "dr"].joint is not None
    constant = evaluate(torch.tensor([1.0, 0, 0, 0]), log, ["ips"])["ips"]
    first = log.action == 0
    assert constant.value == pytest.approx(
        (log.reward[first] / log.propensity[first]).sum().item() / 500
    )


def test_the_logging_policy_itself_has_no_gain():
    log, _, _ = logged(2000)
    found = evaluate(log.propensities, log)
    for r in found:
        assert r.gain == pytest.approx(0.0, abs=1e-12)
        assert r.gain_error == pytest.approx(0.0, abs=1e-9)


def test_gain_over_another_reference():
    log, pi, q = logged(20_000)
    uniform = torch.full((A,), 0.25)
    found = evaluate(pi, log, ["dr"], reference=uniform)["dr"]
    assert found.gain_low < (pi * q).sum(-1).mean() - q.mean() < found.gain_high
    assert found.reference == pytest.approx(q.mean().item(), abs=0.02)


def test_only_the_logged_propensity_is_known():
    log, pi, q = logged(20_000, full=False)
    truth = (pi * q).sum(-1).mean().item()
    for name in ("ips", "snips", "dr"):
        r = evaluate(pi, log, [name])[name]
        assert r.low < truth < r.high
        assert r.reference == pytest.approx(log.reward.mean().item(), rel=1e-12)
        assert r.gain == pytest.approx(r.value - r.reference, rel=1e-12)


def test_groups_widen_the_interval():
    """Every row eight times: the interval must be that of the distinct rows."""
    log, pi, _ = logged(1000)
    log.group = torch.arange(1000)
    eight = torch.cat([log] * 8)
    once = evaluate(pi, log, ["ips"], interval="normal")["ips"]
    clustered = evaluate(pi.repeat(8, 1), eight, ["ips"], interval="normal")["ips"]
    assert clustered.error == pytest.approx(once.error, rel=1e-9)
    eight.group = None
    naive = evaluate(pi.repeat(8, 1), eight, ["ips"], interval="normal")["ips"]
    assert naive.error == pytest.approx(once.error / 8**0.5, rel=1e-3)


def test_support_is_the_mass_that_the_log_can_speak_of():
    log, pi, _ = logged(2000)
    mu = log.propensities.clone()
    kept = log.action != 3
    mu[:, 3] = 0
    mu = mu / mu.sum(-1, keepdim=True)
    log = log[kept]
    log.propensities = mu[kept]
    log.propensity = mu[kept].gather(1, log.action[:, None])[:, 0]
    found = evaluate(pi[kept], log, ["ips"])["ips"]
    assert found.support == pytest.approx(1 - pi[kept][:, 3].mean().item())


def test_intervals_that_hold_for_every_sample_size_are_wider():
    log, pi, _ = logged(3000)
    widths = {}
    for name in ("normal", "guarded", "bernstein"):
        r = evaluate(pi, log, ["dr"], interval=name, reward_range=(0.0, 1.0))["dr"]
        assert r.interval == name
        assert r.low < r.value < r.high
        widths[name] = r.high - r.low
    assert widths["normal"] < widths["guarded"] < 1.2 * widths["normal"]
    assert widths["bernstein"] > 1.2 * widths["normal"]


@part
def self_normalized_value(query: Query, /) -> Tensor:
    w = query.weights * query.ratio
    return (w * query.reward).sum() / w.sum()


def test_a_score_that_needs_the_whole_log_is_told_apart():
    log, pi, _ = logged(2000)
    forms = {"whole": Estimator(linearized(self_normalized_value())),
             "terms": Estimator(self_normalized())}  # fmt: skip
    found = evaluate(pi, log, forms)
    for name in ("value", "error", "gain", "gain_error", "ess"):
        assert getattr(found["whole"], name) == pytest.approx(
            getattr(found["terms"], name), rel=1e-9
        )
    with pytest.raises(InputError, match="in memory"):
        evaluate(pi, iter([log]), forms)


def test_joint_bounds_are_wider_than_single_ones():
    log, pi, _ = logged(4000)
    even = torch.full((4000, A), 0.25)
    found = evaluate({"good": pi, "even": even, "half": (pi + even) / 2}, log, ["dr"],
                     interval="normal", resamples=4000)  # fmt: skip
    for r in found:
        assert r.joint is not None
        assert r.joint.low < r.gain_low < r.gain_high < r.joint.high


@pytest.mark.parametrize("method", ["bernstein", "guarded"])
def test_bounds_on_single_rows_are_not_claimed_of_rows_in_groups(method):
    log, pi, _ = logged(400)
    five = torch.arange(400).repeat_interleave(5)  # every row five times
    many, pi = log[five].described(log.about), pi[five]
    free = evaluate(pi, many, ["ips", "snips"], interval=method, reward_range=(0, 1))
    assert (free["ips"].interval, free["snips"].interval) == (method, "bootstrap")
    many.group = five
    held = evaluate(pi, many, ["ips"], interval=method, reward_range=(0, 1))["ips"]
    assert held.interval == "bootstrap"
    assert held.high - held.low > 3 * held.error  # of 400 units, and not of 2,000 rows
    assert held.error == pytest.approx(5**0.5 * free["ips"].error, rel=0.01)


def test_what_it_refuses():
    log, pi, _ = logged(200)
    with pytest.raises(InputError, match="did you mean 'snips'"):
        evaluate(pi, log, ["snip"])
    with pytest.raises(InputError, match="row 4 sum to 2"):
        evaluate(torch.cat((pi[:3], 2 * pi[3:])), log)
    with pytest.raises(InputError, match="3 actions, but the log has 4"):
        evaluate(pi[:, :3] / pi[:, :3].sum(-1, keepdim=True), log)
    with pytest.raises(InputError, match="one row of action probabilities"):
        evaluate(pi[:100], log)
    with pytest.raises(InputError, match="reward_range"):
        evaluate(pi, log, interval="bernstein")
    with pytest.raises(InputError, match="no rows"):
        evaluate(pi, iter([]))
    with pytest.raises(InputError, match="a single independent unit"):
        evaluate(pi, log[:1], ["ips"])
    log.group = torch.full((200,), 7)
    with pytest.raises(InputError, match="a single independent unit"):
        evaluate(pi, log, ["ips"])
    log.group = None
    with pytest.raises(InputError, match=r"not an estimator|not built yet"):
        evaluate(pi, log, ["exp-smoothing"])


def test_an_estimator_names_the_column_it_misses():
    log, pi, _ = logged(200)
    form = {"late": Estimator(weighted(), needs=("time",))}
    with pytest.raises(InputError, match="late needs the column 'time'"):
        evaluate(pi, log, form)
    log.time = torch.arange(200.0)
    assert evaluate(pi, log, form)["late"].value == evaluate(pi, log, ["ips"])["ips"].value


def test_a_module_needs_the_reference():
    log, _, _ = logged(200, full=False)
    with pytest.raises(InputError, match="reference="):
        evaluate(torch.nn.Identity(), log)


def test_the_table_reads_and_stores():
    log, pi, _ = logged(300)
    found = evaluate(pi, log, {"dr": Estimator(weighted(importance(), modeled()))})
    assert "dr" in str(found)
    stored = found.to_json()["results"][0]
    assert stored["value"] == found["dr"].value
    with pytest.raises(InputError, match="estimators are dr"):
        found["ips"]
