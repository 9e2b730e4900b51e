"""The module executor: pieces, references, checkpoints and what stops it."""

import json

import pytest
import torch

from surpass.data.language import open_language
from surpass.errors import InputError
from surpass.forms import Adam, Pairwise, PolicyGradient, copy, ema, log, rollouts
from surpass.methods.preference.pairs import dpo
from surpass.methods.preference.scored import kto, sft
from surpass.methods.rlvr.policy_gradients import grpo, ppo_lm
from surpass.objectives.advantage import group_centered, ones
from surpass.objectives.divergence import entropy_bonus, k3
from surpass.objectives.preference import logistic
from surpass.objectives.ratio_penalties import variance_bound
from surpass.objectives.trust import clip
from surpass.parts import part
from surpass.policies.language import LanguagePolicy
from surpass.tasks.language import ModSum
from surpass.training import module_checkpoint
from surpass.training.language_rollouts import RolloutStream, TaskPrompts
from surpass.training.language_streams import RowStream
from surpass.training.module_run import train_language
from surpass.training.modules import ModuleTrainer
from surpass.training.run import train

transformers = pytest.importorskip("transformers")


@part
def of_the_batch(s, /):
    """A loss whose gradient in one row depends on all the others."""
    return s.margin.mean() * s.margin


@part
def broken(s, /):
    return s.margin * float("nan")


def tiny(vocabulary=18, seed=0, **more):
    config = transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64, pad_token_id=15,
        eos_token_id=14, bos_token_id=13, **more,
    )  # fmt: skip
    torch.manual_seed(seed)
    return transformers.LlamaForCausalLM(config)


def rows(n=12, seed=1):
    g = torch.Generator().manual_seed(seed)

    def ids(length):
        return torch.randint(0, 12, (length,), generator=g).tolist()

    return [
        {"prompt": ids(3 + i % 3), "chosen": ids(2 + i % 4), "rejected": ids(5 - i % 3)}
        for i in range(n)
    ]


def scored_rows(n=12):
    return [
        {"prompt": r["prompt"], "completion": r["chosen"], "label": bool(i % 2)}
        for i, r in enumerate(rows(n))
    ]


def weights(policy):
    return {n: p.detach().clone() for n, p in policy.model.named_parameters()}


def assert_same(a, b, **tolerance):
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, msg=name, **tolerance)


def pair_trainer(form, piece=None, model=None, steps=4):
    policy = LanguagePolicy(model or tiny())
    log = open_language(rows(), None)
    return ModuleTrainer(form, policy, RowStream(log, 6, kind="pairs", total=steps), piece=piece)


def first_gradient(trainer):
    """The gradient of the first update, before the optimizer uses it."""
    found = {}

    def keep(step):
        found.update({n: p.grad.clone() for n, p in trainer.policy.model.named_parameters()
                      if p.grad is not None})  # fmt: skip
        return 0.0

    trainer.main.step = keep
    trainer.update()
    return found


@pytest.mark.parametrize("form", [dpo(batch=6), Pairwise(logistic(0.3) + 0.1 * of_the_batch())])
def test_a_batch_of_pairs_in_pieces_gives_the_same_gradient(form):
    whole = first_gradient(pair_trainer(form))
    assert max(g.abs().max() for g in whole.values()) > 1e-4
    assert_same(whole, first_gradient(pair_trainer(form, piece=5)), rtol=1e-4, atol=1e-6)


def rollout_trainer(form, piece=None, seed=3, model=None):
    policy = LanguagePolicy(model or tiny())
    prompts = TaskPrompts(ModSum(), seed)
    stream = RolloutStream(policy, prompts, form.source, seed=seed, select=form.select)
    return ModuleTrainer(form, policy, stream, seed=seed, piece=piece)


def lucky(trainer):
    """Rewards that differ within groups, whatever an untrained model says."""
    trainer.stream.prompts.judge = lambda seq, rows: (seq.action.sum(-1).float() % 3, 0)
    return trainer


@pytest.mark.parametrize("epochs", [1, 2])
def test_policy_gradients_in_pieces_give_the_same_gradient(epochs):
    form = PolicyGradient(
        group_centered(), clip() + 0.1 * k3() + 0.01 * entropy_bonus(),
        nets={"reference": copy("policy")}, source=rollouts(16, 8, 4), epochs=epochs,
    )  # fmt: skip
    whole = first_gradient(lucky(rollout_trainer(form)))
    assert max(g.abs().max() for g in whole.values()) > 1e-4
    assert_same(whole, first_gradient(lucky(rollout_trainer(form, piece=3))), rtol=1e-4, atol=1e-6)


def test_a_batch_without_signal_moves_the_policy_alike_in_pieces():
    form = PolicyGradient(group_centered(), clip(), source=rollouts(16, 8, 4), optimizer=Adam(1e-2))

    def step(piece):
        trainer = lucky(rollout_trainer(form, piece=piece))
        trainer.update()
        before = weights(trainer.policy)
        trainer.stream.prompts.judge = lambda seq, rows: (torch.ones(len(seq)), 0)
        trainer.update()  # by momentum alone
        after = weights(trainer.policy)
        return float(sum((after[n] - w).square().sum() for n, w in before.items())) ** 0.5

    whole = step(None)
    assert whole > 1e-2
    assert step(3) == pytest.approx(whole, rel=0.05)


def test_a_stored_reference_and_a_second_model_give_the_same_updates():
    stored = pair_trainer(dpo(lr=1e-2, batch=6))
    second = pair_trainer(
        Pairwise(logistic(0.1), nets={"reference": copy("policy", every=10**6)},
                 source=dpo(batch=6).source, optimizer=dpo(lr=1e-2).optimizer)
    )  # fmt: skip
    assert stored.stored is not None and not stored.twins
    assert second.stored is None and second.twins
    for _ in range(4):
        assert stored.update()["loss"] == pytest.approx(second.update()["loss"], rel=1e-5)
    assert_same(weights(stored.policy), weights(second.policy), rtol=1e-5, atol=1e-6)


def test_adapters_off_is_the_reference():
    pytest.importorskip("peft")
    from surpass.policies.language import load_model

    model, _ = load_model(tiny(), lora=2)
    trainer = pair_trainer(dpo(lr=1e-2, batch=6), model=model)
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    assert trainer.twins["reference"].by_adapters and trainer.twins["reference"].shown is None
    losses = [trainer.update()["loss"] for _ in range(4)]
    assert losses[0] == pytest.approx(0.6931472, abs=1e-6)  # at the start policy is reference
    assert losses[-1] < losses[0]
    assert_same(frozen, dict(model.named_parameters()), rtol=0, atol=0)


def test_adapters_that_were_trained_before_are_part_of_the_reference(tmp_path):
    pytest.importorskip("peft")
    from surpass.policies.language import load_model

    def trained(steps, out, resume=False):
        model, _ = load_model(tiny(), lora=2)
        for name, p in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(p)
        return train_language(dpo(lr=1e-2, batch=6), rows(), model=model, steps=steps, seed=5,
                              out=tmp_path / out, resume=resume, log_every=1)  # fmt: skip

    trained(1, "parts")
    first = json.loads((tmp_path / "parts" / "log.jsonl").read_text())
    assert first["loss"] == pytest.approx(0.6931472, abs=1e-6)  # at the start policy is reference
    assert first["chosen"] == pytest.approx(0.0, abs=1e-5)
    whole = weights(trained(4, "whole"))
    assert_same(whole, weights(trained(4, "parts", resume=True)), rtol=0, atol=0)


def test_reference_rules_follow_as_they_say():
    form = Pairwise(logistic(0.1), nets={"reference": copy("policy", every=2)},
                    source=dpo(batch=6).source, optimizer=dpo(lr=1e-2).optimizer)  # fmt: skip
    trainer = pair_trainer(form)
    shown = trainer.twins["reference"].shown.model
    start = weights(trainer.policy)
    trainer.update()
    assert_same(start, dict(shown.named_parameters()), rtol=0, atol=0)
    trainer.update()
    assert_same(weights(trainer.policy), dict(shown.named_parameters()), rtol=0, atol=0)

    form = Pairwise(logistic(0.1), nets={"reference": ema("policy", 0.25)},
                    source=dpo(batch=6).source, optimizer=dpo(lr=1e-2).optimizer)  # fmt: skip
    trainer = pair_trainer(form)
    start = weights(trainer.policy)
    trainer.update()
    middle = {n: 0.75 * start[n] + 0.25 * p for n, p in weights(trainer.policy).items()}
    shown = dict(trainer.twins["reference"].shown.model.named_parameters())
    assert_same(middle, shown, rtol=1e-5, atol=1e-7)


def test_an_ema_corrected_for_its_start_is_a_weighted_mean():
    form = Pairwise(logistic(0.1), nets={"reference": ema("policy", 0.5, corrected=True)},
                    source=dpo(batch=6).source, optimizer=dpo(lr=1e-2).optimizer)  # fmt: skip
    trainer = pair_trainer(form)
    states = [weights(trainer.policy)]
    for _ in range(2):
        trainer.update()
        states.append(weights(trainer.policy))
    mix = {n: (0.25 * states[0][n] + 0.5 * states[1][n] + states[2][n]) / 1.75 for n in states[0]}
    assert_same(
        mix, dict(trainer.twins["reference"].shown.model.named_parameters()), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("key", ["pairs", "scored", "demonstrations", "rollouts", "values"])
def test_training_resumes_exactly(tmp_path, key):
    def run(steps, out, resume=False):
        form, data, task = {
            "pairs": (dpo(lr=1e-3, batch=4), rows(), None),
            "scored": (kto(lr=1e-3, batch=4), scored_rows(), None),
            "demonstrations": (sft(lr=1e-3, batch=4), scored_rows(), None),
            "rollouts": (grpo(lr=1e-3, batch=16, group=4, horizon=6, minibatches=2), None,
                         ModSum()),
            "values": (ppo_lm(lr=1e-3, batch=8, horizon=6, epochs=2, minibatches=2), None,
                       ModSum()),
        }[key]  # fmt: skip
        return train_language(form, data, model=tiny(), task=task, steps=steps, out=out, seed=5,
                              resume=resume, log_every=1)  # fmt: skip

    whole = run(5, tmp_path / "whole")
    run(3, tmp_path / "parts")
    torch.manual_seed(99)
    parts = run(5, tmp_path / "parts", resume=True)
    assert_same(weights(whole), weights(parts), rtol=0, atol=0)
    lines = (tmp_path / "parts" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5]
    if key == "rollouts":
        assert set(json.loads(lines[-1])["samples"][0]) == {"prompt", "completion", "reward"}
        assert {"reward", "kl", "with_signal", "sampled_entropy"} <= set(json.loads(lines[-1]))
    loaded = LanguagePolicy.load(tmp_path / "whole" / "policy")
    assert_same(weights(whole), weights(loaded), rtol=0, atol=0)


def test_every_process_goes_on_with_its_own_draws(tmp_path, monkeypatch):
    first, other, again = (pair_trainer(dpo(batch=6)) for _ in range(3))
    other.generator.manual_seed(9)
    theirs = module_checkpoint._draws(other)
    pair = lambda mine: [mine, theirs if mine.keys() == theirs.keys() else mine]  # noqa: E731
    monkeypatch.setattr(module_checkpoint, "everyone", pair)
    module_checkpoint.save_checkpoint(first, tmp_path / "kept")
    monkeypatch.setattr(module_checkpoint, "world", lambda: 2)
    for number, trainer in enumerate((first, other)):
        monkeypatch.setattr(module_checkpoint, "rank", lambda number=number: number)
        module_checkpoint.load_checkpoint(again, tmp_path / "kept")
        assert torch.equal(again.generator.get_state(), trainer.generator.get_state())


def test_what_parts_remember_begins_on_the_device_of_the_model(monkeypatch):
    form = PolicyGradient(ones(), variance_bound(), source=log(4, view="sequences"))
    stream = RowStream(open_language(scored_rows(), None), 4, kind="sequences")
    policy = LanguagePolicy(tiny())
    assert ModuleTrainer(form, policy, stream).running.state["trust"]["weight"].tolist() == [1.0]
    monkeypatch.setattr(LanguagePolicy, "device", torch.device("meta"))
    held = ModuleTrainer(form, policy, stream).running.state["trust"]
    assert held["weight"].device.type == "meta"


def test_the_count_of_steps_is_where_the_optimizer_wants_it():
    there, count = torch.zeros(2, device="meta"), torch.tensor(3.0)
    assert module_checkpoint._like(there, "step", count, fused=True).device.type == "meta"
    assert module_checkpoint._like(there, "step", count, fused=False) is count


def test_a_policy_keeps_its_temperature(tmp_path):
    def trained(model, **more):
        return train_language(dpo(batch=4), rows(), model=model, steps=1, **more).temperature

    assert trained(LanguagePolicy(tiny(), temperature=0.5), out=tmp_path) == 0.5
    assert trained(tmp_path / "policy") == 0.5  # as it was saved
    assert trained(tmp_path / "policy", temperature=2.0) == 2.0
    assert trained(tiny()) == 1.0


def test_a_checkpoint_of_another_model_or_recipe_is_refused(tmp_path):
    train_language(dpo(batch=4), rows(), model=tiny(), steps=1, out=tmp_path)
    with pytest.raises(InputError, match=r"another model.*embed_tokens.*is \[18, 16\] there"):
        train_language(dpo(batch=4), rows(), model=tiny(20), steps=2, out=tmp_path, resume=True)
    with pytest.raises(InputError, match="another recipe"):
        train_language(dpo(0.2, batch=4), rows(), model=tiny(), steps=2, out=tmp_path, resume=True)


def test_a_loss_that_is_not_a_number_stops_and_names_the_batch():
    trainer = pair_trainer(Pairwise(broken()))
    before = weights(trainer.policy)
    with pytest.raises(InputError, match=r"the loss is nan in update 1, batch rows \d+"):
        trainer.update()
    assert_same(before, weights(trainer.policy), rtol=0, atol=0)


def test_a_group_of_one_is_refused():
    form = PolicyGradient(group_centered(), clip(), source=rollouts(4, 4, 1))
    with pytest.raises(InputError, match=r"one answer only.*group=8"):
        rollout_trainer(form).update()


def test_dropout_is_off_in_training():
    trainer = pair_trainer(dpo(batch=6), model=tiny(attention_dropout=0.5))
    log = trainer.stream.log.pairs(range(4)).chosen
    one, two = trainer.policy.score(log).logp, trainer.policy.score(log).logp
    torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_train_hands_device_and_callback_to_language_models(monkeypatch):
    opened, marks = [], []

    def load(model, tokenizer, **options):
        opened.append(options["device"])
        return model, tokenizer

    monkeypatch.setattr("surpass.training.module_run.load_model", load)
    train(dpo(batch=4), rows(), model=tiny(), steps=5, device="cpu",
          callback=lambda step, notes, policy: marks.append(step) is None)  # fmt: skip
    assert opened == ["cpu"] and marks == [1]  # it stopped where the callback said so
