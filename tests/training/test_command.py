"""`surpass train`: settings become hyperparameters, and a run in a task says what it reached."""

import pytest

from surpass.errors import InputError
from surpass.evaluation.rollouts import during
from surpass.training.command import configured, run
from surpass.training.run import load_trained


def test_settings_reach_the_recipe_and_into_its_parts():
    form = configured("sac", ["gamma=0.9", "hidden=8,8", "source.size=32"])
    assert form.nets["q"].hidden == (8, 8) and form.source.size == 32
    assert form.update[0].loss.gamma == 0.9


@pytest.mark.parametrize(
    ("setting", "says"),
    [("gamma", "NAME=VALUE"), ("gama=0.9", "gamma"), ("batch=many", "int expected")],
)
def test_wrong_settings_are_refused_in_one_line(setting, says):
    with pytest.raises(InputError, match=says):
        configured("sac", [setting])


def test_a_run_in_a_task_from_the_command_line(tmp_path, capsys):
    sizes = ["envs=4", "horizon=16", "epochs=1", "minibatches=1", "hidden=8"]
    run("ppo", task="cart-pole", steps=64 * 4, settings=sizes, out=tmp_path, measure=during)
    assert "evaluation.return" in capsys.readouterr().out
    trained = load_trained(tmp_path)
    assert trained.predict([0.0, 0.0, 0.0, 0.0]) in (0, 1)
