"""A trained reward model: as a reward of texts, and read back from its folder."""

import pytest
import torch

pytest.importorskip("transformers")

import surpass
from surpass.critics.language_rewards import LearnedReward
from surpass.critics.verifiers import Answered, open_reward
from surpass.errors import InputError
from surpass.policies.language import LanguagePolicy
from surpass.tasks.language import DigitStrings
from surpass.zoo.language import tiny_llama, toy_tokenizer


def pairs(n, seed=0):
    """The string with the smaller sum of digits is preferred."""
    g = torch.Generator().manual_seed(seed)
    rows = []
    for a, b, c, d in torch.randint(10, (n, 4), generator=g).tolist():
        if a + b != c + d:
            low, high = sorted([(a + b, f"{a}{b}"), (c + d, f"{c}{d}")])
            rows.append({"prompt": "C1=", "chosen": low[1], "rejected": high[1]})
    return rows


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    task = DigitStrings("C", (2, 2))
    policy = LanguagePolicy(tiny_llama(task, width=16), toy_tokenizer(task.vocabulary))
    out = tmp_path_factory.mktemp("reward")
    form = surpass.reward_model(lr=1e-2, batch=64)
    return surpass.train(form, pairs(512), model=policy, steps=40, out=out), out


def test_it_ranks_answers_it_has_not_seen(trained):
    reward, _ = trained
    fresh = pairs(200, seed=1)
    good = reward([Answered(r["prompt"], r["chosen"]) for r in fresh])
    bad = reward([Answered(r["prompt"], r["rejected"]) for r in fresh])
    assert float((good > bad).float().mean()) > 0.9


def test_its_folder_is_a_reward_of_the_same_numbers(trained):
    reward, out = trained
    answers = [Answered("C12=", "12"), Answered("C12=", "92"), Answered("C7=", "7")]
    again = open_reward(str(out / "policy"))
    assert isinstance(again, LearnedReward) and again.failed == 0
    torch.testing.assert_close(again(answers), reward(answers))
    alone = torch.cat([reward([a]) for a in answers])
    torch.testing.assert_close(alone, reward(answers), rtol=1e-4, atol=1e-5)


def test_prompts_without_answers_train_on_the_folder_by_its_name(trained):
    _, out = trained
    task = DigitStrings("C", (2, 2))
    policy = LanguagePolicy(tiny_llama(task, width=16), toy_tokenizer(task.vocabulary))
    form, bare = surpass.grpo(batch=4, group=2, horizon=3), [{"prompt": "C1="}, {"prompt": "C2="}]
    surpass.train(form, bare, model=policy, reward=str(out / "policy"), steps=1)
    with pytest.raises(InputError, match="'exact' compares with the right answer"):
        surpass.train(form, bare, model=policy, reward="exact", steps=1)


def test_a_folder_without_a_reward_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no reward model; train one"):
        open_reward(tmp_path)
