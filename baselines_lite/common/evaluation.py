"""Playing whole episodes with a policy, without training on them."""

from __future__ import annotations

from collections.abc import Iterator

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

from baselines_lite.common import video
from baselines_lite.common.errors import UserError
from baselines_lite.common.policy import ActorCritic
from baselines_lite.common.seeding import env_seeds, stream
from baselines_lite.common.vec_env import EnvLike, find_spec, in_workers, make_one, make_vec_env


def evaluate(policy: ActorCritic, env: EnvLike, episodes: int = 10, deterministic: bool = True,
             seed: int = 0) -> np.ndarray:
    """Raw undiscounted returns [episodes] of whole episodes; the policy's statistics stay as they are.

    Up to 8 environments run side by side, each contributing a fixed share of the episodes: taking whichever finish
    first would favour short ones. Raises UserError if the environment's spaces are not the policy's.
    """
    if episodes < 1:
        raise UserError(f"episodes must be at least 1, not {episodes}")
    venv = make_vec_env(env, 1 if isinstance(env, gym.Env) else min(episodes, 8))
    try:
        check_spaces(policy, venv.single_observation_space, venv.single_action_space)
        return _play(policy, venv, episodes, deterministic, seed)
    finally:
        if not isinstance(env, gym.Env | VectorEnv):
            venv.close()


def check_spaces(policy: ActorCritic, observation_space: gym.Space, action_space: gym.Space) -> None:
    """Raises UserError unless an environment's spaces are the policy's."""
    for mine, theirs in ((policy.observation_space, observation_space), (policy.action_space, action_space)):
        if mine != theirs:
            raise UserError(f"the policy was made for the space {mine}, the environment has {theirs}")


def _play(policy: ActorCritic, venv: VectorEnv, episodes: int, deterministic: bool, seed: int) -> np.ndarray:
    N = venv.num_envs
    quota = [episodes // N + (n < episodes % N) for n in range(N)]
    returns: list[list[float]] = [[] for _ in range(N)]
    totals = np.zeros(N)
    act, rng = policy.actor(), stream(seed, "evaluation")
    obs, _ = venv.reset(seed=env_seeds(seed, 0, N))
    while any(len(done) < share for done, share in zip(returns, quota, strict=True)):
        noise = None if deterministic else policy.pdtype.noise(rng, (N,))
        actions = act(policy.features(obs), noise).actions
        obs, rewards, terminated, truncated, _ = venv.step(policy.to_env(actions))
        totals += rewards
        for n in np.flatnonzero(terminated | truncated):
            if len(returns[n]) < quota[n]:
                returns[n].append(float(totals[n]))
            totals[n] = 0.0
    return np.array([r for per_env in returns for r in per_env])


def watch_episodes(policy: ActorCritic, env_id: str, episodes: int, deterministic: bool, seed: int,
                   folder: str) -> Iterator[float]:
    """Plays in a window where there is a display, else into a video per episode below `folder`; yields raw returns.

    Raises UserError where the environment's spaces are not the policy's or a package that is needed is missing.
    """
    window = video.has_display()
    if not window:
        video.prepare()
        print(f"no display: videos go to {folder}", flush=True)
    find_spec(env_id)

    def factory() -> gym.Env:
        env = make_one(env_id, "human" if window else "rgb_array")
        return env if window else video.record_episodes(env, folder, episodes)

    with video.drawing(env_id):
        venv = in_workers([factory])
        check_spaces(policy, venv.single_observation_space, venv.single_action_space)
        obs, _ = venv.reset(seed=env_seeds(seed, 0, 1))
    act, rng = policy.actor(), stream(seed, "evaluation")
    total, played = 0.0, 0
    while played < episodes:
        noise = None if deterministic else policy.pdtype.noise(rng, (1,))
        actions = act(policy.features(obs), noise).actions
        obs, rewards, terminated, truncated, _ = venv.step(policy.to_env(actions))
        total += float(rewards[0])
        if terminated[0] or truncated[0]:
            yield total
            total, played = 0.0, played + 1
    venv.close()
