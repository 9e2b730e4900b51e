"""The zoo's logs of control: what they say of themselves is what their rows say."""

import math

import pytest
import torch

from surpass.cli import main
from surpass.errors import InputError
from surpass.evaluation.rollouts import roll_out
from surpass.methods.online.policy_gradients import ppo
from surpass.tasks.catalog import normalized
from surpass.zoo import control
from surpass.zoo.shelf import Zoo, items


def returns_of(log):
    return torch.zeros(int(log.episode.max()) + 1).index_add(0, log.episode, log.reward)


def test_the_logs_of_point_are_ordered_as_their_names_say(tmp_path):
    zoo = Zoo(folder=tmp_path)
    score = {k: float(normalized("point", returns_of(zoo(f"point-{k}"))).mean())
             for k in ("random", "medium-replay", "medium", "expert", "mixed")}  # fmt: skip
    assert abs(score["random"]) < 5 and score["expert"] > 90
    assert score["random"] < score["mixed"] < score["expert"]
    assert 15 < score["medium-replay"] < score["medium"] < score["expert"]
    log = zoo("point-random")
    assert torch.allclose(log.behavior_logp, torch.full_like(log.reward, -2 * math.log(2)))
    made = zoo.provenance("point-random")["made"]
    assert made["rows"] == len(log) and made["mean_return"] == pytest.approx(
        float(returns_of(log).mean()), abs=1e-3
    )


@pytest.fixture
def quick(monkeypatch):
    """A school of cart-pole that takes a second."""
    school = control.School(
        "cart-pole", lambda: ppo(envs=16, horizon=32, epochs=4, minibatches=1, lr=1e-2,
                                 hidden=(16,)), 16 * 32 * 12, 12, 600, 0.1, 128,
    )  # fmt: skip
    items()
    monkeypatch.setitem(control.SCHOOLS, "cart-pole", school)


def test_a_school_that_was_stopped_goes_on_where_it_was(tmp_path, monkeypatch, quick):
    zoo, played = Zoo(folder=tmp_path), []

    def stopping(policy, task, episodes):
        if len(played) == 2:
            played.append("stop")
            raise KeyboardInterrupt
        played.append(policy)
        return roll_out(policy, task, 8)

    monkeypatch.setattr(control, "roll_out", stopping)
    with pytest.raises(KeyboardInterrupt):
        zoo.build("cart-pole-policies")
    assert not zoo.has("cart-pole-policies") and zoo.workshop("cart-pole-policies").is_dir()
    zoo.build("cart-pole-policies")
    steps = [f["step"] for f in zoo.provenance("cart-pole-policies")["made"]["snapshots"]]
    assert steps == [12, 24, 36, 48]
    # two before the stop; then one after it, the one it left unjudged, random, medium and expert
    assert len(played) == 3 + 1 + 1 + 3 and not zoo.workshop("cart-pole-policies").exists()
    files = zoo.provenance("cart-pole-policies")["files"]
    assert "step48/policy.safetensors" in files
    changed = zoo.place("cart-pole-policies") / "step48" / "policy.safetensors"
    changed.write_bytes(changed.read_bytes() + b" ")
    with pytest.raises(InputError, match="build it again"):
        zoo("cart-pole-policies")


def test_policies_are_named_as_their_logs(tmp_path, quick):
    zoo = Zoo(folder=tmp_path)
    held = zoo("cart-pole-policies")
    obs = torch.randn(20, 4)
    for which in ("medium", "expert"):
        named = control.named_policy(f"cart-pole-{which}", zoo)
        assert (named.predict(obs) == held[which].predict(obs)).all()
    first = control.named_policy("cart-pole-policies/step12", zoo)
    assert (first.predict(obs) == held["step12"].predict(obs)).all()
    assert control.named_policy("cart-pole-mixed", zoo) is None
    assert control.named_policy("no-such-thing", zoo) is None
    with pytest.raises(InputError, match="step12"):
        control.named_policy("cart-pole-policies/step13", zoo)


def test_zoo_build_wants_a_name_and_builds_the_small_set(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["zoo", "build"]) == 2
    assert "--all or --small" in capsys.readouterr().err
    assert main(["zoo", "build", "point-randm"]) == 2
    assert "did you mean 'point-random'" in capsys.readouterr().err
    assert main(["zoo", "build", "point-random"]) == 0
    assert Zoo().has("point-random")
    small = {name for name, entry in items().items() if entry.small}
    assert {"point-medium-replay", "pendulum-medium-replay", "pendulum-policies"} <= small
    assert sum(items()[name].minutes for name in small) < 1.0


def test_a_school_s_logs_have_exact_propensities(tmp_path, quick):
    zoo = Zoo(folder=tmp_path)
    policies = zoo("cart-pole-policies")
    note = zoo.provenance("cart-pole-policies")["made"]
    assert note["expert_return"] > 1.5 * note["random_return"]
    log = control._recorded("cart-pole", "medium", policies, note, 600)
    logits = policies["medium"].nets.policy.logits(log.obs)
    wanted = logits.gather(1, log.action[:, None])[:, 0]
    assert torch.allclose(log.behavior_logp, wanted.detach(), atol=1e-5)
    replay = control._recorded("cart-pole", "medium-replay", policies, note, 600)
    assert len(note["replay"]) >= 1 and len(replay) >= 600 // len(note["replay"])
    random = control._recorded("cart-pole", "random", policies, note, 600)
    assert torch.allclose(random.behavior_logp, torch.full_like(random.reward, -math.log(2)))
    control.references(zoo, "cart-pole", tmp_path / "scores.json")
    low, high = note["random_return"], note["expert_return"]
    found = normalized("cart-pole", torch.tensor([low, high]), tmp_path / "scores.json")
    assert torch.allclose(found, torch.tensor([0.0, 100.0]), atol=1e-3)


def test_a_misspelled_data_set_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'hopper-medium'"):
        control.open_data("hopper-medim")
    with pytest.raises(InputError, match=r"medium.parquet does not exist"):
        control.open_data("medium.parquet")
