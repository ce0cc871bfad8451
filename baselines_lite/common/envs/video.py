"""Watching a policy: in a window, or as video files. Needs the extra `video`."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

from baselines_lite.common.system.errors import UserError

GIF_WIDTH, GIF_FPS = 320, 25  # at most: a GIF is for a page, and takes five times an MP4's bytes


def has_display() -> bool:
    """Whether a window can be opened here."""
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def prepare() -> None:
    """Makes drawing without a window possible. Raises UserError where the packages that write videos are missing.

    Call before the environment is made: MuJoCo reads MUJOCO_GL when it is imported.
    """
    for package in ("moviepy", "imageio_ffmpeg"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"writing a video needs {package}: pip install 'baselines-lite[video]'")
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


class Film(gym.Wrapper):
    """An environment whose first `episodes` episodes are written to one .mp4 or .gif file, one after the other.

    Frame by frame: in memory there is one. The file is whole once the last of the episodes has ended.
    """

    def __init__(self, env: gym.Env, path: str, episodes: int) -> None:
        super().__init__(env)
        self._path, self._left, self._file = path, episodes, None

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """As Gymnasium's."""
        result = super().reset(**options)
        self._shoot()
        return result

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """As Gymnasium's."""
        result = super().step(action)
        self._shoot()
        if self._left and (result[2] or result[3]):
            self._left -= 1
            if not self._left:
                self._file.close()
        return result

    def _shoot(self) -> None:
        if self._left:
            frame = np.ascontiguousarray(self.env.render(), np.uint8)
            if self._file is None:
                height, width, _ = frame.shape
                self._file = writer(self._path, (width, height), self.metadata.get("render_fps", 30))
            self._file.send(frame)

    def close(self) -> None:
        """As Gymnasium's; ends the file."""
        if self._file is not None:
            self._file.close()
        super().close()


def writer(path: str, size: tuple[int, int], fps: float) -> Any:
    """What a video of that width and height is sent to, frame by frame [height, width, 3] uint8, until it is closed."""
    from imageio_ffmpeg import write_frames

    if path.lower().endswith(".gif"):  # a palette for each frame: one for all would need all of them at once
        filters = (f"fps={min(fps, GIF_FPS)},scale='min({GIF_WIDTH},iw)':-1:flags=area,split[a][b];"
                   "[a]palettegen=stats_mode=single:max_colors=64[p];[b][p]paletteuse=new=1:dither=none")
        kind = dict(codec="gif", pix_fmt_out="pal8", macro_block_size=1, output_params=["-vf", filters])
    else:
        kind = dict(codec="libx264", macro_block_size=2)  # which takes sides of even length
    file = write_frames(path, size, fps=fps, ffmpeg_log_level="error", **kind)
    file.send(None)
    return file
