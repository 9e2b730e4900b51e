"""Sources and options of language models: replay with age, turns, packing, bfloat16, vLLM."""

import sys
import types
from copy import deepcopy as copied

import pytest
import torch

from surpass.data.language import open_language
from surpass.errors import InputError
from surpass.forms import Adam, Given, PolicyGradient, copy, rollouts
from surpass.methods.agents.information_gain import igpo
from surpass.methods.preference.pairs import dpo
from surpass.methods.rlvr.policy_gradients import grpo
from surpass.objectives.advantage import everything, group_centered
from surpass.objectives.divergence import entropy, k3
from surpass.objectives.trust import clip
from surpass.policies.generation import Sampling, generate
from surpass.policies.language import LanguagePolicy, chosen_precision
from surpass.policies.outside_sampling import Vllm, open_sampler
from surpass.tasks.hop_search import HopSearch
from surpass.tasks.language import ModSum
from surpass.training import language_rollouts
from surpass.training.language_rollouts import (
    LogPrompts,
    RolloutStream,
    TaskPrompts,
    with_answers,
)
from surpass.training.module_run import train_language
from surpass.training.pieces import score_all
from surpass.training.references import twin
from surpass.training.run import train
from surpass.zoo.language import tiny_llama, warm
from tests.training.test_modules import assert_same, first_gradient, pair_trainer, tiny, weights

transformers = pytest.importorskip("transformers")


def stream_of(source, seed=3, **more):
    policy = LanguagePolicy(tiny())
    prompts = TaskPrompts(ModSum(), seed)
    prompts.judge = lambda seq, rows: (seq.action.sum(-1).float() % 3, 0)
    return RolloutStream(policy, prompts, source, seed=seed, **more)


def test_replayed_groups_keep_their_age_rewards_and_log_probs():
    stream = stream_of(rollouts(16, 6, 4, replay=0.5, oldest=2))
    first, second, third, fourth = (stream.next() for _ in range(4))
    assert first.exact and first.sequences.age.tolist() == [0] * 16
    assert not third.exact
    age = third.sequences.age.view(4, 4)
    assert (age == age[:, :1]).all() and (age == 0).sum() == 8 and age.max() <= 2
    written = {}
    for batch in (first, second, third, fourth):
        seq = batch.sequences
        assert len(seq) == 16 and (torch.bincount(seq.group) == 4)[seq.group].all()
        for row in seq:
            key = str([row.prompt[row.prompt_mask > 0].tolist(), row.action[row.mask > 0].tolist()])
            found = float(row.reward.sum()), float((row.behavior_logp * row.mask).sum())
            if int(row.age) > 0:
                assert found == pytest.approx(written[key], rel=1e-5)
            written[key] = found


def test_a_process_whose_batch_is_full_samples_on_with_the_others(monkeypatch):
    source = rollouts(16, 6, 4, refill=3)
    alone = stream_of(source, select=everything())
    assert len(alone.next().sequences) == 16 and alone.spent == 16
    monkeypatch.setattr(language_rollouts, "agreed", lambda value, largest=True: 0)
    beside = stream_of(source, select=everything())  # another that never has a group with signal
    assert len(beside.next().sequences) == 16 and beside.spent == 4 * 16


def test_replay_resumes_exactly(tmp_path):
    form = PolicyGradient(
        group_centered(), clip(), source=rollouts(16, 6, 4, replay=0.5), optimizer=Adam(1e-3)
    )

    def run(steps, out, resume=False):
        return train_language(form, model=tiny(), task=ModSum(), steps=steps, out=out, seed=5,
                              resume=resume)  # fmt: skip

    whole = run(4, tmp_path / "whole")
    run(2, tmp_path / "parts")
    assert_same(weights(whole), weights(run(4, tmp_path / "parts", True)), rtol=0, atol=0)


def test_prompts_of_a_log_go_on_in_their_order_when_batches_differ_in_size():
    def prompts():
        log = open_language([{"prompt": [i]} for i in range(14)], None, kind="prompts")
        return LogPrompts(log, None, None, 5)

    whole, parts = prompts(), prompts()
    for each in (whole, parts):
        each.draw(8)  # the first batch is fresh, later ones are in part replayed
        each.draw(3)
    for _ in range(2):  # carried on, and once more before anything was drawn
        state, parts = parts.state_dict(), prompts()
        parts.load_state_dict(state)
    for _ in range(6):
        assert parts.draw(3).rows == whole.draw(3).rows


def test_turns_of_a_tool_are_seen_and_masked():
    def tool(prompt, said):
        return [len(prompt), len(said)] if len(said) < 3 else None

    stream = stream_of(rollouts(8, 3, 4, turns=3), reply=tool)
    seq = stream.next().sequences
    assert seq.group.tolist() == [0] * 4 + [1] * 4
    between = (seq.turn < 0) & (seq.action > 0)
    assert between.any() and (seq.mask[between] == 0).all()
    assert (seq.mask[seq.turn >= 0] == 1).all() and int(seq.turn.max()) == 1
    logp = stream.policy.score(seq).logp
    torch.testing.assert_close(logp * seq.mask, seq.behavior_logp * seq.mask, rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="need reply"):
        stream_of(rollouts(8, 3, 4, turns=3))


def test_packing_changes_nothing_but_the_rows(monkeypatch):
    from surpass.policies import token_logps

    monkeypatch.setattr(token_logps, "fits", lambda model: False)
    plain, tight = pair_trainer(dpo(batch=6)), pair_trainer(dpo(batch=6))
    tight.policy.packing = True
    seen = []
    inner = tight.policy.model.model.forward
    tight.policy.model.model.forward = lambda *a, **k: (
        seen.append(k["input_ids"].numel()), inner(*a, **k))[1]  # fmt: skip
    want, got = first_gradient(plain), first_gradient(tight)
    assert_same(want, got, rtol=1e-4, atol=1e-6)
    seq = plain.stream.log.pairs(range(6)).chosen
    ours = tight.policy.score(seq, (entropy,)).statistics["entropy"]
    torch.testing.assert_close(ours, plain.policy.score(seq, (entropy,)).statistics["entropy"])
    assert seen[-1] < seq.mask.numel() + seq.prompt.numel()


def test_bfloat16_stays_near_full_precision_and_keeps_the_weights():
    exact, rough = pair_trainer(dpo(lr=1e-2, batch=6)), pair_trainer(dpo(lr=1e-2, batch=6))
    rough.policy.precision = chosen_precision("bf16", rough.policy.device)
    for _ in range(4):
        one, two = exact.update(), rough.update()
        assert two["loss"] == pytest.approx(one["loss"], abs=0.02)
    assert two["loss"] != one["loss"]
    assert next(rough.policy.model.parameters()).dtype == torch.float32
    assert chosen_precision("auto", torch.device("cpu")) is None
    with pytest.raises(InputError, match="fp32, bf16 or auto"):
        chosen_precision("fp8", torch.device("cpu"))


def test_a_reference_is_read_in_the_precision_of_the_policy():
    policy = LanguagePolicy(tiny())
    policy.precision = torch.bfloat16
    seq = pair_trainer(dpo(batch=6)).stream.log.pairs(range(6)).chosen
    want = score_all(policy, seq, 8).logp
    assert not torch.equal(want, score_all(LanguagePolicy(tiny()), seq, 8).logp)
    for rule, given in ((copy("policy"), None), (Given("reference"), tiny())):
        torch.testing.assert_close(twin(policy, rule, given).logps(seq, 8), want, rtol=0, atol=0)


def test_a_reference_one_checkpoint_behind():
    form = PolicyGradient(
        group_centered(), clip() + k3(), nets={"reference": copy("policy", every=1, lag=1)},
        source=rollouts(8, 4, 4), optimizer=Adam(1e-2),
    )  # fmt: skip
    from tests.training.test_modules import lucky, rollout_trainer

    trainer = lucky(rollout_trainer(form))
    states = [weights(trainer.policy)]
    for _ in range(3):
        trainer.update()
        states.append(weights(trainer.policy))
    shown = dict(trainer.twins["reference"].shown.model.named_parameters())
    assert_same(states[2], shown, rtol=0, atol=0)


class Engine:
    """Answers 3, 4 and the end token to everything, with log-probs by place."""

    def __init__(self, **options):
        self.options, self.loaded = options, []

    def apply_model(self, call):
        call(types.SimpleNamespace(load_weights=self.loaded.extend))

    def generate(self, prompts, asked, use_tqdm):
        def one(n):
            ids = [3, 4, 14][-n:]
            steps = [{t: types.SimpleNamespace(logprob=-0.5 * k)} for k, t in enumerate(ids)]
            return types.SimpleNamespace(token_ids=ids, logprobs=steps)

        return [types.SimpleNamespace(outputs=[one(1 + (i + j) % 3) for j in range(asked.n)])
                for i in range(len(prompts))]  # fmt: skip


def test_vllm_is_refused_in_one_line_and_read_as_our_own_answers(monkeypatch):
    policy = LanguagePolicy(tiny())
    with pytest.raises(InputError, match="needs a GPU"):
        open_sampler("vllm", policy)
    with pytest.raises(InputError, match="own or vllm"):
        open_sampler("other", policy)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(InputError, match="vllm is not installed"):
        open_sampler("vllm", policy)
    package = types.SimpleNamespace(LLM=Engine, SamplingParams=types.SimpleNamespace)
    policy.sampler = Vllm(package, policy)
    prompt = torch.tensor([[0, 1, 2], [5, 6, 7]])
    seq = generate(policy, prompt, torch.tensor([[0, 1, 1], [1, 1, 1]]), Sampling(3), group=2)
    assert seq.action.tolist() == [[14, 0, 0], [4, 14, 0], [4, 14, 0], [3, 4, 14]]
    assert seq.mask.sum(-1).tolist() == [1, 2, 2, 3] and seq.group.tolist() == [0, 0, 1, 1]
    assert seq.behavior_logp[3].tolist() == [0.0, -0.5, -1.0]
    names = {name for name, _ in policy.sampler.engine.loaded}
    assert names == set(policy.model.state_dict())
    trainer = RolloutStream(policy, TaskPrompts(ModSum(), 0), grpo(batch=8, group=4).source)
    assert not trainer.exact


def test_a_task_that_takes_turns_resumes_exactly(tmp_path):
    task = HopSearch(entities=6, relations=2, turns=3)
    form = igpo(batch=8, group=4, horizon=4, turns=3, lr=1e-2)
    policy = LanguagePolicy(tiny_llama(task, width=16, layers=1, heads=2))
    warm(policy, task, error=0.0, steps=100, until=1.0, every=100)  # it searches, and fails

    def run(steps, out, resume=False):
        return weights(
            train_language(form, model=copied(policy.model), task=task, steps=steps, out=out,
                           seed=5, resume=resume)
        )  # fmt: skip

    whole, before = run(4, tmp_path / "whole"), weights(policy)
    assert any(not torch.equal(before[n], w) for n, w in whole.items())
    run(2, tmp_path / "parts")
    assert_same(whole, run(4, tmp_path / "parts", True), rtol=0, atol=0)


def test_a_recipe_that_asks_for_answers_says_what_is_missing():
    form = igpo(batch=8, group=4, horizon=4, turns=3)
    with pytest.raises(InputError, match="several turns need reply"):
        train_language(form, model=tiny(), task=ModSum(), steps=1)
    with pytest.raises(InputError, match="asks for right answers, and modsum-lm names none"):
        train_language(form, model=tiny(), task=ModSum(), steps=1, reply=lambda p, said: [1])
    with pytest.raises(InputError, match="hop-search is a task for language models"):
        train(form, None, "hop-search", steps=1)


def test_right_answers_of_a_log_stand_between_their_wrapping():
    class Letters:
        def encode(self, text, add_special_tokens):
            return [ord(c) for c in text]

    rows = [{"prompt": [1, 2], "answer": "ab"}, {"prompt": [3], "answer": ["c", "d"]}]
    prompts = LogPrompts(open_language(rows, None, kind="prompts"), None, Letters(), 0)
    seq = stream_of(rollouts(2, 3)).next().sequences
    found = with_answers(seq, prompts.answers(seq, [1, 0], ("<", ">>"))).extras
    assert [bytes(r).decode().strip("\0") for r in found["answer"].tolist()] == ["<c>>", "<ab>>"]
    assert found["answer_own"].tolist() == [[0, 1, 0, 0, 0], [0, 1, 1, 0, 0]]
    assert found["answer_mask"].sum(-1).tolist() == [4, 5]
    bare = LogPrompts(open_language([{"prompt": [1]}], None, kind="prompts"), None, Letters(), 0)
    with pytest.raises(InputError, match="no column 'answer'"):
        bare.answers(seq, [0], ("", ""))
