"""The real ScienceWorld, where its package and Java are there, and what is said where not."""

import importlib.util
import shutil

import pytest

from surpass.errors import InputError, MissingExtra
from surpass.tasks.catalog import task
from surpass.tasks.science_world import ScienceWorld, science_world
from surpass.tasks.text import TransitionTree, demonstrations

THERE = importlib.util.find_spec("scienceworld") is not None and shutil.which("java") is not None
needs_it = pytest.mark.skipif(not THERE, reason="scienceworld or Java is not installed")


def test_what_is_missing_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "scienceworld", None)
    known = task("science-world", names=("find-animal",))  # opens nothing yet
    with pytest.raises(MissingExtra, match=r"pip install 'surpass\[agents\]'"):
        known.make(1)


@pytest.mark.skipif(importlib.util.find_spec("scienceworld") is None, reason="not installed")
def test_java_is_asked_for(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingExtra, match="there is no java on the path"):
        ScienceWorld()


@needs_it
def test_the_authors_way_earns_the_full_score_and_replays_alike():
    names = ("find-animal", "lifespan-longest-lived")
    world = science_world(names, games=(1, 10_001))
    log = demonstrations(world)
    for game in (1, 10_001):
        assert float(log.reward[log.task == game].sum()) == pytest.approx(1.0, abs=1e-5)
    assert bool(log.terminated[log.episode == 0][-1]) and not log.extras["feedback"].any()

    env = world.tree.env
    walk = TransitionTree(env).walk()  # a second tree asks the simulator again
    first = world.tree.walk()
    assert walk.reset(1) == first.reset(1)
    for text in ("go to hallway", "go to kitchen"):
        assert walk.step(text) == first.step(text)
        assert walk.admissible() == first.admissible()
    assert all(c.split()[0] in ("go", "focus", "pick", "move") for c in walk.admissible())

    assert "lifespan" not in env.goal
    env.reset(10_001)
    wrong = env.step("focus on agent")  # ends the episode at a score below 0, which counts as 0
    assert wrong.reward == 0.0 and wrong.done
    with pytest.raises(InputError, match=r"variations 0 \.\. 299, not 300"):
        env.reset(300)
    with pytest.raises(InputError, match="task 20000 is of none"):
        env.reset(20_000)
    env.close()


@needs_it
def test_an_unknown_task_is_named():
    with pytest.raises(
        InputError, match=r"no task 'find-animals' \(did you mean 'find-animal'\?\)"
    ):
        ScienceWorld(("find-animals",))
