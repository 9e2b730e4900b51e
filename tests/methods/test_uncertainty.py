"""HAPO: standings, advantages over tokens, bounds by uncertainty, warm sampling; values by hand."""

import pytest
import torch

transformers = pytest.importorskip("transformers")

from surpass.data.records import Sequences  # noqa: E402
from surpass.errors import InputError  # noqa: E402
from surpass.forms import rollouts  # noqa: E402
from surpass.methods.rlvr.uncertainty import hapo_token  # noqa: E402
from surpass.objectives.advantage import group_standardized  # noqa: E402
from surpass.objectives.divergence import entropy  # noqa: E402
from surpass.objectives.trust import dual_clip  # noqa: E402
from surpass.objectives.uncertainty import (  # noqa: E402
    Heat,
    entropy_heat,
    scale_of,
    standing,
    token_group_standardized,
    uneven_clip,
)
from surpass.objectives.views import Steps  # noqa: E402
from surpass.policies.generation import Sampling, generate  # noqa: E402
from surpass.policies.language import LanguagePolicy  # noqa: E402
from surpass.tasks.language import ModSum  # noqa: E402
from surpass.training.language_rollouts import RolloutStream, TaskPrompts  # noqa: E402
from tests.methods.language_cases import assert_same, gradient, tiny  # noqa: E402
from tests.methods.test_rlvr import by_hand, fixed  # noqa: E402

E = torch.e


def test_standings_run_from_the_least_to_the_most_uncertain():
    h = torch.tensor([[E**-3, E**-1, E**2, 99.0], [E**1, E**0, E**1.5, 0.0]])
    mask = torch.tensor([[1.0, 1, 1, 0], [1, 1, 1, 0]])
    # logs -3 -1 0 1 1.5 2; the 0.8 quantile of six, nearest: place 4 (of 0..5), which is 1.5
    scale = scale_of(h, mask, 0.8)
    assert [float(x) for x in scale] == pytest.approx([1.5, 0.5, 4.5], abs=1e-5)
    found = standing(h, scale)
    assert found[0, :3].tolist() == pytest.approx([-1.0, -2.5 / 4.5, 1.0], abs=1e-5)
    assert found[1, :3].tolist() == pytest.approx([-0.5 / 4.5, -1.5 / 4.5, 0.0], abs=1e-5)
    assert float(standing(torch.tensor(E**9), scale)) == 1.0  # of another batch: held


def answers(rewards, lengths, group):
    width = max(lengths)
    mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).float()
    reward = torch.zeros(len(lengths), width)
    reward[:, 0] = torch.tensor(rewards)
    return Sequences(action=torch.zeros_like(mask).long(), mask=mask, reward=reward,
                     group=torch.tensor(group), batch_size=[len(lengths)])  # fmt: skip


def test_a_groups_mean_is_over_its_tokens():
    seq = answers([1.0, 0.0, 0.0, 1.0, 1.0], [2, 3, 5, 4, 4], [0, 0, 0, 1, 1])
    a = token_group_standardized()(seq)
    mean = 2 / 10
    std = (2 / 10 * (1 - mean) ** 2 + 8 / 10 * mean**2) ** 0.5
    assert a[0, :2].tolist() == pytest.approx([(1 - mean) / std] * 2, rel=1e-4)
    assert a[2].tolist() == pytest.approx([-mean / std] * 5, rel=1e-4)
    assert float(a[:3].sum()) == pytest.approx(0.0, abs=1e-4)
    assert a[0, 2:].abs().sum() == 0.0 and a[3:].abs().sum() == 0.0


def test_a_short_success_among_long_failures_takes_the_plain_advantage():
    seq = answers([1.0, 0.0, 0.0, 0.0, 1.0, 0.0], [1, 20, 20, 20, 5, 5], [0, 0, 0, 0, 1, 1])
    a, plain = token_group_standardized()(seq), group_standardized()(seq)
    torch.testing.assert_close(a[:4], plain[:4])  # sqrt(60) > 5
    assert float(a[4, 0]) == pytest.approx(1.0, rel=1e-4)


def steps(ratio, advantage, h):
    logp = torch.tensor([ratio]).log().requires_grad_()
    mask = torch.ones_like(logp)
    return logp, Steps(logp, mask, log_ratio=logp, advantage=torch.tensor([advantage]),
                       entropy=torch.tensor([h]))  # fmt: skip


RATIO = [0.5, 0.75, 1.0, 1.05, 1.15, 1.3, 1.5, 12.0]
UNSURE = [0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_without_its_additions_it_is_the_dual_clip(sign):
    logp, s = steps(RATIO, [sign] * 8, UNSURE)
    want = dual_clip(0.2, 0.28, 10.0)(s)
    found = uneven_clip(0.2, 0.28, widen=0.0, lean=0.0)(s)
    torch.testing.assert_close(found, want)


def test_bounds_and_advantages_by_hand():
    """Of three decisions, the pivot at quantile 0.5: h = -1, 0, 1."""
    h = [E**-1, E**0, E**1]

    def slopes(ratio, a):
        logp, s = steps([ratio] * 3, [a] * 3, h)
        loss = uneven_clip(quantile=0.5)(s)
        return torch.autograd.grad(loss.sum(), logp)[0][0].tolist()

    # A > 0, r = 1.3: beyond 1.2 for the first two, within 1.4 and moved (> 1.2): A (1 + 1)
    assert slopes(1.3, 1.0) == pytest.approx([0.0, 0.0, -2.6], abs=1e-5)
    # A < 0, r = 0.7: within 1 - 0.4 for the certain one, outside its neutral zone: A
    assert slopes(0.7, -1.0) == pytest.approx([0.7, 0.0, 0.0], abs=1e-5)
    # r = 1: certain decisions that have not moved count 1 - 1 = 0 and 1, uncertain ones 1
    assert slopes(1.0, 1.0) == pytest.approx([0.0, -1.0, -1.0], abs=1e-5)


def test_one_step_of_hapo_by_hand():
    """At ratio 1 everything is inside: A where h > 0, A (1 + h) elsewhere; a mean over tokens."""
    form = hapo_token(tau=0.0, group=4, batch=16, horizon=6, minibatches=1)
    trainer, seq = fixed(form)
    unsure = LanguagePolicy(tiny()).score(seq, (entropy,)).statistics["entropy"].detach()
    h = standing(unsure, scale_of(unsure, seq.mask)).clamp(max=0)
    weight = token_group_standardized()(seq) * (1 + h) * seq.mask / seq.mask.sum()
    assert_same(by_hand(seq, weight), gradient(trainer))


# ----------------------------------------------------------------------------------- sampling


def asked(n=24):
    return ModSum().prompts(n, torch.Generator().manual_seed(5))


def test_warm_sampling_records_the_distribution_it_drew_from():
    policy, p = LanguagePolicy(tiny()), asked()
    heat = Heat(0.5, 1.06, 0.003, 0.003)  # near log log 18
    sampling = Sampling(6, eos=-1, heat=heat)
    seq = generate(policy, p.tokens, p.mask, sampling, generator=torch.Generator().manual_seed(1))
    plain = policy.score(seq, (entropy,))
    torch.testing.assert_close(seq.extras["entropy"], plain.statistics["entropy"].detach(),
                               atol=1e-5, rtol=1e-4)  # fmt: skip
    row = 7
    ids = torch.cat([p.tokens[row][p.mask[row] > 0], seq.action[row]])
    logits = policy.model(input_ids=ids[None]).logits[0, -7:-1]
    warmth = heat.factor(seq.extras["entropy"][row])
    want = (logits / warmth[:, None]).log_softmax(-1).gather(-1, seq.action[row][:, None])[:, 0]
    torch.testing.assert_close(seq.behavior_logp[row], want, atol=1e-5, rtol=1e-4)
    assert warmth.min() >= 0.5 and warmth.max() <= 1.5 and warmth.std() > 0.01


def test_heat_that_has_not_begun_changes_nothing():
    policy, p = LanguagePolicy(tiny()), asked()

    def drawn(heat):
        g = torch.Generator().manual_seed(1)
        return generate(policy, p.tokens, p.mask, Sampling(6, heat=heat), generator=g)

    cold, plain = drawn(Heat()), drawn(None)
    assert torch.equal(cold.action, plain.action) and plain.extras is None


def test_a_stream_warms_by_the_batch_before_and_carries_on():
    def stream():
        form = hapo_token(tau=0.05, group=4, batch=16, horizon=6)
        source = rollouts(16, 6, 4, heat=form.source.options["heat"])
        return RolloutStream(LanguagePolicy(tiny()), TaskPrompts(ModSum(), 3), source, seed=3)

    first = stream()
    assert first.sampling.heat == Heat()
    batch = first.next()
    seq = batch.sequences
    assert not batch.exact  # trust is centered on the model at the plain temperature
    unsure = first.policy.score(seq, (entropy,)).statistics["entropy"].detach()[seq.mask > 0]
    want = entropy_heat(0.05)(unsure)
    assert list(first.sampling.heat) == pytest.approx(list(want), abs=1e-3)
    other = stream()
    other.load_state_dict(first.state_dict())
    assert torch.equal(other.next().sequences.action, first.next().sequences.action)


def test_another_engine_cannot_warm():
    policy, p = LanguagePolicy(tiny()), asked(2)
    policy.sampler = object()
    with pytest.raises(InputError, match="one temperature"):
        generate(policy, p.tokens, p.mask, Sampling(6, heat=Heat()))
