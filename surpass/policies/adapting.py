"""A policy that finds out, by acting, which task it is in: what it tries, keeps and concludes.

Its memory holds, for each copy of the environment, the episodes so far; `remember` is told the
reward and the end of every step. Offline Meta Reinforcement Learning with In-Distribution Online
Adaptation (2023).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.forms import Acted, Policy
from surpass.parts import Nets, part

__all__ = ["Adapting", "adapting"]

Memory = dict[str, Tensor]


class Adapting:
    """Episodes 1 .. `reference` try codes of the prior; the next ones the code of the context, the
    mean over the transitions of the episodes that it kept; the last and all later ones the code of
    the best episode.

    Args:
        keep: "familiar" (the episodes of least uncertainty) or "all" (whatever it did itself).
        uncertainty: of an episode: "return" (its negative), "error" (of the reward models), or
            "variance" (between them).
    """

    def __init__(
        self, nets: Any, budget: int, reference: int, keep: str, uncertainty: str,
        candidates: int = 10, spread: float = 0.1,
    ) -> None:  # fmt: skip
        self.nets, self.budget, self.reference = nets, budget, reference
        self.keep, self.uncertainty = keep, uncertainty
        self.candidates, self.spread = candidates, spread

    def given(self, **condition: Any) -> Policy:
        """The same policy with other settings (`keep`, `uncertainty`, `budget`), or one that knows
        its `code`."""
        if "code" in condition:
            return _Knowing(self.nets, torch.as_tensor(condition["code"]))
        names = ("budget", "reference", "keep", "uncertainty", "candidates", "spread")
        return Adapting(self.nets, **{**{n: getattr(self, n) for n in names}, **condition})

    # ------------------------------------------------------------------------------------------

    def _fresh(self, obs: Tensor) -> Memory:
        n, d = len(obs), self.nets["codes"]().shape[1]
        zeros = obs.new_zeros
        memory = {
            "sums": zeros(n, self.budget, d), "counts": zeros(n, self.budget),
            "doubt": obs.new_full((n, self.budget), torch.inf),
            "tried": obs.new_full((n, self.budget, d), torch.inf),
            "episode": torch.zeros(n, dtype=torch.long, device=obs.device),
            "running": zeros(n), "sum": zeros(n, d), "count": zeros(n),
        }  # fmt: skip
        memory["code"] = self._novel(memory, self._prior(n))
        return memory

    def act(self, obs: Tensor, memory: Any = None) -> Acted:
        """Act on the code that is being tried."""
        memory = dict(memory) if memory is not None else self._fresh(obs)
        seen = torch.cat([obs, memory["code"]], -1)
        action = self.nets["pi"](seen)
        memory |= {"obs": obs, "action": action}
        return Acted(action, None, memory)

    @torch.no_grad()
    def remember(self, memory: Memory, reward: Tensor, done: Tensor) -> Memory:
        """Note what the step paid; where the episode ended, conclude and choose the next code."""
        memory = dict(memory)
        obs, action, reward = memory["obs"], memory["action"], reward.to(memory["obs"].dtype)
        memory["sum"] = memory["sum"] + self.nets["encoder"](obs, action, reward)
        memory["count"] = memory["count"] + 1
        memory["running"] = memory["running"] + self._doubt(memory, reward)
        if bool(done.any()):
            self._conclude(memory, done)
        return memory

    def _doubt(self, memory: Memory, reward: Tensor) -> Float[Tensor, "n"]:
        if self.uncertainty == "return":
            return -reward
        seen = torch.cat([memory["obs"], memory["code"]], -1)
        guess = self.nets["rewards"](seen, memory["action"])
        if self.uncertainty == "variance":
            return guess.std(0)
        return (guess - reward).square().mean(0)

    def _conclude(self, memory: Memory, done: Tensor) -> None:
        at = memory["episode"].clamp(max=self.budget - 1)
        here = torch.nn.functional.one_hot(at, self.budget).bool() & done[:, None]
        here = here & (memory["episode"] < self.budget)[:, None]
        for total, one in (("sums", "sum"), ("counts", "count"), ("doubt", "running"),
                           ("tried", "code")):  # fmt: skip
            value = memory[one][:, None]
            mask = here if value.dim() == 2 else here[..., None]
            memory[total] = torch.where(mask, value, memory[total])
        memory["episode"] = memory["episode"] + done.long()
        for name in ("sum", "count", "running"):
            keep = ~done if memory[name].dim() == 1 else ~done[:, None]
            memory[name] = memory[name] * keep
        memory["code"] = torch.where(done[:, None], self._next(memory), memory["code"])

    def _next(self, memory: Memory) -> Float[Tensor, "n d"]:
        """The code of the next episode."""
        n, episode = len(memory["episode"]), memory["episode"][:, None]
        doubt = memory["doubt"]
        finite = torch.isfinite(doubt)
        kept = finite if self.keep == "all" else finite & (doubt <= doubt.amin(1, keepdim=True))
        weight = kept.float()
        mean = (weight[..., None] * memory["sums"]).sum(1)
        mean = mean / (weight * memory["counts"]).sum(1, keepdim=True).clamp(min=1.0)
        around = mean + self.spread * torch.randn(self.candidates, *mean.shape, device=mean.device)
        context = mean if self.spread == 0 else self._novel(memory, around)
        best = memory["tried"].gather(
            1, doubt.argmin(1)[:, None, None].expand(-1, 1, mean.shape[1])
        )[:, 0]
        final = mean if self.keep == "all" else best
        trial = torch.where(episode < self.reference, self._novel(memory, self._prior(n)), context)
        return torch.where(episode < self.budget - 1, trial, final)

    def _prior(self, n: int) -> Float[Tensor, "m n d"]:
        codes = self.nets["codes"]()
        return codes[torch.randint(len(codes), (self.candidates, n))]

    def _novel(self, memory: Memory, proposed: Float[Tensor, "m n d"]) -> Float[Tensor, "n d"]:
        """Of several codes the one farthest from all that were tried."""
        distance = (proposed[:, :, None] - memory["tried"]).norm(dim=-1).amin(-1)  # [m, n]
        distance = torch.nan_to_num(distance, posinf=0.0, nan=0.0)
        best = distance.argmax(0)
        return proposed.gather(0, best[None, :, None].expand(1, *proposed.shape[1:]))[0]


class _Knowing:
    """The policy that is told its task's code."""

    def __init__(self, nets: Any, code: Tensor) -> None:
        self.nets, self.code = nets, code

    def act(self, obs: Tensor, memory: Any = None) -> Acted:
        seen = torch.cat([obs, self.code.expand(len(obs), -1)], -1)
        return Acted(self.nets["pi"](seen), None, memory)

    def given(self, **condition: Any) -> Policy:
        return _Knowing(self.nets, torch.as_tensor(condition["code"]))


@part
def adapting(
    nets: Nets, roles: Any, /, budget: int = 20, reference: int = 8, keep: str = "familiar",
    uncertainty: str = "return",
) -> Policy:  # fmt: skip
    """A policy that adapts within `budget` episodes; in `roll_out` each copy adapts by itself."""
    return Adapting(nets, budget, reference, keep, uncertainty)
