"""What a step moves: the three factors against derivatives, language models against steps taken,
the squeezing of a table, and DPO behind imitation of both answers."""

import math

import pytest
import torch

transformers = pytest.importorskip("transformers")

import surpass as sp  # noqa: E402
from surpass.data.language import open_language  # noqa: E402
from surpass.errors import InputError  # noqa: E402
from surpass.evaluation.dynamics import Watched, _logps, learning_of, probes  # noqa: E402
from surpass.forms import PolicyGradient, log  # noqa: E402
from surpass.methods.preference.learning_dynamics import extend  # noqa: E402
from surpass.methods.preference.online import online_dpo  # noqa: E402
from surpass.methods.preference.pairs import dpo, orpo  # noqa: E402
from surpass.methods.preference.scored import sft  # noqa: E402
from surpass.objectives.advantage import ones  # noqa: E402
from surpass.objectives.learning_dynamics import (  # noqa: E402
    Learning,
    imitation_residual,
    sensitivity,
    tangent_kernel,
    unlearned,
)
from surpass.objectives.reduce import sequence_mean  # noqa: E402
from surpass.objectives.trust import nll  # noqa: E402
from surpass.policies.language import LanguagePolicy  # noqa: E402
from surpass.training.module_run import train_language  # noqa: E402
from tests.methods.language_cases import (  # noqa: E402
    assert_same,
    gradient,
    pair_trainer,
    row_trainer,
    rows,
    scored_rows,
    tiny,
)


def classifier(seed=0):
    """A net of two layers, as a function of its parameters and an input."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    parameters = {"w": normal(8, 4) / 2, "b": normal(8), "v": normal(5, 8) / 3}
    xs = normal(100, 4)
    return parameters, xs, lambda p, x: torch.tanh(x @ p["w"].T + p["b"]) @ p["v"].T


def test_the_prediction_is_the_product_of_the_three_factors():
    p, (x, other, *_), net = classifier()
    learning = Learning(
        p, lambda q: -net(q, x).log_softmax(-1)[2],
        lambda q: {"o": net(q, other).log_softmax(-1), "u": net(q, x).log_softmax(-1)},
    )  # fmt: skip
    found = sp.llm_learning_dynamics(lr=1e-3).measure(learning)
    for name, seen in (("o", other), ("u", x)):
        K = tangent_kernel(lambda q, s=seen: net(q, s), lambda q: net(q, x), p)
        want = -1e-3 * sensitivity(net(p, seen)) @ K @ imitation_residual(net(p, x), 2)
        torch.testing.assert_close(found.predicted[name], want)
    assert found.predicted["u"][2] > 0
    assert found.correlation > 0.9999 and found.error < 0.01
    assert 3.9 < found.shrinks < 4.1


def test_a_table_under_dpo():
    """K = I: the chosen answer is pushed up and the rejected one down, both by beta (1 - a)."""
    z = torch.tensor([1.0, -0.5, 0.2, -2.0], dtype=torch.float64)
    ref, beta = torch.tensor([0.0, 0.3, 0.1, -1.0], dtype=torch.float64).log_softmax(-1), 0.7

    def loss(q):
        delta = q["z"].log_softmax(-1) - ref
        return torch.nn.functional.softplus(-beta * (delta[1] - delta[3]))

    found = sp.llm_learning_dynamics(lr=1e-3).measure(
        Learning({"z": z}, loss, lambda q: {"": q["z"].log_softmax(-1)})
    )
    delta = z.log_softmax(-1) - ref
    a = torch.sigmoid(beta * (delta[1] - delta[3]))
    G = beta * (1 - a) * (imitation_residual(z, 1) - imitation_residual(z, 3))
    torch.testing.assert_close(found.predicted[""], -1e-3 * sensitivity(z) @ G)
    with pytest.raises(InputError, match="lr=0"):
        sp.llm_learning_dynamics(lr=0.0).measure(Learning({"z": z}, loss, lambda q: {}))


# ------------------------------------------------------------------------------ language models


def test_log_probs_with_two_derivatives_are_the_policy_s_own():
    policy, pairs = LanguagePolicy(tiny(), temperature=0.7), open_language(rows(), None)
    parameters = dict(policy.model.named_parameters())
    for seq in probes(pairs).values():
        torch.testing.assert_close(
            _logps(policy, parameters, seq), policy.score(seq).logp, rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("form", [dpo(0.5), orpo(0.5), sft()])
def test_steps_on_a_language_model_move_answers_as_predicted(form):
    policy, reference = LanguagePolicy(tiny(0).double()), LanguagePolicy(tiny(1).double())
    pairs = open_language(rows(6), None)
    data = pairs if form.source.kind == "pairs" else open_language(
        [{k: r[k] for k in ("prompt", "completion")} for r in scored_rows(6)], None)  # fmt: skip
    found = sp.llm_learning_dynamics(lr=1e-3).measure(
        learning_of(policy, form, data, probes(pairs), reference)
    )
    assert found.correlation > 0.999 and found.error < 0.05
    assert 3.5 < found.shrinks < 4.5
    assert set(found.predicted) == {"chosen", "rejected", "other", "shuffled"}
    up = float(found.predicted["chosen"].sum())
    assert up > 0 and up > float(found.predicted["rejected"].sum())


def test_what_is_not_of_log_probs_alone_is_refused():
    policy, pairs = LanguagePolicy(tiny()), open_language(rows(), None)
    with pytest.raises(InputError, match="such as dpo"):
        learning_of(policy, sp.wpo(), pairs, probes(pairs))
    with pytest.raises(InputError, match="two pairs or more; this log holds 1"):
        probes(open_language(rows(1), None))
    assert online_dpo().source.kind == "rollouts"


def test_probes_are_answers_to_the_same_prompts():
    pairs = open_language(rows(5), None)
    found = probes(pairs, rows=4)
    for i in range(4):
        chosen, other, shuffled = (
            found[n].action[i][found[n].mask[i] > 0].tolist()
            for n in ("chosen", "other", "shuffled")
        )
        assert chosen == rows(5)[i]["chosen"] and other == rows(5)[(i + 1) % 4]["chosen"]
        assert sorted(shuffled) == sorted(chosen) and shuffled[-1] == chosen[-1]
        for seq in found.values():
            assert torch.equal(seq.prompt[i], found["chosen"].prompt[i])


# --------------------------------------------------------------------------------- the squeezing


def test_a_step_of_unlearning_follows_the_gradient():
    z = torch.tensor([0.3, -1.2, 0.8], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(z.log_softmax(-1)[1], z)
    path = unlearned(z, 1, lr=0.4, steps=2)
    torch.testing.assert_close(path[1], (z - 0.4 * slope).log_softmax(-1).detach())
    assert len(path) == 3 and path[0][1] > path[1][1] > path[2][1]


@pytest.mark.parametrize("seed", range(3))
def test_what_one_label_loses_goes_to_the_likeliest(seed):
    z = torch.randn(50, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    path = unlearned(z, int(z.argsort()[5])).exp()
    assert float(path[-1].max()) > 0.95 and int(path[-1].argmax()) == int(z.argmax())
    assert int((path[-1] > path[0]).sum()) <= 2


# --------------------------------------------------------------------------- both answers first


def test_imitation_of_both_is_supervised_training_on_both():
    both = extend().stages[0].do
    data = [{"prompt": r["prompt"], "completion": r[s]} for r in rows()
            for s in ("chosen", "rejected")]  # fmt: skip
    imitation = PolicyGradient(ones(), nll(), reduce=sequence_mean(), source=log(24))
    trainer = row_trainer(imitation, data, "sequences")
    trainer.stream.size = trainer.stream.together = 24
    assert_same(gradient(trainer), gradient(pair_trainer(both)))


def test_dpo_then_starts_from_the_policy_that_imitated():
    seen, watched = [], Watched(probes(open_language(rows(), None)), every=2)
    policy = LanguagePolicy(tiny())
    watched(0, {}, policy)

    def look(step, notes, now):
        seen.append(notes)
        watched(step, notes, now)

    form = extend(imitate=4, updates=4, batch=12, lr=3e-3, sft_lr=3e-3)
    train_language(form, rows(), model=policy, steps=8, callback=look)
    assert seen[4]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert seen[7]["loss"] < seen[4]["loss"]
    assert seen[3]["loss"] < seen[0]["loss"] and "margin" in seen[0]
    start, *_, imitated, _, end = watched.rows
    assert [r["step"] for r in watched.rows] == [0, 2, 4, 6, 8]
    assert imitated["chosen"] > start["chosen"] and imitated["rejected"] > start["rejected"]
    assert end["chosen"] - end["rejected"] > imitated["chosen"] - imitated["rejected"]
    assert all(r["gap"] == pytest.approx(r["greedy"] - r["chosen"]) for r in watched.rows)
    with pytest.raises(InputError, match="imitate=0"):
        extend(imitate=0)
