"""An episode of a policy as a film: an animated GIF, or MP4 where ffmpeg is at hand."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from surpass.errors import InputError, MissingExtra, atomic
from surpass.evaluation.played import acting

__all__ = ["film"]

RATE, WIDE = 25, 320
_DRAWN = {
    "pendulum": "Pendulum-v1", "cart-pole": "CartPole-v1", "acrobot": "Acrobot-v1",
    "mountain-car": "MountainCarContinuous-v0",
}  # fmt: skip


@torch.no_grad()
def film(
    policy: Any, env: str, path: str | Path, *, seed: int = 0, steps: int = 1_000,
    name: str = "the policy",
) -> int:  # fmt: skip
    """Film one episode, or its first `steps` steps, at 25 frames a second; gives the frames.

    Args:
        policy: as `play` takes it. env: a Gymnasium id, or a task that one of them draws.
        path: ends in .gif or .mp4.

    Raises:
        InputError: when the file's ending is another one, or nothing draws the environment.
        MissingExtra: when what draws it, or writes the film, is not installed.
    """
    path = Path(path)
    if path.suffix not in (".gif", ".mp4"):
        raise InputError(f"{path}: a film ends in .gif or .mp4")
    opened = _opened(env, seed)
    try:
        act = acting(policy, opened.spaces, name, env)
        frames = _frames(opened, getattr(act, "policy", act), seed, steps)
    finally:
        opened.close()
    with atomic(path) as temporary:
        _write(frames, temporary, path.suffix)
    return len(frames)


def _opened(env: str, seed: int) -> Any:
    """One copy that draws itself."""
    from surpass.tasks.catalog import GymTask
    from surpass.tasks.catalog import task as open_task

    task = open_task(_DRAWN.get(env, env))
    if not isinstance(task, GymTask):
        raise InputError(f"nothing draws {env}; --video takes a Gymnasium id such as Hopper-v5")
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        opened: Any = GymTask(task.name, {"render_mode": "rgb_array"}).make(1, seed)
        opened.envs[0].render()
    except Exception as error:  # renderers fail in ways of their own
        line = " ".join(str(error).split())[:160]
        raise MissingExtra(
            f"{env} cannot be drawn here ({line}); MuJoCo's renderer comes with pip install "
            "'surpass[control]', that of classic control with 'gymnasium[classic-control]'"
        ) from error
    return opened


def _frames(env: Any, act: Any, seed: int, steps: int) -> list[np.ndarray]:
    per_second = float(env.envs[0].metadata.get("render_fps", 50))
    every = max(round(per_second / RATE), 1)
    frames = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        obs = env.reset(seed)
        for step in range(steps):
            if step % every == 0:
                frames.append(_small(np.asarray(env.envs[0].render())))
            chosen = act.act(obs).action if hasattr(act, "act") else act(obs)
            after = env.step(chosen)
            if bool(after.terminated[0] | after.truncated[0]):
                break
            obs = after.obs
    return frames


def _small(frame: np.ndarray) -> np.ndarray:
    by = -(-frame.shape[1] // WIDE)
    return frame[::by, ::by]


def _write(frames: list[np.ndarray], path: Path, kind: str) -> None:
    if kind == ".gif":
        from PIL import Image

        first, *rest = (Image.fromarray(f).quantize(64) for f in frames)
        first.save(
            path, format="GIF", save_all=True, append_images=rest, duration=1000 // RATE, loop=0
        )
        return
    try:
        from imageio import v3

        v3.imwrite(path, np.stack(frames), extension=".mp4", fps=RATE, plugin="FFMPEG")
    except ImportError as error:
        raise MissingExtra(
            "an MP4 needs ffmpeg: pip install imageio-ffmpeg; a name that ends in .gif does not"
        ) from error
