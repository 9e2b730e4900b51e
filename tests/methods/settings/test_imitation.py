"""SEABO against distances by brute force, and against its learners on the rewards it writes."""

import pytest
import torch

import surpass
from surpass.critics.neighbors import nearest_expert
from surpass.errors import InputError
from surpass.registry import recipe
from surpass.tasks.point import point_log


@pytest.fixture(scope="module")
def logs():
    """One trajectory of the expert, and a mixed log that its reward was taken from."""
    expert = point_log("expert", 60, seed=5)
    log = point_log({"noisy-expert": 0.3, "random": 0.7}, 3_000, seed=1)
    log.reward = torch.zeros_like(log.reward)
    return expert, log


@pytest.mark.parametrize(("mode", "columns"), [
    ("sas", ("obs", "action", "next_obs")), ("sa", ("obs", "action")), ("ss", ("obs", "next_obs")),
])  # fmt: skip
def test_the_reward_decays_with_the_distance_to_the_nearest_expert_row(logs, mode, columns):
    expert, log = logs
    q, k = (torch.cat([getattr(x, c) for c in columns], 1).double() for x in (log, expert))
    distance = torch.cdist(q, k).min(1).values
    found = nearest_expert(2.0, 3.0, mode)({"expert": expert}, log).reward
    assert torch.allclose(found.double(), 2.0 * torch.exp(-3.0 * distance / 2), atol=2e-3)
    whole = nearest_expert(2.0, 3.0, mode, per_action=False, shift=2.0)({"expert": expert}, log)
    assert torch.allclose(whole.reward.double(), 2.0 * torch.exp(-3.0 * distance) - 2.0, atol=2e-3)
    assert float(log.reward.abs().max()) == 0.0


def test_the_expert_s_own_rows_earn_alpha_and_units_do_not_matter_when_standardized(logs):
    expert, log = logs
    own = nearest_expert(1.5)({"expert": expert}, expert).reward
    assert torch.allclose(own, torch.full_like(own, 1.5), atol=2e-3)

    def stretched(of):
        out = of.clone(recurse=False)
        out.obs, out.next_obs = of.obs * 100.0, of.next_obs * 100.0
        return out

    part = nearest_expert(standardize=True)
    before = part({"expert": expert}, log).reward
    after = part({"expert": stretched(expert)}, stretched(log)).reward
    assert torch.allclose(before, after, atol=1e-3)


def test_an_expert_of_another_task_is_refused(logs):
    expert, log = logs
    other = expert.clone(recurse=False)
    other.obs, other.next_obs = expert.obs[:, :3], expert.next_obs[:, :3]
    with pytest.raises(InputError, match="10 numbers, one of the expert 8"):
        nearest_expert()({"expert": other}, log)
    with pytest.raises(InputError, match="called 'expert'"):
        surpass.train(surpass.seabo(hidden=(8,), steps=5), log)


@pytest.mark.parametrize("learner", ["iql", "td3-bc"])
def test_it_is_the_learner_itself_on_the_labeled_log(logs, learner):
    expert, log = logs
    sizes = {"hidden": (16,), "lr": 1e-3, "batch": 64}
    form, alone = {
        "iql": (recipe("seabo")(beta=3.0, temperature=10.0, steps=20, **sizes),
                recipe("iql")(temperature=10.0, decay=20, **sizes)),
        "td3-bc": (recipe("seabo:td3-bc")(beta=3.0, weight=1.0, steps=20, **sizes),
                   recipe("td3-bc")(alpha=1.0, **sizes)),
    }[learner]  # fmt: skip
    found = surpass.train(form, log, expert=expert, seed=3, compile=False)
    labeled = nearest_expert(beta=3.0)({"expert": expert}, log)
    plain = surpass.train(alone, labeled, steps=20, seed=3, compile=False)
    for mine, other in zip(found.nets.parameters(), plain.nets.parameters(), strict=True):
        assert torch.equal(mine, other)
