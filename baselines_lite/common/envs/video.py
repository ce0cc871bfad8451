"""Watching a policy: in a window, or as video files. Needs the extra `video`."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
from gymnasium.vector import VectorEnv

from baselines_lite.common.system.errors import UserError


def has_display() -> bool:
    """Whether a window can be opened here."""
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def prepare() -> None:
    """Makes drawing without a window possible. Raises UserError where the packages that write videos are missing.

    Call before the environment is made: MuJoCo reads MUJOCO_GL when it is imported.
    """
    if importlib.util.find_spec("moviepy") is None:
        raise UserError("writing a video needs moviepy: pip install 'baselines-lite[video]'")
    if not has_display():
        os.environ.setdefault("MUJOCO_GL", "egl")
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        os.environ.setdefault("SDL_AUDIODRIVER", "dummy")  # which pygame.init() of Gymnasium before 1.4 looks for


@contextlib.contextmanager
def drawing(env_name: str) -> Iterator[None]:
    """Turns a failure to draw the first frame into a UserError that says what to install."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(f"{env_name} cannot be drawn here ({type(error).__name__}: {reason}); without a display MuJoCo "
                        "needs EGL or OSMesa (Debian: libegl1 or libosmesa6) and MUJOCO_GL set to egl or osmesa"
                        ) from None


def record(venv: VectorEnv, env_name: str, folder: Path, every: int, length: int) -> VectorEnv:
    """The vector environment, recording `length` of its steps every `every` steps into `folder`.

    It was made to be drawn; raises UserError where that fails here.
    """
    from gymnasium.wrappers.vector import RecordVideo

    with warnings.catch_warnings(action="ignore"):  # that the folder exists: names never collide within a run
        recorder = RecordVideo(venv, str(folder), step_trigger=lambda step: step % every == 0, video_length=length)
    with drawing(env_name):
        recorder.reset()
        recorder.render()
    return recorder


def record_episodes(env: gym.Env, folder: str, episodes: int) -> gym.Env:
    """The environment, recording its first episodes into a file each below `folder`."""
    with warnings.catch_warnings(action="ignore"):
        return gym.wrappers.RecordVideo(env, folder, episode_trigger=lambda episode: episode < episodes,
                                        disable_logger=True)
