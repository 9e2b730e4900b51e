"""Text environments: the transition tree, the batch, feedback, demonstrations, and the quest."""

from itertools import product

import pytest
import torch

from surpass.data.words import hashed_words
from surpass.errors import InputError
from surpass.policies.commands import TextLayout
from surpass.tasks.catalog import task
from surpass.tasks.quest import Quest, text_quest
from surpass.tasks.text import (
    FEEDBACK,
    TextBatch,
    TextEnv,
    TextStep,
    TextTask,
    TransitionTree,
    demonstrations,
    feedback,
)


class Switch:
    """Say "on" twice in a row; "again" changes nothing; "hop" is refused."""

    def __init__(self):
        self.goal, self.calls = "", 0

    def reset(self, task):
        self.goal, self.count, self.task, self.calls = f"game {task}", 0, task, self.calls + 1
        return "count zero"

    def admissible(self):
        return ("on", "again", "hop")

    def step(self, text):
        self.calls += 1
        if text not in ("on", "again", "off"):
            return TextStep("you can't hop", 0.0, False)
        self.count = {"on": self.count + 1, "again": self.count, "off": 0}[text]
        said = ("count zero", "count one", "count two")[self.count]
        return TextStep(said, float(self.count == 2), self.count == 2)

    def gold(self, task):
        self.reset(task)
        return ["on", "on"]


LAYOUT = TextLayout(buckets=64, bags=5, commands=4, length=3)


def switch(n=2, games=(4, 9), limit=3, seed=0):
    return TextBatch(Switch(), games, n, LAYOUT, limit, seed)


# ------------------------------------------------------------------------------------------ words


def test_words_are_hashed_alike_in_any_company_and_pairs_stop_at_signs():
    lamp, take = hashed_words("lamp", 997)[0], hashed_words("take", 997)[0]
    assert hashed_words("Take, LAMP", 997) == (take, lamp)
    pair = hashed_words("take lamp", 997)
    assert pair[:2] == (take, lamp) and len(pair) == 3 and pair[2] not in (take, lamp)
    assert hashed_words("take lamp", 997, pairs=False) == (take, lamp)
    assert all(1 <= w < 8 for w in hashed_words("some words that have to share", 8))


# ------------------------------------------------------------------------------------------- tree


def test_a_walk_through_the_tree_says_what_the_environment_says():
    tree, plain = TransitionTree(Switch()), Switch()
    first, second = tree.walk(), tree.walk()
    for path in product(("on", "again", "hop"), repeat=3):
        assert first.reset(1) == plain.reset(1)
        second.reset(2)  # another walk, whose moves must not disturb the first
        for text in path:
            if first.node.done:
                break
            second.step("again")
            assert first.step(text) == plain.step(text)
            assert first.admissible() == (() if first.node.done else plain.admissible())


def test_what_was_played_is_not_asked_again():
    tree = TransitionTree(Switch())
    walk = tree.walk()
    for _ in range(3):
        walk.reset(0)
        for text in ("again", "hop", "again"):
            walk.step(text)
    assert (tree.asked, tree.walked) == (3, 9)
    assert tree.env.calls == 4  # one reset, three steps
    walk.reset(0)
    walk.step("on")  # a new branch: the environment is led back, which takes a reset and a step
    assert (tree.asked, tree.env.calls) == (4, 6)


def test_asking_for_the_expert_does_not_confuse_the_tree():
    tree = TransitionTree(Switch())
    walk = tree.walk()
    walk.reset(0)
    walk.step("on")
    assert tree.gold(0) == ["on", "on"]
    assert walk.step("on") == TextStep("count two", 1.0, True)
    with pytest.raises(InputError, match="ended after 2 turns"):
        walk.step("on")


# --------------------------------------------------------------------------------------- feedback


def test_feedback_reads_the_text_alone():
    assert FEEDBACK[feedback("a room", "a hall")] == "fine"
    assert FEEDBACK[feedback("a room", "a room ")] == "repeated"
    assert FEEDBACK[feedback("a room", "You can't do that. a room")] == "invalid"
    assert FEEDBACK[feedback("a room", "a hall", parsed=False)] == "malformed"
    assert feedback("x", "Nope. x", refusals=("nope",)) == 2


# ------------------------------------------------------------------------------------------ batch


def test_a_batch_pays_ends_truncates_and_notes():
    env = switch(n=3, games=(4,))
    env.reset(0)
    on, again, hop = 0, 1, 2
    one = env.step(torch.tensor([on, again, hop]))
    assert env.notes["feedback"].tolist() == [0, 3, 2] and env.notes["task"].tolist() == [4] * 3
    two = env.step(torch.tensor([on, on, again]))
    assert two.reward.tolist() == [1.0, 0.0, 0.0] and two.terminated.tolist() == [
        True,
        False,
        False,
    ]
    assert not torch.equal(two.obs[0], two.final_obs[0])  # a fresh start, and the true end
    assert torch.equal(two.obs[1:], two.final_obs[1:])
    three = env.step(torch.tensor([again, again, again]))
    assert three.truncated.tolist() == [False, True, True] and not three.terminated.any()
    assert one.obs.shape == (3, env.spaces.obs_dim)


def test_an_observation_carries_goal_memory_and_commands():
    env = switch(n=1, games=(4,), limit=None)
    obs = env.reset(0)
    for action in (0, 2):  # "on", then "hop"
        obs = env.step(torch.tensor([action])).obs
    bags = obs[0, : 5 * 64].reshape(5, 64)
    said = ("game 4", "you can't hop", "hop", "count one", "on")
    for bag, text in zip(bags, said, strict=True):
        assert bag.nonzero()[:, 0].tolist() == sorted(set(hashed_words(text, 64)))
        assert bag.sum() == len(hashed_words(text, 64))
    words = obs[0, 5 * 64 :].reshape(4, 3)
    for row, text in zip(words, ("on", "again", "hop", ""), strict=True):
        found = list(hashed_words(text, 64))
        assert row.tolist() == found + [0.0] * (3 - len(found))


def test_games_are_dealt_in_whole_rounds():
    env = switch(n=6, games=(1, 2, 3))
    env.reset(5)
    dealt = [copy.walk.task for copy in env.copies]
    assert sorted(dealt[:3]) == sorted(dealt[3:]) == [1, 2, 3]


def test_a_stored_batch_goes_on_alike():
    env = switch(n=2, seed=3)
    env.step(torch.tensor([0, 1]))
    state = env.state_dict()
    first = [env.step(torch.tensor([0, 0])).obs for _ in range(4)]
    other = switch(n=2, seed=8)
    other.load_state_dict(state)
    for seen in first:
        assert torch.equal(other.step(torch.tensor([0, 0])).obs, seen)


def test_wrong_actions_and_too_many_commands_are_refused():
    env = switch(n=1)
    with pytest.raises(InputError, match="command 3 is not on offer, 3 are: on, again, hop"):
        env.step(torch.tensor([3]))
    with pytest.raises(InputError, match="shape"):
        env.step(torch.tensor([0, 0]))
    with pytest.raises(InputError, match=r"3 commands are on offer.*room for 2"):
        TextBatch(Switch(), (0,), 1, TextLayout(64, 5, 2, 3))
    with pytest.raises(InputError, match="copies and games"):
        TextBatch(Switch(), (), 1, LAYOUT)


# --------------------------------------------------------------------------------- demonstrations


def played(gold):
    class Told(Switch):
        def gold(self, task):
            return gold

    return TextTask("switch", "", Told, (0, 5), LAYOUT)


def test_demonstrations_are_logged_as_the_expert_played():
    log = demonstrations(played(["again", "on", "on"]))
    assert log.action.tolist() == [1, 0, 0] * 2 and log.reward.tolist() == [0, 0, 1] * 2
    assert log.terminated.tolist() == [False, False, True] * 2 and not log.truncated.any()
    assert log.episode.tolist() == [0, 0, 0, 1, 1, 1] and log.task.tolist() == [0, 0, 0, 5, 5, 5]
    assert log.source.eq(1).all() and log.behavior_logp.eq(0).all()
    assert log.extras["feedback"].tolist() == [3, 0, 0] * 2
    assert torch.equal(log.next_obs[0], log.obs[1])


def test_an_unfinished_demonstration_is_truncated():
    log = demonstrations(played(["on", "again", "on"]), games=(5,), limit=2)
    assert log.truncated.tolist() == [False, True] and not log.terminated.any()


def test_an_expert_may_say_it_in_other_words_that_lead_to_the_same():
    class Other(Switch):
        def admissible(self):
            return ("turn it on", "turn back")

        def step(self, text):
            said = {"turn it on": "on", "turn on": "on", "turn back": "off"}
            return super().step(said.get(text, text))

        def gold(self, task):
            return ["turn on", "turn on"]

    log = demonstrations(TextTask("other", "", Other, (0,), LAYOUT))
    assert log.action.tolist() == [0, 0] and log.reward.sum() == 1


def test_an_expert_that_cannot_be_followed_is_refused():
    with pytest.raises(InputError, match="game 0, turn 1: the expert says 'hop high'"):
        demonstrations(played(["hop high"]))

    class Silent(Switch):
        gold = None

    with pytest.raises(InputError, match="Silent has no expert"):
        demonstrations(TextTask("silent", "", Silent, (0,), LAYOUT))


# ------------------------------------------------------------------------------------------ quest


def shortest(quest, game, most=7):
    """How many turns the quest takes at least, by trying everything."""
    tree = TransitionTree(quest)
    walk = tree.walk()
    walk.reset(game)
    ahead, seen = [(walk.node, ())], set()
    for turns in range(most + 1):
        following = []
        for node, path in ahead:
            for text in node.admissible:
                after = tree.child(node, game, path, text)
                if after.reward > 0:
                    return turns + 1
                key = after.observation.removeprefix("you can't. ")
                state = (key, tuple(sorted(opened(quest))))
                if not after.done and state not in seen:
                    seen.add(state)
                    following.append((after, (*path, text)))
        ahead = following
    return None


def opened(quest):
    return quest.world.opened


def test_the_expert_of_a_quest_wins_and_nothing_is_shorter():
    quest = Quest(rooms=3, things=1, house=1, limit=12)
    compared = 0
    for game in range(12):
        gold = quest.gold(game)
        quest.reset(game)
        steps = [quest.step(text) for text in gold]
        assert [s.reward for s in steps] == [0.0] * (len(gold) - 1) + [1.0] and steps[-1].done
        if len(gold) <= 5:
            assert shortest(Quest(rooms=3, things=1, house=1, limit=12), game) == len(gold)
            compared += 1
    assert compared >= 3


def test_a_quest_refuses_repeats_and_is_lost():
    quest = Quest(limit=3)
    before = quest.reset(0)
    assert quest.step("look") == TextStep(before, 0.0, False)
    assert feedback(before, quest.step("take moon").observation, refusals=quest.refusals) == 2
    assert quest.step("wait").done  # time is up
    quest = Quest(limit=50)
    quest.reset(0)
    for text in quest.gold(0):
        if text.startswith("take"):
            quest.step(text)
            wanted = text.removeprefix("take ")
            assert quest.step(f"eat {wanted}") == TextStep(quest._look(quest.world), 0.0, True)
            break
        quest.step(text)


def test_a_house_is_connected_and_its_exits_lead_both_ways():
    for house in range(5):
        quest = Quest(rooms=10, house=house)
        assert all(a in quest.exits[b] for a, there in quest.exits.items() for b in there)
        assert all(quest._way("kitchen", room) is not None for room in quest.rooms)
        assert sum(map(len, quest.exits.values())) in (2 * 9, 2 * 10)
    assert isinstance(Quest(), TextEnv)
    with pytest.raises(InputError, match="2 to 10 rooms"):
        Quest(rooms=11)


def test_the_quest_is_in_the_catalog():
    known = task("text-quest", games=3, rooms=4)
    env = known.make(2)
    assert env.spaces == known.spaces and known.spaces.extras["text"]["commands"] == 16
    assert text_quest(2, first=7).games == (7, 8)
