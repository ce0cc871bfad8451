"""Playing whole episodes with a policy, without training on them."""

from __future__ import annotations

import shlex
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

import baselines_lite
from baselines_lite.common.envs import video
from baselines_lite.common.envs.atari_options import AtariOptions
from baselines_lite.common.envs.make import family_of, find_spec, make_one
from baselines_lite.common.envs.vec_env import EnvLike, make_vec_env, reset
from baselines_lite.common.envs.workers import close, in_workers
from baselines_lite.common.policies.policy import Policy
from baselines_lite.common.system import tf_setup
from baselines_lite.common.system.errors import UserError
from baselines_lite.common.system.folders import own_folder
from baselines_lite.common.system.mpi import Comm
from baselines_lite.common.system.seeding import env_seeds, stream


def evaluate(policy: Policy, env: EnvLike, episodes: int = 10, deterministic: bool = True,
             seed: int = 0) -> np.ndarray:
    """Raw undiscounted returns [episodes] of whole episodes; the policy's statistics stay as they are.

    Up to 8 environments run side by side, each contributing a fixed share of the episodes: taking whichever finish
    first would favour short ones. An Atari episode is a whole game, as the policy was trained to play it; games that
    the frame cap cuts off are reported by a warning. Episodes begin where those of training with the same seed did not.
    Raises UserError if the environment's spaces are not the policy's.
    """
    if episodes < 1:
        raise UserError(f"episodes must be at least 1, not {episodes}")
    atari = atari_options(policy, env)
    venv = make_vec_env(env, 1 if isinstance(env, gym.Env) else min(episodes, 8), atari=atari,
                        threads=tf_setup.threads_per_rank(Comm()))
    try:
        check_spaces(policy, venv.single_observation_space, venv.single_action_space)
        with tf_setup.limited_pools(1):  # few observations at a time: more threads would only wait for each other
            returns, cut = _play(policy, venv, episodes, deterministic, seed)
        if cut and atari:
            warnings.warn(f"{cut} of {episodes} games were cut off after {atari.frame_cap:,} frames: the policy may "
                          "have stalled, say by never pressing FIRE", stacklevel=2)
        return returns
    finally:
        if not isinstance(env, gym.Env | VectorEnv):
            venv.close()


def atari_options(policy: Policy, env: EnvLike) -> AtariOptions | None:
    """How to play whole games with a policy, if `env` is the id of one."""
    if isinstance(env, str) and family_of(find_spec(env)) == "atari":
        from baselines_lite.common.envs.atari import to_watch

        return to_watch(policy.info, env)
    return None


def check_spaces(policy: Policy, observation_space: gym.Space, action_space: gym.Space) -> None:
    """Raises UserError unless an environment's spaces are the policy's."""
    for mine, theirs in ((policy.observation_space, observation_space), (policy.action_space, action_space)):
        if mine != theirs:
            raise UserError(f"the policy was made for the space {mine}, the environment has {theirs}")


def _play(policy: Policy, venv: VectorEnv, episodes: int, deterministic: bool, seed: int
          ) -> tuple[np.ndarray, int]:
    """Raw returns [episodes], and how many of the episodes were truncated."""
    N = venv.num_envs
    quota = [episodes // N + (n < episodes % N) for n in range(N)]
    returns: list[list[float]] = [[] for _ in range(N)]
    totals, cut = np.zeros(N), 0
    player = Player(policy, venv, deterministic, seed)
    while any(len(done) < share for done, share in zip(returns, quota, strict=True)):
        rewards, terminated, truncated = player.step()
        totals += rewards
        for n in np.flatnonzero(terminated | truncated):
            if len(returns[n]) < quota[n]:
                returns[n].append(float(totals[n]))
                cut += bool(truncated[n])
            totals[n] = 0.0
    return np.array([r for per_env in returns for r in per_env]), cut


class Player:
    """A policy in a vector environment, with its memory if it has one; neither is trained nor normalised anew."""

    def __init__(self, policy: Policy, venv: VectorEnv, deterministic: bool, seed: int) -> None:
        self.policy, self.venv = policy, venv
        self._act, self._deterministic, self._rng = policy.actor(), deterministic, stream(seed, "evaluation")
        self._obs = reset(venv, env_seeds(seed, 0, venv.num_envs, "evaluation environments"))
        self._state = policy.initial_state(venv.num_envs)
        self._firsts, self._dead = np.ones(venv.num_envs, bool), np.zeros(venv.num_envs, bool)
        self._next_step = venv.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP

    def step(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One step of every environment: raw rewards, terminated, truncated, [N] each."""
        policy = self.policy
        noise = None if self._deterministic else policy.noise(self._rng, (self.venv.num_envs,))
        memory = (self._state, self._firsts) if policy.recurrent else ()
        acted = self._act(policy.features(self._obs), noise, *memory)
        self._state = acted.state
        self._obs, rewards, terminated, truncated, _ = self.venv.step(policy.to_env(acted.actions))
        done = terminated | truncated
        # In NEXT_STEP mode an episode begins a step later, after the dead step.
        self._firsts, self._dead = (self._dead, done) if self._next_step else (done, self._dead)
        return rewards, terminated, truncated


def watch_episodes(policy: Policy, env_id: str, episodes: int, deterministic: bool, seed: int,
                   folder: str) -> Iterator[tuple[float, bool]]:
    """Plays in a window where there is a display, else into a video per episode in `folder`, or one with a number.

    Yields each episode's raw return and whether a time limit cut it off. An Atari episode is a whole game. Raises
    UserError where the environment's spaces are not the policy's or a package that is needed is missing.
    """
    window = video.has_display()
    if not window:
        video.prepare()
        folder = own_folder(folder)
        print(f"no display: videos go to {folder}", flush=True)
    atari = atari_options(policy, env_id)

    def factory() -> gym.Env:
        env = make_one(env_id, "human" if window else "rgb_array", atari=atari)
        return env if window else video.record_episodes(env, folder, episodes)

    with video.drawing(env_id):
        venv = in_workers([factory])
    try:
        with video.drawing(env_id):
            check_spaces(policy, venv.single_observation_space, venv.single_action_space)
            player = Player(policy, venv, deterministic, seed)
        total, played = 0.0, 0
        while played < episodes:
            rewards, terminated, truncated = player.step()
            total += float(rewards[0])
            if terminated[0] or truncated[0]:
                yield total, bool(truncated[0])
                total, played = 0.0, played + 1
    except BaseException:  # who waits for a worker in the middle of a step waits for ever
        close(venv, at_once=True)
        raise
    venv.close()


def play_command(policy: Policy, path: str) -> str:
    """What plays a model file from the current folder, started as this process was, all that is one's own by name."""
    env, network, script = policy.info["env"], policy.network, Path(sys.argv[0])
    if ":" not in env and env not in gym.registry:  # made by the caller
        return f"evaluate(load({path!r}), ...), from Python"
    if script.name == "baselines-lite":
        words = [sys.argv[0]]
    elif script.resolve() == Path(baselines_lite.__file__).resolve().parents[1] / "run.py":
        words = [sys.executable, sys.argv[0]]
    else:
        words = [sys.executable, "-m", "baselines_lite.run"]
    words += [f"--load_path={path}", "--play"]
    words += [f"--alg={policy.info['algorithm']}"] if "." in policy.kind() else []
    words += [f"--{name}={value}" for name, value in (("env", env), ("network", network)) if ":" in value]
    return " ".join(map(shlex.quote, words))
