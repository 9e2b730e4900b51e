"""One part, several domains: the same function object on a cart, on a table and on tokens.

Each cell collects data in its domain, moves the policy a little, and compares the gradient that the
domain's executor makes of the part with one written down here from log-probs alone. The page
"Shared parts" of the documentation is made of `CELLS`.
"""

from __future__ import annotations

import pytest
import torch

transformers = pytest.importorskip("transformers")

from surpass.data.records import Pairs, Sequences  # noqa: E402
from surpass.forms import Pairwise, PolicyGradient, Spaces, copy, rollouts  # noqa: E402
from surpass.objectives.advantage import (  # noqa: E402
    at_last,
    group_centered,
    group_standardized,
    leave_one_out,
    whitened,
    with_columns,
)
from surpass.objectives.divergence import entropy_bonus, k3  # noqa: E402
from surpass.objectives.drift import clipped_away, discovered, mirror  # noqa: E402
from surpass.objectives.order_statistics import max_at_k  # noqa: E402
from surpass.objectives.preference import logistic, robust, squared  # noqa: E402
from surpass.objectives.ratio import per_sequence  # noqa: E402
from surpass.objectives.reduce import sequence_mean  # noqa: E402
from surpass.objectives.traces import recency_bounded, traced_gae  # noqa: E402
from surpass.objectives.trust import clip, dual_clip, ratio_loss, unclipped  # noqa: E402
from surpass.objectives.unified import anchored, unified  # noqa: E402
from surpass.parts import part, run  # noqa: E402
from surpass.policies.language import LanguagePolicy  # noqa: E402
from surpass.tasks.catalog import task  # noqa: E402
from surpass.tasks.language import ModSum  # noqa: E402
from surpass.training.engine import Engine  # noqa: E402
from surpass.training.language_rollouts import RolloutStream, TaskPrompts  # noqa: E402
from surpass.training.language_streams import Batch  # noqa: E402
from surpass.training.modules import ModuleTrainer  # noqa: E402
from surpass.training.on_policy import lowered  # noqa: E402
from surpass.training.preferences import SequenceLog, lowered_preferences  # noqa: E402
from surpass.training.streams import open_stream  # noqa: E402
from tests.methods.language_cases import tiny  # noqa: E402

CELLS = {
    "clip": ("cart-pole", "grid", "tokens"),
    "dual_clip": ("cart-pole", "grid", "tokens"),
    "clipped_away (PPO as a drift)": ("cart-pole", "grid", "tokens"),
    "discovered (a drift)": ("cart-pole", "grid", "tokens"),
    "per_sequence (GSPO's ratio)": ("cart-pole", "grid", "tokens"),
    "unified (mask, denominator)": ("cart-pole", "grid", "tokens"),
    "k3": ("cart-pole", "grid", "tokens"),
    "entropy_bonus": ("cart-pole", "grid", "tokens"),
    "leave_one_out": ("cart-pole", "grid", "tokens"),
    "group_standardized": ("cart-pole", "grid", "tokens"),
    "max_at_k": ("cart-pole", "grid", "tokens"),
    "whitened": ("cart-pole", "grid", "tokens"),
    "traced_gae (RBIS)": ("cart-pole", "grid", "tokens"),
    "sequence_mean": ("cart-pole", "grid", "tokens"),
    "logistic (DPO)": ("cart-pole", "grid", "tokens"),
    "squared (IPO)": ("cart-pole", "grid", "tokens"),
    "robust (rDPO)": ("cart-pole", "grid", "tokens"),
}

# ------------------------------------------------------------- what is written down by hand


def loo(d):
    """R_i minus the mean of the others of its group."""
    r, out = d["reward"].sum(-1), []
    for i in range(len(r)):
        rest = [j for j in range(len(r)) if d["group"][j] == d["group"][i] and j != i]
        out.append(r[i] - r[rest].mean())
    return torch.stack(out)[:, None]


def standardized(d):
    r, out = d["reward"].sum(-1), []
    for i in range(len(r)):
        mine = r[d["group"] == d["group"][i]]
        out.append((r[i] - mine.mean()) / (mine.std() + 1e-6))
    return torch.stack(out)[:, None]


def centered(d):
    r = d["reward"].sum(-1)
    return torch.stack([r[i] - r[d["group"] == g].mean() for i, g in enumerate(d["group"])])[
        :, None
    ]


def best_over_second(d):
    """max@2: n / C(n, 2) times the sum over lower ranked of the difference."""
    r, out = d["reward"].sum(-1), []
    for i in range(len(r)):
        mine = [j for j in range(len(r)) if d["group"][j] == d["group"][i]]
        n = len(mine)
        lower = [j for j in mine if (float(r[j]), j) < (float(r[i]), i)]
        out.append(sum((r[i] - r[j] for j in lower), torch.zeros(())) * 2 / (n - 1))
    return torch.stack(out)[:, None]


def white(d):
    a, m = centered(d) * torch.ones_like(d["mask"]), d["mask"] > 0
    return (a - a[m].mean()) / (a[m].std() + 1e-8)


def mean(value, d):
    return (value * d["mask"]).sum() / d["mask"].sum()


def ratio(d):
    return (d["logp"] - d["old"]).exp()


def clipped(r, a, low=0.1, high=0.1):
    return torch.minimum(r * a, r.clamp(1 - low, 1 + high) * a)


def sequence_ratio(d):
    """Per sequence: exp of the mean log-ratio over its decisions."""
    apart = (d["logp"] - d["old"]) * d["mask"]
    return (apart.sum(-1) / d["mask"].sum(-1)).exp()[:, None]


def by_dual(d):
    a = loo(d)
    inner = clipped(ratio(d), a)
    return mean(-torch.where(a < 0, torch.maximum(inner, 1.05 * a), inner), d)


def by_discovery(d):
    """PPO's surrogate with x - b tanh(x / b) in place of what clipping removes."""
    r, a = ratio(d), loo(d)
    x = torch.where(a >= 0, (r - 1) * a, r.log() * a)
    return mean((x - 0.05 * torch.tanh(x / 0.05)).clamp_min(0) - r * a, d)


def by_sequence_mean(d):
    each = (-ratio(d) * loo(d) * d["mask"]).sum(-1) / d["mask"].sum(-1)
    return each.mean()


def k3_by_hand(d):
    apart = d["ref"] - d["logp"]
    return mean(-ratio(d) * loo(d) + 0.3 * (apart.exp() - 1 - apart), d)


@part
def paid(nets, seq, /):
    """The same odd reward everywhere: the sum of the action numbers modulo 5, at the end."""
    out = seq.clone(recurse=False)
    out.reward = at_last(seq, (seq.action * seq.mask).sum(-1) % 5)
    return with_columns(out, paid=out.reward)


def off(action):
    """Values and log-ratios of another policy, from the actions alone."""
    return 0.2 * (action % 3), 0.4 * ((action % 4) - 1.5)


@part
def judged(nets, seq, /):
    value, log_ratio = off(seq.action)
    return with_columns(seq, value=value * seq.mask, log_ratio=log_ratio)


def recency_bounded_sums(d):
    """sum_u gamma^(u - t) min(lam^(u - t), rho_u beta_{t, u - 1}) delta_u, step by step."""
    value, log_ratio = off(d["action"])
    value, out = value * d["mask"], torch.zeros_like(d["mask"])
    for i in range(len(value)):
        n = int(d["mask"][i].sum())
        for t in range(n):
            beta = 1.0
            for u in range(t, n):
                if u > t:
                    beta = min(0.9 ** (u - t), float(log_ratio[i, u].exp()) * beta)
                after = value[i, u + 1] if u + 1 < n else 0.0
                delta = d["reward"][i, u] + 0.95 * after - value[i, u]
                out[i, t] += 0.95 ** (u - t) * beta * delta
    return out


def pg(advantage, trust, **more):
    return PolicyGradient(advantage, trust, source=rollouts(12, 8, 4), epochs=2,
                          **{"signals": (paid(),), **more})  # fmt: skip


def mean_of(advantage):
    return lambda d: mean(-ratio(d) * advantage(d), d)


def margin(d):
    """z of each pair: log-ratios to the reference, summed, chosen minus rejected."""
    apart = ((d["logp"] - d["ref"]) * d["mask"]).sum(-1)
    half = len(apart) // 2
    return apart[:half] - apart[half:]


def soft(z):
    return torch.nn.functional.softplus(z)


WAYS = {
    "clip": (pg(leave_one_out(), clip(0.1, 0.1)), lambda d: mean(-clipped(ratio(d), loo(d)), d)),
    "dual_clip": (pg(leave_one_out(), dual_clip(0.1, 0.1, cap=1.05)), by_dual),
    "clipped_away (PPO as a drift)": (
        pg(leave_one_out(), mirror(clipped_away(0.1, 0.1))),
        lambda d: mean(-clipped(ratio(d), loo(d)), d),
    ),
    "discovered (a drift)": (pg(leave_one_out(), mirror(discovered(0.05, 0.05))), by_discovery),
    "per_sequence (GSPO's ratio)": (
        pg(leave_one_out(), clip(0.03, 0.03), ratio=per_sequence()),
        lambda d: mean(-clipped(sequence_ratio(d), loo(d), 0.03, 0.03), d),
    ),
    "unified (mask, denominator)": (
        pg(leave_one_out(), unified(unclipped(0.1, 0.1), anchored())),
        lambda d: mean(-clipped(ratio(d), loo(d)), d),
    ),
    "k3": (
        pg(leave_one_out(), ratio_loss() + 0.3 * k3(), nets={"reference": copy("policy")}),
        k3_by_hand,
    ),
    "entropy_bonus": (
        pg(leave_one_out(), ratio_loss() + 0.5 * entropy_bonus()),
        lambda d: mean(-ratio(d) * loo(d) - 0.5 * d["entropy"], d),
    ),
    "leave_one_out": (pg(leave_one_out(), ratio_loss()), mean_of(loo)),
    "group_standardized": (pg(group_standardized(), ratio_loss()), mean_of(standardized)),
    "max_at_k": (pg(max_at_k(2), ratio_loss()), mean_of(best_over_second)),
    "whitened": (pg(whitened(group_centered()), ratio_loss()), mean_of(white)),
    "traced_gae (RBIS)": (
        pg(traced_gae(recency_bounded(0.9), 0.95), ratio_loss(), signals=(paid(), judged())),
        mean_of(recency_bounded_sums),
    ),
    "sequence_mean": (pg(leave_one_out(), ratio_loss(), reduce=sequence_mean()), by_sequence_mean),
    "logistic (DPO)": (Pairwise(logistic(0.5)), lambda d: soft(-0.5 * margin(d)).mean()),
    "squared (IPO)": (Pairwise(squared(0.5)), lambda d: (margin(d) - 1).square().mean()),
    "robust (rDPO)": (
        Pairwise(robust(0.5, 0.2)),
        lambda d: ((0.8 * soft(-0.5 * margin(d)) - 0.2 * soft(0.5 * margin(d))) / 0.6).mean(),
    ),
}  # fmt: skip


# ----------------------------------------------------------------------------------- domains


def push(parameters):
    """Move a policy a little, so that ratios are not 1."""
    g = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for p in parameters:
            p.add_(0.2 * torch.randn(p.shape, generator=g))


def read(logits, action):
    logp = logits.log_softmax(-1)
    entropy = -(logp.exp() * logp).sum(-1)
    return logp.gather(-1, action[..., None])[..., 0], entropy


def on_control(form, by_hand, where):
    """The gradient of the compiled executor's loss on fresh rollouts, and the one by hand."""
    torch.manual_seed(0)
    pairs = isinstance(form, Pairwise)
    acting = lowered(pg(leave_one_out(), ratio_loss()) if pairs else form)
    spaces = Spaces(where.spaces.obs_dim, n_actions=where.spaces.n_actions)
    stream = open_stream(acting.source, {"task": where}, spaces)
    engine = Engine(acting, stream, spaces, compile=False)
    stream.bind(engine, {"task": where})
    stream.before(1)
    rows = stream.sample(stream.tables)
    policy = engine.bank.policy
    learner, seen = acting, rows
    columns = {n: getattr(rows, n) for n in ("obs", "action", "mask", "group")}
    columns["reward"] = rows.extras["paid"]
    if pairs:
        half = len(rows.mask) // 2
        sides = [Sequences(**{n: v[i * half : (i + 1) * half] for n, v in columns.items()},
                           batch_size=[half]) for i in range(2)]  # fmt: skip
        log = Pairs(chosen=sides[0], rejected=sides[1], batch_size=[half])
        stream = SequenceLog(log, half)
        learner = lowered_preferences(form)
        engine = Engine(learner, stream, spaces, compile=False)
        seen = type(rows)(stream.tables)
        columns = {n: torch.cat([getattr(s, n) for s in sides]) for n in columns}
        policy = engine.bank.policy
    with torch.no_grad():
        old, _ = read(policy.logits(columns["obs"]), columns["action"])
    push(policy.parameters())
    for p in policy.parameters():
        p.requires_grad_(True)
    parameters = list(policy.parameters())
    logp, entropy = read(policy.logits(columns["obs"]), columns["action"])
    d = {**columns, "logp": logp, "old": old, "ref": old, "entropy": entropy}
    want = torch.autograd.grad(by_hand(d), parameters)
    loss = run(learner.update[0].loss, (engine.bank, seen))[0]
    return want, torch.autograd.grad(loss, parameters)


def on_tokens(form, by_hand):
    """The same on answers of a tiny language model."""
    policy = LanguagePolicy(tiny())
    prompts = TaskPrompts(ModSum(), 3)
    pairs = isinstance(form, Pairwise)
    source = rollouts(12, 8, 4)
    stream = RolloutStream(policy, prompts, source, seed=3)
    batch = stream.next()
    seq = batch.sequences
    if pairs:
        batch = Batch("pairs", pairs=Pairs(chosen=seq[:6], rejected=seq[6:], batch_size=[6]))
    stream.next = lambda: batch
    reference = LanguagePolicy(tiny().requires_grad_(False))
    trainer = ModuleTrainer(form, policy, stream, roles={"reference": reference})
    push(policy.model.parameters())
    parameters = list(policy.model.parameters())

    def scored(model):
        ids = torch.cat([seq.prompt, seq.action], 1)
        seen = torch.cat([seq.prompt_mask, seq.mask], 1).long()
        place = (seen.cumsum(-1) - 1).clamp_min(0)
        logits = model(input_ids=ids, attention_mask=seen, position_ids=place).logits
        return read(logits[:, seq.prompt.shape[1] - 1 : -1], seq.action)

    with torch.no_grad():
        old, _ = scored(tiny())
    logp, entropy = scored(policy.model)
    kept = {"logp": logp, "old": old, "ref": old, "entropy": entropy}
    d = {k: torch.where(seq.mask > 0, v, 0.0) for k, v in kept.items()}
    reward = at_last(seq, (seq.action * seq.mask).sum(-1) % 5)
    d |= {"mask": seq.mask, "reward": reward, "group": seq.group, "action": seq.action}
    want = torch.autograd.grad(by_hand(d), parameters)
    found = []

    def keep(step):
        found.append([p.grad.clone() for p in parameters])
        return 0.0

    trainer.main.step = keep
    trainer.update()
    return want, found[0]


@pytest.mark.parametrize(
    ("name", "domain"), [(name, d) for name, domains in CELLS.items() for d in domains]
)
def test_one_part_in_its_domains(name, domain):
    form, by_hand = WAYS[name]
    if domain == "tokens":
        want, got = on_tokens(form, by_hand)
    else:
        want, got = on_control(form, by_hand, task("grid-cliff" if domain == "grid" else domain))
    assert max(float(w.abs().max()) for w in want) > 1e-5
    for w, g in zip(want, got, strict=True):
        torch.testing.assert_close(g, w, rtol=2e-3, atol=2e-6)


def test_the_page_has_a_row_for_each_part_and_a_mark_for_each_cell():
    pytest.importorskip("mkdocs")
    import importlib.util
    from pathlib import Path

    place = Path(__file__).parent.parent / "docs" / "shared_parts.py"
    spec = importlib.util.spec_from_file_location("shared_parts_page", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.cells() == CELLS and set(WAYS) == set(CELLS)
    assert {d for row in CELLS.values() for d in row} == set(module.DOMAINS)
    page = module.page()
    assert page.count("✓") == sum(len(row) for row in CELLS.values())
    assert all(f"| `{name.split()[0]}`" in page for name in CELLS)
