"""Policies side by side in an environment: known worth, pairing by hand, and what does not fit."""

import json

import pytest
import torch

import surpass
from surpass.cli import main
from surpass.errors import InputError, MissingExtra
from surpass.evaluation.filming import film
from surpass.evaluation.played import play
from surpass.policies import handover
from surpass.policies.tilted import Constant
from surpass.tasks.catalog import normalized, reference_scores
from surpass.tasks.point import CONTROLLERS, point_log
from surpass.zoo.control import named_policy


def still(obs):
    return torch.zeros(len(obs), 2)


@pytest.fixture(scope="module")
def cloned():
    """Two seeds of cloning POINT's expert."""
    log = point_log("noisy-expert", 600)
    form = surpass.bc(hidden=(32,), lr=3e-3)
    return surpass.train(form, log, steps=150, seeds=2)


def test_expert_and_random_of_point_have_the_returns_that_stand_for_100_and_0():
    found = play({"point-expert": named_policy("point-expert"), "random": "random"}, "point", 512)
    known = reference_scores()["point"]
    for name, wanted in (("point-expert", known["expert"]), ("random", known["random"])):
        mean = found.mean(name)
        assert mean.low - 1.0 < wanted < mean.high + 1.0
        assert found.score(name) == pytest.approx(
            float(normalized("point", found.returns[name].mean())), abs=1e-3
        )


def test_policies_play_from_the_same_starts_so_gains_are_paired():
    weak = CONTROLLERS["weak-reference"]

    def aimed(obs):
        return weak.mean(obs, torch.tensor(weak.aim).expand(len(obs), 2))

    found = play({"still": still, "aimed": aimed}, "point", 64, seed=3)
    by_hand = found.returns["aimed"] - found.returns["still"]
    gain = found.gain("aimed")
    assert gain is not None and gain.value == pytest.approx(float(by_hand.mean()), rel=1e-5)
    assert gain.low < gain.value < gain.high and found.gain("still") is None
    # from the same starts at rest, standing still costs 60 times the distance at the start
    assert torch.equal(found.returns["still"], play({"x": still}, "point", 64, seed=3).returns["x"])


def test_all_training_seeds_play_and_the_interval_is_over_them(cloned):
    found = play({"clone": cloned}, "point", 32)
    assert found.returns["clone"].shape == (2, 32)
    first = play({"clone": cloned}, "point", 32, seeds=1)
    assert torch.equal(first.returns["clone"][0], found.returns["clone"][0])
    with pytest.raises(InputError, match="2 training seeds, not 3"):
        play({"clone": cloned}, "point", 32, seeds=3)


def test_what_is_random_in_a_policy_follows_the_seed():
    same = [play({"random": "random"}, "point", 16, seed=5).returns["random"] for _ in range(2)]
    other = play({"random": "random"}, "point", 16, seed=6).returns["random"]
    assert torch.equal(*same) and not torch.equal(same[0], other)


def test_a_trained_folder_is_opened_with_its_seeds(cloned, tmp_path, capsys):
    for i, member in enumerate(cloned.seeds):
        member.save(tmp_path / f"seed{i}")
    again = surpass.load(tmp_path)
    obs = torch.randn(5, 4)
    for before, after in zip(cloned.seeds, again.seeds, strict=True):
        assert torch.equal(torch.tensor(before.predict(obs)), torch.tensor(after.predict(obs)))
    argv = ["evaluate", str(tmp_path), "--env", "point", "--compare", "random", "--episodes", "16"]
    assert main([*argv, "--json", "--picture", str(tmp_path / "returns.png")]) == 0
    told = json.loads(capsys.readouterr().out)
    clone, random = told["results"]
    assert (clone["seeds"], random["seeds"]) == (2, 1)
    assert clone["score"] > 80 and clone["gain"] is None
    assert (tmp_path / "returns.png").read_bytes()[:4] == b"\x89PNG"


def test_a_policy_of_decisions_plays_where_actions_are_discrete(tmp_path):
    handover.save(Constant(2, torch.tensor([1.0, 0.0])), tmp_path, actions=("left", "right"))
    found = play({"left": surpass.load(tmp_path)}, "cart-pole", 20)
    assert 8 <= float(found.returns["left"].min()) <= float(found.returns["left"].max()) <= 11


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ("cart-pole", "one of 2 discrete actions"),
        ("pendulum", "made for 4 observation numbers, and pendulum has 3"),
        ("Hoppr-v5", "no environment 'Hoppr-v5'"),
        ("sumtriple-table", "no environment"),
    ],
)
def test_what_does_not_fit_is_one_line(cloned, tmp_path, capsys, env, said):
    cloned.seeds[0].save(tmp_path)
    assert main(["evaluate", str(tmp_path), "--env", env]) == 2
    line = capsys.readouterr().err.strip()
    assert said in line and "\n" not in line


def test_a_film_needs_an_ending_a_renderer_and_frames(tmp_path):
    with pytest.raises(InputError, match=r"\.gif or \.mp4"):
        film("random", "Hopper-v5", tmp_path / "x.avi")
    with pytest.raises(InputError, match="nothing draws point"):
        film("random", "point", tmp_path / "x.gif")
    try:
        frames = film("random", "InvertedPendulum-v5", tmp_path / "x.gif", steps=40)
    except MissingExtra as error:  # no renderer on this machine
        assert "surpass[control]" in str(error)
        return
    from PIL import Image

    with Image.open(tmp_path / "x.gif") as opened:
        assert opened.n_frames == frames > 1  # type: ignore[attr-defined]


def test_logs_and_environment_are_two_jobs(capsys):
    assert main(["evaluate", "random"]) == 2
    assert "--logs LOGS or --env ID" in capsys.readouterr().err
    assert main(["evaluate", "random", "--env", "point", "--logs", "x.csv"]) == 2
    assert "two jobs" in capsys.readouterr().err
