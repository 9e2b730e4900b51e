"""Values of listed candidates: the dueling sum by hand, absent candidates, and swaps."""

import pytest
import torch

from surpass.critics.candidates import ABSENT, per_candidate, per_place
from surpass.errors import InputError
from surpass.forms import Spaces

K, D = 5, 3
NETS = {"place": per_place(2, (16, 8), 4), "candidate": per_candidate(2, (16, 8), 4)}


def net(kind, k=K):
    torch.manual_seed(0)
    return NETS[kind](Spaces(obs_dim=k * D, n_actions=k))


def listed(absent=()):
    torch.manual_seed(1)
    x = torch.randn(4, K, D)
    x[:, list(absent)] = float("nan")
    return x


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("absent", [(), (3, 4)])
def test_the_mean_over_those_that_are_there_is_the_value(kind, absent):
    q, x = net(kind), listed(absent)
    here = ~x[..., 0].isnan()
    seen = x.nan_to_num()
    value, extra = q.streams(seen, here, None)
    values = q.all(x.flatten(1))
    assert values.shape == (2, 4, K)
    assert (values[:, :, list(absent)] == ABSENT).all()
    present = values[:, here[0].expand(4, K)].reshape(2, 4, -1)
    torch.testing.assert_close(present.mean(-1), value[..., 0])
    torch.testing.assert_close(
        present[..., 1] - present[..., 0], extra[..., 1] - extra[..., 0], atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(q(x.flatten(1), torch.tensor([0, 1, 2, 0]))[:, 2], values[:, 2, 2])


@pytest.mark.parametrize("kind", NETS)
def test_features_are_clipped_and_gradients_are_numbers(kind):
    q, x = net(kind), listed((4,))
    far = torch.where(x > 0.5, torch.full_like(x, 5.0), x)
    further = torch.where(x > 0.5, torch.full_like(x, 50.0), x)
    assert torch.equal(q.all(far.flatten(1)), q.all(further.flatten(1)))
    q.all(x.flatten(1))[..., :4].sum().backward()
    assert all(p.grad.isfinite().all() for p in q.parameters() if p.grad is not None)


def test_swapping_candidates_swaps_their_values_and_absent_ones_change_nothing():
    q, x, order = net("candidate"), listed(), [3, 0, 4, 2, 1]
    torch.testing.assert_close(q.all(x[:, order].flatten(1)), q.all(x.flatten(1))[..., order])
    fewer = net("candidate", 3)
    fewer.load_state_dict(q.state_dict())
    torch.testing.assert_close(
        q.all(listed((1, 3)).flatten(1))[..., [0, 2, 4]], fewer.all(x[:, [0, 2, 4]].flatten(1))
    )
    placed = net("place")
    assert not torch.allclose(
        placed.all(x[:, order].flatten(1)), placed.all(x.flatten(1))[..., order]
    )


def test_observations_that_list_nothing():
    with pytest.raises(InputError, match="7 numbers do not divide into 3"):
        per_place()(Spaces(obs_dim=7, n_actions=3))
    with pytest.raises(InputError, match="continuous"):
        per_candidate()(Spaces(obs_dim=6, action_dim=2))
