"""What the experiments on POINT measure, against closed forms."""

import torch

from surpass.evidence.offline.point import discounted, score
from surpass.tasks.point import CONTROLLERS


def test_standing_still_pays_the_distance_discounted():
    obs = torch.tensor([[0.6, 0.8, 0.0, 0.0], [0.3, 0.0, 0.0, 0.0]])
    found = discounted(lambda x: torch.zeros(len(x), 2), obs, 0.9, steps=50)
    wanted = -torch.tensor([1.0, 0.3]) * (1 - 0.9**50) / (1 - 0.9)
    assert torch.allclose(found, wanted, atol=1e-4)


def test_the_expert_scores_about_a_hundred_and_standing_still_as_the_catalogue_says():
    expert = CONTROLLERS["expert"]
    assert abs(score(lambda obs: expert.mean(obs, torch.zeros(len(obs), 2))) - 100.0) < 2.0
    assert abs(score(lambda obs: torch.zeros(len(obs), 2)) - 37.0) < 6.0
