"""Atari games on ale-py's native vector environment, with DeepMind's preprocessing (Mnih et al. 2015).

`AtariGames` is what policies train in: the emulators and the preprocessing run in C++ threads. `AtariGame` is one game
as a gymnasium.Env, for playing and watching. Both see the same screens, rewards and ends: the second is built on the
first.

Deliberate differences from OpenAI Baselines' wrappers, which the native environment does not offer: FIRE is pressed at
the start of a game only, not after each lost life (a policy that always forgets it stalls until the frame cap); it is
pressed before the no-ops and counts as one of them; the no-ops are 0 to 30, not 1 to 30; a game is cut off after
108,000 frames (30 minutes), where the old gym allowed 400,000; the last observation before the cut, or before the end
of a game, shows the frame before the very last.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode

from baselines_lite.common.envs.atari_options import AtariOptions
from baselines_lite.common.envs.episode_stats import WHOLE_EPISODE_OVER
from baselines_lite.common.system.errors import UserError

SCREEN = (210, 160)  # rows and columns of the console's own picture
SIZE = 84  # of the picture that the policy sees


def settle(spec: gym.envs.registration.EnvSpec, options: AtariOptions) -> AtariOptions:
    """The options with every None but env_threads replaced by what the id says.

    Raises UserError for ids that the native emulator cannot play.
    """
    if not isinstance(spec.kwargs["frameskip"], int):
        base = spec.id.partition("-")[0]
        raise UserError(f"{spec.id} skips a random number of frames, which the native emulator cannot; use "
                        f"{base}NoFrameskip-v4 or ALE/{base}-v5")
    of_id = dict(sticky=spec.kwargs["repeat_action_probability"], full_action_space=spec.kwargs["full_action_space"])
    return dataclasses.replace(options, **{k: v for k, v in of_id.items() if getattr(options, k) is None})


def describe(options: AtariOptions) -> str:
    """Settled options in one line, for the start of a run."""
    return (f"Atari: {SIZE}x{SIZE} grey, stack {options.frame_stack}; {options.frame_skip} frames a step, maximum of "
            f"the last two; sticky actions {options.sticky:g}; "
            f"{'all 18' if options.full_action_space else 'minimal'} actions; up to {options.noop_max} no-ops"
            f"{', FIRE first' if options.fire_reset else ''}; cap {options.frame_cap:,} frames; a lost life "
            f"{'ends the training episode' if options.life_loss else 'ends nothing'}; rewards "
            f"{'clipped to their sign for training' if options.clip_rewards else 'unclipped'}")


def to_watch(info: Mapping[str, Any], env_id: str) -> AtariOptions:
    """The options for playing whole games of `env_id` with a policy whose `info` is given: as it was trained.

    In another game than its own, stickiness and action set are that id's.
    """
    options = AtariOptions(**(info.get("atari") or {}))
    if info.get("env") != env_id:
        options = dataclasses.replace(options, sticky=None, full_action_space=None)
    return dataclasses.replace(options, life_loss=False, env_threads=None)


class AtariGames(AtariVectorEnv):
    """`num_env` games of one id in SAME_STEP mode; observations [N, stack, 84, 84] uint8, raw rewards.

    `terminated` also marks a lost life if `options.life_loss` says so, without resetting the game. Every step's infos
    have WHOLE_EPISODE_OVER [N]: the game itself ended, by its rules or the frame cap. `threads` is the number of
    emulator threads. With render_mode "rgb_array", `render()` returns each game's picture [210, 160, 3]: from a second
    set of emulators that plays along, since the first set's pictures cannot be had.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012  (Gymnasium's interface)

    def __init__(self, spec: gym.envs.registration.EnvSpec, num_env: int, options: AtariOptions, threads: int = 1,
                 render_mode: str | None = None) -> None:
        self.options = settle(spec, options)
        common = dict(
            game=spec.kwargs["game"], num_envs=num_env, num_threads=min(self.options.env_threads or threads, num_env),
            max_num_frames_per_episode=self.options.frame_cap, repeat_action_probability=self.options.sticky,
            full_action_space=self.options.full_action_space, frameskip=self.options.frame_skip,
            # The native limit is exclusive. episodic_life would reset the whole game at a lost life.
            noop_max=self.options.noop_max + 1, use_fire_reset=self.options.fire_reset, episodic_life=False,
            life_loss_info=self.options.life_loss, reward_clipping=False, autoreset_mode=AutoresetMode.SAME_STEP)
        super().__init__(stack_num=self.options.frame_stack, img_height=SIZE, img_width=SIZE, **common)
        self.spec, self.render_mode = spec, render_mode
        self.metadata = {**self.metadata, "render_fps": 60 // self.options.frame_skip}
        self._viewer = render_mode and AtariVectorEnv(stack_num=1, img_height=SCREEN[0], img_width=SCREEN[1],
                                                      grayscale=False, **common)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """As Gymnasium's; `seed` may also be a list with a seed per game."""
        if seed is None and self._viewer:
            seed = np.random.default_rng().integers(2**31, size=self.num_envs)  # the same for the viewer
        seed = np.asarray(seed) if isinstance(seed, list) else seed
        obs, infos = super().reset(seed=seed, options=options)
        self._first_frame = infos["frame_number"] - infos["episode_frame_number"]
        if self._viewer:
            self._pictures = self._final_pictures = self._viewer.reset(seed=seed, options=options)[0]
        return obs, infos

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """As Gymnasium's, with infos[WHOLE_EPISODE_OVER]."""
        obs, rewards, terminated, truncated, infos = super().step(actions)
        # The frame at which a game began changes exactly when a new one has.
        first_frame = infos["frame_number"] - infos["episode_frame_number"]
        infos[WHOLE_EPISODE_OVER] = first_frame != self._first_frame
        self._first_frame = first_frame
        if self._viewer:
            self._pictures, *_, viewed = self._viewer.step(actions)
            self._final_pictures = viewed.get("final_obs", self._pictures)
        return obs, rewards, terminated, truncated, infos

    def render(self, final: bool = False) -> tuple[np.ndarray, ...]:
        """What each game shows now, [210, 160, 3] uint8; with `final`, before the latest step's resets."""
        return tuple(picture[0] for picture in (self._final_pictures if final else self._pictures))


class AtariGame(gym.Env):
    """One game of an id as a gymnasium.Env. Episodes end as `options` say; a reset after a lost life goes on."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012  (Gymnasium's interface)

    def __init__(self, spec: gym.envs.registration.EnvSpec, options: AtariOptions, render_mode: str | None = None
                 ) -> None:
        self.games = AtariGames(spec, 1, options, render_mode=render_mode)
        self.spec, self.render_mode, self.metadata = spec, render_mode, self.games.metadata
        self.observation_space, self.action_space = self.games.single_observation_space, self.games.single_action_space
        self._next: np.ndarray | None = None  # the observation after an episode's end

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None
              ) -> tuple[np.ndarray, dict[str, Any]]:
        """The next episode's first observation; with a seed, of a new game."""
        if seed is not None or self._next is None:
            self._next = self.games.reset(seed=seed)[0][0]
        self._ended = False
        return self._next, {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """As Gymnasium's; the reward is raw."""
        obs, rewards, terminated, truncated, infos = self.games.step(np.array([action]))
        self._next, self._ended = obs[0], bool(infos[WHOLE_EPISODE_OVER][0])
        last = infos["final_obs"][0] if self._ended else obs[0]
        return last, float(rewards[0]), bool(terminated[0]), bool(truncated[0]), {}

    def render(self) -> np.ndarray:
        """What the game shows, [210, 160, 3] uint8."""
        return self.games.render(final=self._ended)[0]
