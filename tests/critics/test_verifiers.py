"""Rewards: what they accept, and what a bad one costs."""

import threading
import time

import pytest

from surpass.critics.verifiers import Answered, Called, exact, math_equal, numeric, open_reward
from surpass.errors import InputError


def judged(reward, *answers):
    return open_reward(reward)([Answered(*a) for a in answers]).tolist()


def test_exact_and_numeric_answers():
    assert judged("exact", ("", " 42\n", "42"), ("", "42.0", "42")) == [1.0, 0.0]
    cases = [
        ("so it is 1,234.", "#### 1234", 1.0),
        (r"first 3, then \boxed{7} of 9", "7", 1.0),
        ("#### -2.50 and so on", "-2.5", 1.0),
        ("12", "13", 0.0),
        ("none", "13", 0.0),
        ("about 2e-3", "0.002", 1.0),
        ("it lies in 3-4", "4", 1.0),
    ]
    for completion, truth, score in cases:
        assert numeric(Answered("", completion, truth)) == score, completion
    assert exact(Answered("", "x", "y")) == 0.0


def test_equal_mathematics():
    pytest.importorskip("math_verify")
    assert math_equal(Answered("", r"thus $\frac{2}{4}$", r"$\frac{1}{2}$")) == 1.0
    assert math_equal(Answered("", "$x+2$", "$x+1$")) == 0.0
    assert judged("math", ("", "$0.5$", r"$\frac{1}{2}$")) == [1.0]


def test_patterns():
    assert judged("regex:^yes", ("", "yes, sir"), ("", "no, yes")) == [1.0, 0.0]
    with pytest.raises(InputError, match="not a regular expression"):
        open_reward("regex:(")


def test_functions_of_a_sample_or_of_lists():
    assert judged(lambda answer: len(answer.completion), ("", "abc")) == [3.0]
    assert judged(lambda prompt, completion: completion in prompt, ("abc", "b")) == [1.0]
    assert judged(lambda p, c, a: float(c == a), ("", "1", "1")) == [1.0]

    def lists(completions, **rest):
        return [len(c) for c in completions]

    assert judged(lists, ("", "ab"), ("", "")) == [2.0, 0.0]


def slow(answer):
    if "hang" in answer.completion:
        while True:
            time.sleep(0.01)
    if "raise" in answer.completion:
        raise RuntimeError("broken")
    return 1.0


@pytest.mark.parametrize("inside", [True, False])
def test_raising_and_hanging_cost_the_sample(inside):
    reward = Called(slow, seconds=0.2)
    found = []

    def work():
        answers = [Answered("", c) for c in ("fine", "hang", "raise", "fine")]
        found.append(reward(answers).tolist())

    if inside:
        work()
    else:  # not in the main thread, where no alarm rings

        def careful(answer):
            if "hang" in answer.completion:
                time.sleep(1.0)
            return slow(Answered("", answer.completion.replace("hang", "")))

        reward = Called(careful, seconds=0.2)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert found == [[1.0, 0.0, 0.0, 1.0]]
    assert reward.failed == 2


@pytest.mark.parametrize("value", ["1", None, float("nan"), float("inf"), [1.0]])
def test_what_is_not_a_number_is_refused(value):
    with pytest.raises(InputError, match="a finite number is expected"):
        judged(lambda answer: value, ("", "x"))


def test_the_wrong_length_is_refused():
    def short(completions):
        return [1.0]

    with pytest.raises(InputError, match="short returned 1 numbers for 2 answers"):
        judged(short, ("", "a"), ("", "b"))


def test_unknown_rewards_are_named():
    with pytest.raises(InputError, match=r"no reward 'exakt' \(did you mean 'exact'\?\)"):
        open_reward("exakt")
    assert judged("math:gcd", ("", "x")) == [0.0]  # raises on texts: that sample's loss
    with pytest.raises(InputError, match="'math:nothing' cannot be imported"):
        open_reward("math:nothing")
    with pytest.raises(InputError, match="give a name"):
        open_reward(3)
