"""Watching a policy: in a window, or as video files. Needs the extra `video`."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import gymnasium as gym
from gymnasium.vector import VectorEnv

from baselines_lite.common.errors import UserError


def has_display() -> bool:
    """Whether a window can be opened here."""
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def need_extra() -> None:
    """Raises UserError where the packages that write videos are missing."""
    if importlib.util.find_spec("moviepy") is None:
        raise UserError("writing a video needs moviepy: pip install 'baselines-lite[video]'")


def record(venv: VectorEnv, folder: Path, every: int, length: int) -> VectorEnv:
    """The vector environment, recording `length` of its steps every `every` steps into `folder`."""
    need_extra()
    from gymnasium.wrappers.vector import RecordVideo

    return RecordVideo(venv, str(folder), step_trigger=lambda step: step % every == 0, video_length=length)


def record_episodes(env: gym.Env, folder: str) -> gym.Env:
    """The environment, recording every episode into a file of its own below `folder`."""
    return gym.wrappers.RecordVideo(env, folder, episode_trigger=lambda episode: True, disable_logger=True)
