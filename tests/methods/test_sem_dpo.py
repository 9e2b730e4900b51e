"""Sem-DPO by hand, against its optimum in closed form, and its column from file to gradient."""

import pytest
import torch

transformers = pytest.importorskip("transformers")

from surpass.critics.meaning import distances, latent_semantics, with_distance  # noqa: E402
from surpass.data.language import open_language  # noqa: E402
from surpass.errors import InputError  # noqa: E402
from surpass.methods.preference.pairs import dpo  # noqa: E402
from surpass.methods.preference.weighted import sem_dpo  # noqa: E402
from surpass.objectives.meaning import drift_bound, pull, pull_bound  # noqa: E402
from surpass.objectives.views import Side, Sides, Steps  # noqa: E402
from surpass.parts import run  # noqa: E402
from surpass.tasks.rewriting import rewriting  # noqa: E402
from tests.methods.language_cases import (  # noqa: E402
    assert_same,
    gradient,
    pair_trainer,
    row_trainer,
    rows,
)


def far_rows(distance):
    return [{**r, "distance": d} for r, d in zip(rows(), distance, strict=True)]


def ours(distance, **options):
    return gradient(row_trainer(sem_dpo(0.3, batch=12, **options), far_rows(distance), "pairs"))


def test_without_alpha_or_where_all_are_alike_it_is_dpo():
    want = gradient(pair_trainer(dpo(0.3)))
    assert_same(want, ours([0.1 * i for i in range(12)], alpha=0.0))
    assert_same(want, ours([0.5] * 12), factor=float(torch.tensor(-1.0).exp()))
    assert_same(want, ours([0.5] * 12, normalize=True))


def test_pairs_count_by_the_distance_of_their_winner():
    """Each pair alone is DPO on it; together they are the weighted mean."""
    distance = [0.15 * i for i in range(12)]
    alone = [gradient(row_trainer(dpo(0.3), rows()[i : i + 1], "pairs")) for i in range(12)]
    weight = (-2 * torch.tensor(distance)).exp()
    want = {n: sum(w * g[n] for w, g in zip(weight, alone, strict=True)) / 12 for n in alone[0]}
    assert_same(want, ours(distance), atol=5e-6)
    scaled = {n: g * 12 / float(weight.sum()) for n, g in want.items()}
    assert_same(scaled, ours(distance, normalize=True), atol=5e-6)


@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_the_optimum_is_that_of_a_penalized_reward(alpha):
    """All ordered pairs of 6 answers, each as often as it is preferred: the gradient of the
    expected loss vanishes at ref exp((r - alpha d) / beta), and not at the optimum of DPO."""
    g = torch.Generator().manual_seed(0)
    reward, distance, ref = (torch.rand(6, generator=g, dtype=torch.float64) for _ in range(3))
    ref, beta = (3 * ref).log_softmax(-1), 0.4
    won, lost = torch.cartesian_prod(torch.arange(6), torch.arange(6)).T
    often = (reward[won] - reward[lost]).sigmoid() * (won != lost)

    def slope(penalty):
        logits = (ref + (reward - penalty * distance) / beta).requires_grad_()
        logp = logits.log_softmax(-1)

        def side(at):
            one = torch.ones(36, dtype=torch.float64)
            steps = Steps(logp[at][:, None], one[:, None], extras={"distance": distance[at]})
            return Side((logp - ref)[at], one, steps)

        loss = run(sem_dpo(beta, alpha).loss, (Sides(side(won), side(lost)),))[0]
        return torch.autograd.grad((often * loss).sum(), logits)[0].abs().max()

    assert slope(alpha) < 1e-12
    assert slope(alpha + 0.5) > 1e-3


def test_drift_and_pull_stay_below_their_bounds():
    g = torch.Generator().manual_seed(0)
    for size in (0.1, 1.0, 10.0):
        logits = torch.randn(2, 200, 5, generator=g, dtype=torch.float64) * size
        policy, reference = logits.log_softmax(-1)
        distance = 2 * torch.rand(200, 5, generator=g, dtype=torch.float64)
        drift, before = ((x.exp() * distance).sum(-1) for x in (policy, reference))
        kl = (policy.exp() * (policy - reference)).sum(-1)
        for row in range(200):
            assert drift[row] <= drift_bound(float(before[row]), float(kl[row]))
    assert drift_bound(0.3, 0.02) == pytest.approx(0.5)
    d = torch.tensor([0.0, 0.5, 1.0, 1.0])
    assert pull(d, 2.0, 1.0) == pytest.approx(2 * 0.1353353) == 2 * pull(d[:3], 2.0, 1.0)
    assert pull(d, 2.0, 0.5) <= pull_bound(4, 2.0, 0.5) == pytest.approx(4 * 0.3678794)


def test_distances_of_texts():
    embed = latent_semantics(["red cat", "black cat", "red dog", "fast car", "new car", "fast bus"])
    same, near, far, none = distances(
        ["red cat"] * 4, ["cat red", "black cat", "fast car", "zebra"], embed
    ).tolist()
    assert same == pytest.approx(0.0, abs=1e-9) and same < near < far
    assert far == pytest.approx(1.0, abs=0.05) and none == 1.0


def test_a_column_from_rows_to_the_loss():
    data = [{"prompt": "red cat", "chosen": "red cat shining", "rejected": "cat"},
            {"prompt": "fast car", "chosen": "slow boat", "rejected": "car"},
            {"prompt": "fast cat", "chosen": "fast car", "rejected": "cat"}]  # fmt: skip
    made = with_distance(data)
    first, second, third = (row["distance"] for row in made)
    assert first == pytest.approx(0.0, abs=1e-9) and second == 1.0 and 0.0 < third < 1.0
    flat = with_distance(data, embed=lambda texts: [[1.0, len(t)] for t in texts])
    assert flat[0]["distance"] == pytest.approx(1 - 106 / (50 * 226) ** 0.5, abs=1e-9)
    with pytest.raises(InputError, match="row 2: chosen is no text"):
        with_distance([data[0], {**data[1], "chosen": ["slow"]}])
    with pytest.raises(InputError, match=r"row 1: distance is 2\.5, but 1 less a cosine"):
        open_language(far_rows([2.5] * 12), None)
    with pytest.raises(InputError, match=r"a column distance.*with_distance"):
        pair_trainer(sem_dpo()).update()
    with pytest.raises(InputError, match="alpha=-1"):
        sem_dpo(alpha=-1)


def test_rewrites_lose_content_where_they_gain_style():
    made = rewriting(200, seed=3)
    both = torch.stack([made.style.flatten(), made.kept.flatten()])
    assert -0.5 < float(torch.corrcoef(both)[0, 1]) < -0.3
    for i in range(20):
        words = set(made.prompts[i].split())
        for j in range(40):
            text = made.rewrites[i][j].split()
            assert len(words & set(text)) == 4 * made.kept[i, j]
            assert sum(not w.startswith("topic") for w in text) == made.style[i, j]
    sure = torch.full((200, 40), -50.0).scatter(1, torch.full((200, 1), 7), 0.0)
    assert made.truth(sure).worth == pytest.approx(float((made.kept * made.style)[:, 7].mean()))
    with pytest.raises(InputError, match="drift"):
        rewriting(drift=0.5)
