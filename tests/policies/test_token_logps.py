"""Chunked log-probs against the plain computation: values, statistics and gradients."""

import pytest
import torch

from surpass.objectives.divergence import collision, entropy, mean_logp, read_out
from surpass.policies import packed_llama
from surpass.policies import token_logps as token_logps_module
from surpass.policies.packed_llama import shared
from surpass.policies.token_logps import Head, Tokens, aligned, readout, token_logps

transformers = pytest.importorskip("transformers")
NEEDS = (entropy, collision, mean_logp)


def tiny(vocabulary=37, kind="Llama", **more):
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=vocabulary, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, head_dim=4,
        pad_token_id=0, eos_token_id=2, bos_token_id=1, **more,
    )  # fmt: skip
    torch.manual_seed(0)
    return getattr(transformers, f"{kind}ForCausalLM")(config)


def padded_batch():
    """Padding on the left, on the right, on both sides, and nowhere; some tokens not scored."""
    g = torch.Generator().manual_seed(3)
    ids = torch.randint(3, 37, (4, 11), generator=g)
    attention = torch.ones(4, 11, dtype=torch.long)
    attention[0, :3] = 0
    attention[1, 8:] = 0
    attention[2, :2] = 0
    attention[2, 9:] = 0
    scored = (attention > 0) & (torch.rand(4, 11, generator=g) > 0.3)
    scored[torch.arange(4), attention.argmax(-1)] = False
    return Tokens(ids, attention, scored)


def plain(model, batch, temperature=1.0):
    """Log-probs and statistics from whole logits, one row at a time without any padding."""
    out = torch.zeros(4, *batch.ids.shape)
    for row in range(len(batch.ids)):
        real = batch.attention[row] > 0
        logits = model(input_ids=batch.ids[row][real][None]).logits[0] / temperature
        logp = logits.log_softmax(-1)
        values = torch.stack(
            [
                logp[:-1].gather(-1, batch.ids[row][real][1:, None])[:, 0],
                -(logp.exp() * logp).sum(-1)[:-1],
                logp.exp().square().sum(-1).log()[:-1],
                logp.mean(-1)[:-1],
            ]
        )
        where = real.nonzero()[1:, 0]
        out[:, row, where] = values
    return out * batch.scored


def gradients(model, value):
    model.zero_grad()
    value.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ["Llama", "Qwen2"])
@pytest.mark.parametrize("fused", ["in pieces", "long", ""])
def test_the_fused_trunk_is_the_model_s_own(monkeypatch, kind, fused):
    model = tiny(kind=kind)
    monkeypatch.setattr(token_logps_module, "trains_fused", lambda m: bool(fused))
    monkeypatch.setattr(packed_llama, "PIECE", 3)
    monkeypatch.setattr(packed_llama, "BLOCK", 9)
    monkeypatch.setattr(packed_llama, "WIDEST", 0 if fused == "long" else 100)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    batch, weights = padded_batch(), torch.randn(4, 11)
    batch.ids[3, :5] = batch.ids[1, :5]  # rows that begin alike share what they begin with
    batch.ids[0, 3:8] = batch.ids[1, :5]
    batch.ids[2, 2:5] = batch.ids[1, :3]
    want = plain(model, batch)[0]
    got = token_logps(model, batch).logp
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    ours = gradients(model, (weights * got).sum())
    for name, g in gradients(model, (weights * want).sum()).items():
        torch.testing.assert_close(ours[name], g, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("block", [37 * 7, 40])
def test_values_and_gradients_are_those_of_whole_logits(tied, block):
    model = tiny(tie_word_embeddings=tied)
    batch = padded_batch()
    weights = torch.randn(4, *batch.ids.shape)
    want = plain(model, batch, temperature=0.7)
    stats = token_logps(model, batch, needs=NEEDS, temperature=0.7, block=block)
    got = torch.stack([stats.logp, *(stats.statistics[n.__name__] for n in NEEDS)])
    torch.testing.assert_close(got, want, rtol=1e-5, atol=2e-6)
    ours = gradients(model, (weights * got).sum())
    theirs = gradients(model, (weights * want).sum())
    assert ours.keys() == theirs.keys()
    for name, g in theirs.items():
        torch.testing.assert_close(ours[name], g, rtol=1e-4, atol=2e-5, msg=name)


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("Gemma2", {"final_logit_softcapping": 3.0, "sliding_window": 64}),
        ("Cohere", {"logit_scale": 0.3}),
        ("Qwen2", {}),
    ],
)
def test_heads_with_scale_and_soft_cap(kind, more):
    model = tiny(kind=kind, **more)
    if kind == "Gemma2":  # so that the cap bends something
        with torch.no_grad():
            model.get_output_embeddings().weight.mul_(50)
    batch = padded_batch()
    want = plain(model, batch)
    stats = token_logps(model, batch, needs=NEEDS, block=50)
    got = torch.stack([stats.logp, *(stats.statistics[n.__name__] for n in NEEDS)])
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    weights = torch.randn(got.shape)
    ours = gradients(model, (weights * got).sum())
    for name, g in gradients(model, (weights * want).sum()).items():
        torch.testing.assert_close(ours[name], g, rtol=1e-3, atol=1e-4, msg=name)


def test_a_head_that_is_more_than_linear_takes_the_plain_path():
    peft = pytest.importorskip("peft")
    model = tiny(tie_word_embeddings=False)
    config = peft.LoraConfig(r=2, target_modules=["lm_head", "q_proj"], task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, p in adapted.named_parameters():
            if "lora_B" in name:
                p.normal_()
    batch = padded_batch()
    want = plain(adapted, batch)
    got = token_logps(adapted, batch, needs=NEEDS)
    torch.testing.assert_close(got.logp, want[0], rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(got.statistics["entropy"], want[1], rtol=1e-5, atol=5e-5)


def test_packed_rows_are_the_sequences_apart():
    model = tiny()
    batch = padded_batch()
    pieces, scored = [], []
    for row in range(4):
        real = batch.attention[row] > 0
        pieces.append(batch.ids[row][real])
        scored.append(batch.scored[row][real])
    segment = torch.cat([torch.full((len(p),), i) for i, p in enumerate(pieces)])
    packed = Tokens(
        torch.cat(pieces)[None], torch.ones(1, len(segment)), torch.cat(scored)[None],
        segment[None],
    )  # fmt: skip
    want = plain(model, batch)
    stats = token_logps(model, packed, needs=(entropy,))
    flat = torch.cat([want[:, r, batch.attention[r] > 0] for r in range(4)], 1)
    torch.testing.assert_close(stats.logp[0], flat[0], rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(stats.statistics["entropy"][0], flat[1], rtol=1e-5, atol=2e-6)
    ours = gradients(model, stats.logp.sum())
    for name, g in gradients(model, plain(model, batch)[0].sum()).items():
        torch.testing.assert_close(ours[name], g, rtol=1e-4, atol=2e-5, msg=name)


def test_padding_says_nothing():
    model = tiny()
    batch = padded_batch()
    garbage = torch.where(batch.attention > 0, batch.ids, torch.full_like(batch.ids, 36))
    one = token_logps(model, batch).logp
    two = token_logps(model, Tokens(garbage, batch.attention, batch.scored)).logp
    torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_what_rows_begin_with_is_computed_once():
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 9, 9], [4, 6, 7, 8], [5, 6, 7, 0]])
    real = torch.ones(4, 4, dtype=torch.bool)
    real[3, 3] = False
    index, place = shared(ids, real)
    assert index.tolist() == [0, 1, 2, 3, 6, 7, 8, 9, 10, 11]
    assert place.tolist() == [[0, 1, 2, 3], [0, 1, 4, 5], [6, 7, 8, 9], [0, 1, 2, 0]]


def test_rows_move_to_the_left_and_remember_where_they_were():
    tokens, place = aligned(padded_batch())
    assert tokens.attention.sum(-1).tolist() == [8, 8, 7, 11]
    assert place[:, 0].tolist() == [3, 0, 2, 0]


def test_blocks_of_any_size_give_the_sums_of_whole_logits():
    h, w = torch.randn(9, 5) * 4, torch.randn(13, 5) * 4
    bias, action = torch.randn(13), torch.randint(13, (9,))
    want = read_out((h @ w.t() + bias) * 0.5, action)
    for block in (1, 7, 40, 1000):
        got = readout(h, Head(w, bias, 0.5), action, ("mean", "lse2", "total"), block)
        for name in ("chosen", "lse", "mean", "lse2", "total"):
            torch.testing.assert_close(
                getattr(got, name), getattr(want, name), rtol=1e-5, atol=1e-4
            )


def test_entropy_and_collision_of_a_uniform_distribution():
    read = read_out(torch.zeros(1, 8), torch.tensor([3]))
    torch.testing.assert_close(entropy(read), torch.tensor([8.0]).log())
    torch.testing.assert_close(collision(read), -torch.tensor([8.0]).log())
    torch.testing.assert_close(mean_logp(read), -torch.tensor([8.0]).log())
