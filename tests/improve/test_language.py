"""The main job on language models: from prompts, pairs and logged answers to a verdict."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

import surpass
from surpass.data.language import open_language
from surpass.errors import InputError
from surpass.improve.language import improve_language, split_prompts
from surpass.improve.language_candidates import as_kind, chosen_methods, learning_rate
from surpass.improve.language_report import _reference
from surpass.improve.language_scores import answer_all, best_of_curve, weigh
from surpass.improve.scoring import RewardRange
from surpass.policies.generation import Sampling, generate
from surpass.policies.language import LanguagePolicy
from surpass.tasks.language import DigitStrings
from surpass.zoo.language import prompt_rows, tiny_llama, toy_tokenizer, warm

TASK = DigitStrings("C", (2, 3))


@pytest.fixture(scope="module")
def sloppy():
    """A model that copies two or three digits, right about half of the time."""
    policy = LanguagePolicy(tiny_llama(TASK, width=48), toy_tokenizer(TASK.vocabulary))
    warm(policy, TASK, error=0.0, steps=300, until=0.9, every=20, lr=6e-3)
    warm(policy, TASK, error=0.5, steps=60, until=0.6, falling=True, lr=1e-3, every=5, seed=1)
    return policy


def rows(n=220):
    """Different prompts with their right answers, n at most."""
    found = {r["prompt"]: r for r in prompt_rows(TASK, 400, seed=3)}
    return list(found.values())[:n]


def test_from_prompts_to_a_promoted_model(sloppy, tmp_path):
    """Vital and slow (6 s): trains, answers, judges, reports and hands over."""
    before = {k: v.clone() for k, v in sloppy.model.state_dict().items()}
    data = tmp_path / "prompts.jsonl"
    data.write_text("\n".join(map(json.dumps, rows(220))) + "\n")
    form = surpass.grpo(beta=0.0, group=8, batch=64, horizon=5, lr=1e-3)
    result = surpass.improve(
        data, model=sloppy, methods={"grpo": form}, reward="exact", out=tmp_path / "report",
        language={"steps": 25, "samples": 6, "horizon": 5},
    )  # fmt: skip
    assert result.verdict == "PROMOTE" and result.best.key == "grpo"
    assert result.best.gain_low > 0.1 and result.per == "answer"
    assert all(torch.equal(v, before[k]) for k, v in sloppy.model.state_dict().items())
    page = (tmp_path / "report" / "report.html").read_text()
    assert "pass@4" in page and "What the models say" in page and "Why to believe it" in page
    told = json.loads((tmp_path / "report" / "report.json").read_text())
    assert told["diagnosis"]["reward"]["range"] == [0.0, 1.0]
    handed = LanguagePolicy.load(tmp_path / "report" / "policy")
    log = open_language(rows(220), handed.tokenizer, eos=handed.eos)
    judging = split_prompts(log)[2]
    from surpass.critics.verifiers import open_reward

    again = [
        float(answer_all(p, log, judging, open_reward("exact"), samples=6, horizon=5, seed=9)
              .reward.mean())
        for p in (handed, sloppy)
    ]  # fmt: skip
    assert again[0] - again[1] == pytest.approx(result.best.gain, abs=0.15)  # other draws


def test_a_model_that_learned_nothing_is_held(sloppy):
    form = surpass.grpo(beta=0.0, group=4, batch=16, horizon=5, lr=1e-12)
    result = improve_language(rows(220), sloppy, {"idle": form}, reward="exact", steps=1,
                              samples=2, horizon=5)  # fmt: skip
    assert result.verdict == "HOLD" and abs(result.best.gain) < 1e-3
    assert result.settlement is not None and "reference" in result.settlement.sentence
    assert all(c.passed for c in result.checks)


def test_adapters_are_trained_and_handed_over(sloppy, tmp_path):
    pytest.importorskip("peft")
    result = improve_language(rows(60), sloppy, "best-of-n:batch=32", reward="exact", steps=2,
                              samples=1, horizon=5, lora=2)  # fmt: skip
    assert result.verdict == "HOLD" and "18 prompts" in result.reason + result.checks[0].reason
    assert result.best.params["lr"] == pytest.approx(1e-2)  # ten times that of all weights
    result.hand_over(tmp_path)
    assert (tmp_path / "adapter_model.safetensors").exists()
    assert not hasattr(sloppy.model, "disable_adapter")


def test_pairs_alone_cannot_promote(sloppy):
    pairs = [{"prompt": r["prompt"], "chosen": r["answer"], "rejected": r["answer"][::-1] + "0"}
             for r in rows(60)]  # fmt: skip
    result = improve_language(pairs, sloppy, "dpo", steps=3, samples=2)
    assert result.verdict == "HOLD"
    assert "reward model" in result.reason or "held-out" in result.reason
    assert any("pairs" in n for n in result.diagnosis["notes"])


def logged(policy, each=3, seed=5):
    """Answers of a model to prompts with their log-probs and scores."""
    data = rows()
    tokens = [policy.tokenizer(r["prompt"]).input_ids for r in data]
    from surpass.data.language import collate

    asked = collate(tokens, [[0]] * len(tokens))
    seq = generate(policy, asked.prompt, asked.prompt_mask, Sampling(5), group=each,
                   generator=torch.Generator().manual_seed(seed))  # fmt: skip
    out = []
    for i, row in enumerate(r for r in data for _ in range(each)):
        ids = seq.action[i][seq.mask[i] > 0].tolist()
        text = policy.tokenizer.decode(ids, skip_special_tokens=True)
        whole = [*policy.tokenizer(text, add_special_tokens=False).input_ids, policy.eos]
        if text and ids == whole:  # it ended, and its text says all of it
            logp = float(seq.behavior_logp[i].sum())
            out.append({"prompt": row["prompt"], "completion": text, "behavior_logp": logp,
                        "score": float(text == row["answer"])})  # fmt: skip
    return out


def test_logged_answers_judge_without_a_reward(sloppy):
    form = surpass.sft(lr=1e-3, batch=32)
    data = logged(sloppy)
    result = improve_language(data, sloppy, {"sft": form}, steps=12)
    assert result.verdict == "PROMOTE" and result.best.ess > 50
    assert result.diagnosis["overlap"]["max"] < 20 and result.best.agreement[0].biased
    assert result.reference_name == "the model that wrote the logged answers"
    with pytest.raises(InputError, match="held against the model that wrote them"):
        improve_language(data, sloppy, {"sft": form}, reference=sloppy, steps=12)
    bare = [{k: v for k, v in r.items() if k != "behavior_logp"} for r in data]
    held = improve_language(bare, sloppy, {"sft": form}, steps=12)
    assert held.verdict == "HOLD" and "--accept-estimated-behavior" in held.reason
    assert held.best.gain == pytest.approx(result.best.gain, abs=1e-3)  # it was the author


def test_weights_of_the_reference_itself_are_one(sloppy):
    from surpass.improve.language_scores import logged_logp

    data = logged(sloppy, each=1)
    log = open_language(data, sloppy.tokenizer, eos=sloppy.eos)
    found = weigh(logged_logp(sloppy, log) - log.extras["behavior_logp"], log, (0.0, 1.0))
    torch.testing.assert_close(found.ratio, torch.ones(len(log)).double(), rtol=1e-4, atol=1e-4)
    assert float(found.gains.abs().max()) < 1e-3


def toy_log(behavior, candidate, reward):
    """Every answer of a small world once, its counts proportional to the behavior."""
    n = len(reward)
    rows_ = [{"prompt": [i], "completion": [1], "score": float(r)} for i, r in enumerate(reward)]
    log = open_language(rows_, None)
    ratio = torch.tensor(candidate, dtype=torch.float64) / torch.tensor(behavior)
    return log, ratio.log(), n


def test_logged_scores_are_unbiased_and_conservative_where_capped():
    mu, pi = [0.5, 0.3, 0.15, 0.05], [0.1, 0.2, 0.1, 0.6]
    reward = [0.2, 1.0, 0.0, 0.9]
    log, log_ratio, _ = toy_log(mu, pi, reward)
    gain = sum((p - m) * r for p, m, r in zip(pi, mu, reward, strict=True))
    weight = torch.tensor(mu, dtype=torch.float64)
    free = weigh(log_ratio, log, (0.0, 1.0))
    assert float(weight @ free.gains) == pytest.approx(gain)
    assert float(weight @ free.losses) == pytest.approx(-gain)
    held = weigh(log_ratio, log, (0.0, 1.0), cap=2.0)
    assert float(weight @ held.gains) < gain and float(weight @ held.losses) < -gain
    assert float(held.gains.min()) >= -1.0 and float(held.losses.min()) >= -1.0


def test_answers_to_one_prompt_are_averaged():
    data = [{"prompt": [1], "completion": [2], "score": 1.0},
            {"prompt": [1], "completion": [3], "score": 0.0},
            {"prompt": [4], "completion": [2], "score": 1.0}]  # fmt: skip
    log = open_language(data, None)
    found = weigh(torch.log(torch.tensor([3.0, 0.5, 1.5])), log, (0.0, 1.0))
    np.testing.assert_allclose(sorted(found.gains.tolist()), [0.5, 1.0])
    # the author's own value averages in the same way: (1/2 + 1) / 2, and not two of three
    span = RewardRange(0.0, 1.0, "stated")
    run = SimpleNamespace(base=None, log=log, parts=([], [], [0, 1, 2]), range=span, level=0.05)
    assert _reference(run).mean == pytest.approx(0.75)


def test_pass_at_k_counts_prompts():
    reward = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    assert best_of_curve(reward) == pytest.approx({1: 0.625, 2: 0.75, 4: 1.0})


# ----------------------------------------------------------------------------- data and methods


def test_prompts_are_not_shared_between_parts():
    data = [{"prompt": [i % 40], "completion": [1 + i % 5], "score": 1.0} for i in range(200)]
    log = open_language(data, None)
    parts = split_prompts(log, seed=4)
    assert sorted(i for p in parts for i in p) == list(range(200))
    sets = [{log.prompts[i] for i in p} for p in parts]
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
    assert [len(s) for s in sets] == [20, 8, 12]
    assert split_prompts(log, seed=4) == parts != split_prompts(log, seed=5)


def test_scored_answers_are_pairs_and_demonstrations():
    data = [{"prompt": [1], "completion": [c], "score": s} for c, s in ((2, 0.1), (3, 0.9))]
    data += [{"prompt": [5], "completion": [6], "score": 0.4}]
    log = open_language(data, None)
    pairs = as_kind(log, "pairs")
    assert (pairs.answers["chosen"], pairs.answers["rejected"]) == (((3,),), ((2,),))
    assert as_kind(log, "demonstrations").answers["completion"] == ((3,),)
    back = as_kind(pairs, "scored")
    assert back.answers["completion"] == ((3,), (2,)) and back.score.tolist() == [1.0, 0.0]
    assert as_kind(pairs, "demonstrations").answers["completion"] == ((3,),)
    with pytest.raises(InputError, match="no prompt has two answers of different score"):
        as_kind(log.rows([2]), "pairs")


def test_methods_by_name_with_settings_and_rates_by_size(sloppy):
    log = open_language([{"prompt": [1], "chosen": [2], "rejected": [3]}], None)
    assert [c.key for c in chosen_methods("auto", log, False)] == ["dpo", "sft"]
    one, two = chosen_methods(["dpo:beta=0.3:batch=8", "sft"], log, False)
    assert one.params == {"beta": 0.3, "batch": 8} and two.params == {}
    (variant,) = chosen_methods("humanline:kto:beta=0.3", log, False)
    assert (variant.key, variant.params) == ("humanline:kto", {"beta": 0.3})
    assert learning_rate(sloppy) == 1e-3
    for wrong, why in (
        ("dpo:betta=1", "dpo takes beta"), ("dpo:beta=x", "a number expected"),
        ("iql", "does not train language models"), ("grpo", "needs a reward of answers"),
        ("dpoo", "dpo"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=why):
            chosen_methods([wrong], log, False)


PROMPTS = [{"prompt": f"C{i}=", "answer": str(i % 10)} for i in range(10, 60)]


@pytest.mark.parametrize(
    ("data", "options", "line"),
    [
        (PROMPTS, {}, "say what a good answer is with --reward"),
        (PROMPTS[:5], {"reward": "exact"}, "5 different prompts; at least 20"),
        ([{"prompt": r["prompt"]} for r in PROMPTS], {"reward": "exact"}, "no column 'answer'"),
        (PROMPTS, {"reward": "exacto"}, "there is no reward 'exacto'"),
        (PROMPTS, {"reward": "exact", "level": 0.7}, "--level is 0.7"),
        (PROMPTS, {"reward": "exact", "samples": 0}, "--samples is 0"),
        (PROMPTS, {"reward": "exact", "lora": 0, "steps": 1}, "--lora is 0"),
        (PROMPTS, {"reward": "exact", "horizon": 100}, "leaves room for 59 tokens"),
        (PROMPTS, {"reward": lambda p, c, a: "good", "steps": 1}, "a finite number is expected"),
        (PROMPTS, {"reward": lambda p, c, a: math.nan, "steps": 1}, "a finite number is expected"),
        (PROMPTS, {"reward": lambda completions: [1.0], "steps": 1}, "1 numbers for"),
        (PROMPTS, {"reward": "exact", "methods": "grpo:group=1", "steps": 1}, "one answer only"),
        ([{"prompt": "C1=", "completion": "1"}] * 30, {}, "demonstrations, good for imitation"),
        ([{"prompt": "C1=", "completion": "", "score": 1}], {}, "the completion is empty"),
        ([{"prompt": "C1=", "chosen": "1", "rejected": "1"}], {}, "chosen equals rejected"),
        ("nowhere.jsonl", {}, "nowhere.jsonl does not exist"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(sloppy, data, options, line):
    with pytest.raises(InputError, match=line) as caught:
        improve_language(data, sloppy, **options)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_of_another_model_is_refused(sloppy):
    small = DigitStrings("C", (1, 1))
    model = tiny_llama(small, width=16)
    model.config.vocab_size = 9
    with pytest.raises(InputError, match="they do not belong together"):
        improve_language(PROMPTS, model, reward="exact", tokenizer=sloppy.tokenizer)


def test_a_reward_without_a_range_is_held_and_one_that_breaks_too(sloppy):
    form = surpass.grpo(beta=0.0, group=8, batch=64, horizon=5, lr=1e-3)

    def graded(prompt, completion, answer):
        return 0.3 * (completion == answer) + 0.1 * (completion[:1] == answer[:1])

    args = {"steps": 12, "samples": 4, "horizon": 5}
    held = improve_language(rows(), sloppy, {"grpo": form}, reward=graded, **args)
    assert held.verdict == "HOLD" and "--reward-range LO HI" in held.reason
    assert held.best.gain_low > 0
    stated = improve_language(rows(), sloppy, {"grpo": form}, reward=graded,
                              reward_limits=(0.0, 0.4), **args)  # fmt: skip
    assert stated.verdict == "PROMOTE"

    def shaky(prompt, completion, answer):
        if len(completion) % 2:
            raise RuntimeError
        return float(completion == answer)

    broken = improve_language(rows(), sloppy, {"grpo": form}, reward=shaky, **args)
    assert broken.verdict != "PROMOTE"
    assert any(c.name == "the reward" and not c.passed for c in broken.checks)


@pytest.mark.parametrize("samples", [1, 4])
def test_equal_models_are_promoted_at_most_as_often_as_stated(samples):
    """Prompts of every difficulty, 60 of them, two models that solve each as often: 5 % of 600
    runs, and no more than the binomial bound of 44."""
    from surpass.evaluation.guarded import guarded_p

    g = np.random.default_rng(0)
    promoted = 0
    for _ in range(600):
        solves = g.beta(0.5, 0.5, 60)
        a, b = (g.binomial(samples, solves) / samples for _ in range(2))
        promoted += guarded_p(a - b, -1.0) <= 0.05
    assert promoted <= 44


def test_logged_answers_promote_no_better_models_rarely():
    """The candidate doubles half of the answers' probabilities and halves its chance elsewhere,
    whatever they earn."""
    from surpass.evaluation.guarded import guarded_p

    g = np.random.default_rng(1)
    promoted = 0
    for _ in range(600):
        reward = (g.random(200) < 0.3).astype(float)
        heads = g.random(200) < 0.25
        ratio = np.where(heads, 2.0, 2 / 3)
        promoted += guarded_p((np.minimum(ratio, 20.0) - 1) * reward, -1.0) <= 0.05
    assert promoted <= 44
