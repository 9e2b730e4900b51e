"""Sampling: what is drawn, how likely it was, when it ends, and who spoke."""

import pytest
import torch

from surpass.errors import InputError
from surpass.policies import generation
from surpass.policies.generation import Sampling, converse, generate
from surpass.policies.language import LanguagePolicy
from surpass.policies.llama import fits

transformers = pytest.importorskip("transformers")


def model_of(kind="Llama", scale=3.0, **more):
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=37, hidden_size=16, intermediate_size=32, num_hidden_layers=2, head_dim=4,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0,
        eos_token_id=2, bos_token_id=1, **more,
    )  # fmt: skip
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(scale)
    return model


def prompts():
    g = torch.Generator().manual_seed(1)
    mask = torch.ones(6, 7)
    mask[0, :3] = 0
    mask[4, :1] = 0
    return torch.randint(3, 37, (6, 7), generator=g), mask


def drawn(policy, seed=1, **named):
    prompt, mask = prompts()
    return generate(policy, prompt, mask, Sampling(**{"new": 20, **named}), group=3,
                    generator=torch.Generator().manual_seed(seed))  # fmt: skip


@pytest.mark.parametrize("kind", ["Llama", "Qwen2", "Gemma2", "GPTNeoX"])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probs_at_sampling_are_those_of_training(kind, temperature):
    more = {"num_key_value_heads": 4} if kind == "GPTNeoX" else {}
    if kind == "GPTNeoX":
        config = transformers.GPTNeoXConfig(
            vocab_size=37, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=64, eos_token_id=2,
        )  # fmt: skip
        policy = LanguagePolicy(transformers.GPTNeoXForCausalLM(config), temperature=temperature)
    else:
        policy = LanguagePolicy(model_of(kind, **more), temperature=temperature)
    seq = drawn(policy)
    with torch.no_grad():
        again = policy.score(seq).logp
    torch.testing.assert_close(seq.behavior_logp, again, rtol=0, atol=1e-4)
    assert len(set(seq.length.tolist())) > 2  # rows that ended early are among them


def test_fused_decoding_draws_what_the_model_itself_draws(monkeypatch):
    policy = LanguagePolicy(model_of())
    assert fits(policy.model)
    fused = drawn(policy)
    monkeypatch.setattr(generation, "fits", lambda model: False)
    cached = drawn(policy)
    assert torch.equal(fused.action, cached.action)
    assert torch.equal(fused.mask, cached.mask)
    torch.testing.assert_close(fused.behavior_logp, cached.behavior_logp, rtol=0, atol=1e-5)


def test_fused_decoding_is_for_models_it_knows():
    assert not fits(model_of("Gemma2"))
    assert not fits(model_of("Mistral", sliding_window=4))
    assert fits(model_of("Qwen2"))


def test_draws_follow_the_distribution():
    policy = LanguagePolicy(model_of())
    prompt = prompts()[0][:1]
    seq = generate(policy, prompt, torch.ones_like(prompt), Sampling(new=1), group=20000,
                   generator=torch.Generator().manual_seed(0))  # fmt: skip
    with torch.no_grad():
        p = policy.model(input_ids=prompt).logits[0, -1].softmax(-1)
    shares = torch.bincount(seq.action[:, 0], minlength=37) / 20000
    assert (shares - p).abs().max() < 4 * (p * (1 - p) / 20000).sqrt().max()


def test_temperature_zero_takes_the_likeliest():
    policy = LanguagePolicy(model_of())
    seq = drawn(policy, temperature=0.0, new=5)
    ids = torch.cat([seq.prompt, seq.action], 1)
    row = 3  # without padding
    with torch.no_grad():
        best = policy.model(input_ids=ids[row : row + 1]).logits[0].argmax(-1)
    width, n = seq.prompt.shape[1], int(seq.length[row])
    assert torch.equal(ids[row, width : width + n], best[width - 1 : width - 1 + n])


def test_an_answer_ends_with_its_end_token():
    policy = LanguagePolicy(model_of())
    seq = drawn(policy)
    for action, n in zip(seq.action, seq.length.int().tolist(), strict=True):
        assert not (action[: n - 1] == 2).any() and not action[n:].any()
        assert n == seq.action.shape[1] or action[n - 1] == 2
    assert (drawn(policy, eos=-1).length == 20).all()


class Letters:
    """A tokenizer of one letter per token."""

    eos_token_id = 2

    def __len__(self):
        return 37

    def batch_decode(self, rows):
        return ["".join(chr(ord("A") + i) for i in row) for row in rows]


def test_stop_strings_end_an_answer():
    policy = LanguagePolicy(model_of(scale=1.0), Letters())
    seq = drawn(policy, stop=("D", "FG"), eos=-1)
    for action, n in zip(seq.action, seq.length.int().tolist(), strict=True):
        text = Letters().batch_decode([action[:n].tolist()])[0]
        assert "D" not in text[:-1] and "FG" not in text[:-1]
        assert n == 20 or text.endswith(("D", "FG"))
    with pytest.raises(InputError, match="stop strings need a tokenizer"):
        drawn(LanguagePolicy(model_of()), stop=("D",))


def test_an_answer_must_fit_into_the_context():
    with pytest.raises(InputError, match=r"7 tokens and 60 new ones do not fit.*context of 64"):
        drawn(LanguagePolicy(model_of()), new=60)


def test_turns_of_an_environment_are_seen_and_not_scored():
    policy = LanguagePolicy(model_of())

    def reply(row, said):
        return None if row == 1 else [5, 6 + len(said) % 2]

    seq = converse(policy, [[3, 4, 7], [9, 8], [11]], reply, Sampling(new=4), turns=3,
                   generator=torch.Generator().manual_seed(0))  # fmt: skip
    with torch.no_grad():
        again = policy.score(seq).logp
    torch.testing.assert_close(seq.behavior_logp * seq.mask, again, rtol=0, atol=1e-4)
    assert seq.turn[1].max() == 0 and seq.turn[0].max() == 2
    tool = (seq.mask[0] == 0) & (torch.arange(len(seq.mask[0])) < seq.mask[0].nonzero().max())
    assert (seq.turn[0][tool] == -1).all() and int(tool.sum()) == 4
    assert (seq.action[0][tool][::2] == 5).all()


def test_a_cache_kept_between_turns_changes_nothing(monkeypatch):
    """Ragged prompts, turns and replies, rows that end early; greedy, so that no draw differs."""
    from surpass.policies import generation

    policy = LanguagePolicy(model_of(scale=1.0))
    prompts = [[3, 4, 7], [9, 8], [11], [5, 1, 2, 6, 7, 3]]

    def reply(row, said):
        return None if (row + sum(said)) % 4 == 0 else [5, 6, 8, 9][: 1 + (row + said[-1]) % 4]

    def talk(temperature):
        return converse(policy, prompts, reply, Sampling(new=4, temperature=temperature, eos=2),
                        turns=5, generator=torch.Generator().manual_seed(1))  # fmt: skip

    kept, drawn = talk(0.0), talk(1.5)
    with monkeypatch.context() as patch:
        patch.setattr(generation, "fits", lambda model: False)
        again = talk(0.0)
    assert torch.equal(kept.action, again.action) and torch.equal(kept.turn, again.turn)
    assert len({int(n) for n in kept.turn.amax(-1)}) > 1  # rows end at different turns
    policy.temperature = 1.5
    with torch.no_grad():
        scored = policy.score(drawn).logp
    torch.testing.assert_close(drawn.behavior_logp * drawn.mask, scored, rtol=0, atol=1e-4)
