"""Policies that read the past: what is wanted, states and actions in order, the next action out.

The net is told what return it shall reach, or a code of how to behave; a backbone mixes the tokens
R_1, s_1, a_1, R_2, ... Decision Transformer: Reinforcement Learning via Sequence Modeling (2021).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from surpass.errors import InputError
from surpass.forms import Acted, Policy, Spaces
from surpass.parts import Nets, part
from surpass.policies.diffusion import continuous_only
from surpass.policies.mamba import MultiGrained

__all__ = [
    "CausalAttention", "CodedPolicy", "SelfAttention", "SequenceNet", "SequencePolicy",
    "sequence_net", "toward_code", "toward_return",
]  # fmt: skip


class SelfAttention(nn.Module):
    """A transformer block in which each place sees those that `hidden` leaves it."""

    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.reads, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.back = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(
        self, x: Float[Tensor, "B L w"], hidden: Bool[Tensor, "... L L"]
    ) -> Float[Tensor, "B L w"]:
        """`hidden` [L, L] or [B, L, L]: what (second) a place (first) does not see."""
        batch, length, width = x.shape
        qkv = self.reads(self.norms[0](x)).reshape(batch, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        score = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        hidden = hidden if hidden.dim() == 2 else hidden[:, None]
        mixed = torch.softmax(score.masked_fill(hidden, -torch.inf), -1) @ v
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.back(nn.functional.gelu(self.wide(self.norms[1](x))))


class CausalAttention(SelfAttention):
    """A transformer block in which each place sees itself and those before."""

    def forward(self, x: Float[Tensor, "B L w"]) -> Float[Tensor, "B L w"]:  # type: ignore[override]
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        return super().forward(x, later)


class SequenceNet(nn.Module):
    """From returns to go [B, T], obs [B, T, d], actions [B, T, k] and ages [B, T] to the action of
    each step [B, T, k] (from what stands before it), and the next obs and return to go after it.

    With `code` it reads a code [B, T, c] of each step where the return to go stood.
    """

    def __init__(
        self, spaces: Spaces, width: int, layers: int, block: Callable[[int], nn.Module],
        ages: int, context: int, code: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        d, k = spaces.obs_dim, spaces.action_dim
        self.obs_dim, self.size, self.ages, self.context = d, k, ages, context
        self.code = code
        self.reads = nn.ModuleList(nn.Linear(i, width) for i in (max(code, 1), d, k))
        self.age = nn.Parameter(0.02 * torch.randn(ages, width))
        self.first, self.last = nn.LayerNorm(width), nn.LayerNorm(width)
        self.blocks = nn.ModuleList(block(width) for _ in range(layers))
        self.action, self.next = nn.Linear(width, k), nn.Linear(width, d + 1)

    def forward(
        self, wanted: Float[Tensor, "B T *c"], obs: Float[Tensor, "B T d"],
        action: Float[Tensor, "B T k"], age: Int[Tensor, "B T"],
    ) -> tuple[Float[Tensor, "B T k"], Float[Tensor, "B T d+1"]]:  # fmt: skip
        given = (wanted if self.code else wanted[..., None], obs, action)
        when = self.age[age.clamp(max=self.ages - 1)]
        tokens = [read(x) + when for read, x in zip(self.reads, given, strict=True)]
        x = self.first(torch.stack(tokens, 2).flatten(1, 2))
        for block in self.blocks:
            x = block(x)
        x = self.last(x).reshape(*obs.shape[:2], 3, -1)
        return torch.tanh(self.action(x[:, :, 1])), self.next(x[:, :, 2])


@part
def sequence_net(
    spaces: Spaces, /, width: int = 128, layers: int = 3, backbone: str = "mamba",
    context: int = 20, ages: int = 1000, states: int = 16, code: int = 0,
) -> nn.Module:  # fmt: skip
    """A sequence policy's net; `backbone` is "mamba" (multi-grained, `states` per channel) or
    "attention". With `code` it is told a code of that length instead of a return.

    Raises:
        InputError: when actions are discrete, or there is no such backbone.
    """
    continuous_only(spaces, "a sequence policy")
    known: dict[str, Callable[[int], nn.Module]] = {
        "mamba": lambda w: MultiGrained(w, states),
        "attention": CausalAttention,
    }
    if backbone not in known:
        raise InputError(f"no backbone {backbone!r}; there are {', '.join(known)}")
    return SequenceNet(spaces, width, layers, known[backbone], ages, context, code)


class SequencePolicy:
    """Acts on its last `context` steps, toward a target return that falls by what it was paid:
    `policy.given(target=-10.0)`."""

    def __init__(self, net: SequenceNet, target: float, scale: float) -> None:
        self.net, self.target, self.scale = net, target, scale

    def given(self, **condition: Any) -> Policy:
        """The same policy for another `target` return."""
        return SequencePolicy(self.net, float(condition.get("target", self.target)), self.scale)

    def _fresh(self, obs: Tensor) -> dict[str, Tensor]:
        n, k = len(obs), self.net.context
        return {
            "obs": obs.new_zeros(n, k, self.net.obs_dim), "to_go": obs.new_zeros(n, k),
            "action": obs.new_zeros(n, k, self.net.size),
            "age": torch.zeros(n, k, dtype=torch.long, device=obs.device),
            "count": torch.zeros(n, dtype=torch.long, device=obs.device),
            "steps": torch.zeros(n, dtype=torch.long, device=obs.device),
            "left": obs.new_full((n,), self.target),
        }  # fmt: skip

    def act(self, obs: Float[Tensor, "n d"], memory: Any = None) -> Acted:
        """The action after what the memory holds."""
        memory = self._fresh(obs) if memory is None else dict(memory)
        full = memory["count"] >= self.net.context
        for name in ("obs", "to_go", "action", "age"):  # the oldest step makes room
            value = memory[name]
            moved = torch.cat([value[:, 1:], torch.zeros_like(value[:, :1])], 1)
            shape = (-1, *(1,) * (value.dim() - 1))
            memory[name] = torch.where(full.reshape(shape), moved, value)
        place = torch.where(full, self.net.context - 1, memory["count"])
        here = torch.arange(len(obs), device=obs.device), place
        written = {"obs": obs, "to_go": memory["left"] / self.scale, "age": memory["steps"]}
        for name, value in written.items():
            memory[name] = memory[name].index_put(here, value)
        past = (memory[n] for n in ("obs", "action", "age"))
        action = self.net(self._wanted(memory), *past)[0][here]
        memory["action"] = memory["action"].index_put(here, action)
        memory["count"], memory["steps"] = place + 1, memory["steps"] + 1
        return Acted(action, None, memory)

    def _wanted(self, memory: dict[str, Tensor]) -> Tensor:
        return memory["to_go"]

    def remember(self, memory: Any, reward: Tensor, done: Tensor) -> Any:
        """What is left of the target; a new episode begins with all of it."""
        memory = dict(memory)
        left = memory["left"] - reward.to(memory["left"].dtype)
        memory["left"] = torch.where(done, self.target, left)
        for name in ("count", "steps"):
            memory[name] = torch.where(done, 0, memory[name])
        return memory


@part
def toward_return(
    nets: Nets, roles: Any, /, target: float = 0.0, scale: float = 1.0, pi: str = "pi"
) -> Policy:
    """The policy toward a target return; the net reads returns over `scale`."""
    return SequencePolicy(nets[pi], target, scale)


class CodedPolicy(SequencePolicy):
    """Acts on its last `context` steps as a code [c] says: `policy.given(code=z)`."""

    def __init__(self, net: SequenceNet, code: Float[Tensor, "c"]) -> None:
        super().__init__(net, 0.0, 1.0)
        self.code = code

    def given(self, **condition: Any) -> Policy:
        """The same policy with another `code`."""
        return CodedPolicy(self.net, condition.get("code", self.code))

    def _wanted(self, memory: dict[str, Tensor]) -> Tensor:
        return self.code.expand(*memory["to_go"].shape, -1)


@part
def toward_code(nets: Nets, roles: Any, /, code: str = "best", pi: str = "pi") -> Policy:
    """The policy under the code that a net without inputs holds."""
    return CodedPolicy(nets[pi], nets[code]())
