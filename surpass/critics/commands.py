"""Critics over language actions: what a command is worth, and what a context is worth."""

from __future__ import annotations

from torch import nn

from surpass.critics.ensembles import Critic, Value
from surpass.forms import Spaces
from surpass.parts import part
from surpass.policies.commands import CommandScores, Context, TextLayout

__all__ = ["command_critic", "text_value"]

_NO_RANGE = (-1.0, 1.0)


@part
def command_critic(
    spaces: Spaces, /, n: int = 2, width: int = 64, hidden: tuple[int, ...] = (64,)
) -> nn.Module:
    """n values of every command on offer: V-like in the context, plus the product of the encodings
    of context and command.

    Raises:
        InputError: when the observations are not of a text environment.
    """
    layout = TextLayout.of(spaces)
    critic = Critic(layout.spaces(), n, (1,), False, "scalar", 1, _NO_RANGE)
    critic.net = CommandScores(layout, n, width, tuple(hidden), True)  # type: ignore[assignment]
    return critic


@part
def text_value(
    spaces: Spaces, /, n: int = 1, width: int = 64, hidden: tuple[int, ...] = (64,)
) -> nn.Module:
    """n values of a context in words.

    Raises:
        InputError: when the observations are not of a text environment.
    """
    layout = TextLayout.of(spaces)
    value = Value(1, n, (1,), False, "scalar", 1, _NO_RANGE)
    value.net = Context(layout, n, width, tuple(hidden), 1)  # type: ignore[assignment]
    return value
