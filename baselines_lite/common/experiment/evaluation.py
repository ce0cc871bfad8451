"""Playing whole episodes with a policy, without training on them."""

from __future__ import annotations

import itertools
import math
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv

import baselines_lite
from baselines_lite.common.envs import video
from baselines_lite.common.envs.atari_options import AtariOptions
from baselines_lite.common.envs.make import family_of, find_spec, make_one, with_kwargs
from baselines_lite.common.envs.vec_env import EnvLike, make_vec_env, reset
from baselines_lite.common.envs.workers import close, in_workers
from baselines_lite.common.experiment.config import RunOptions
from baselines_lite.common.experiment.plotting import interval
from baselines_lite.common.policies.policy import Policy
from baselines_lite.common.system import tf_setup
from baselines_lite.common.system.errors import UserError
from baselines_lite.common.system.mpi import Comm
from baselines_lite.common.system.options import Json
from baselines_lite.common.system.seeding import env_seeds, stream
from baselines_lite.common.system.state import Stateful
from baselines_lite.common.system.watchdog import beat, paused

SIDE_BY_SIDE = 8  # environments, at most, in which episodes are played
LONG = 100_000  # steps in which an episode should have ended


class Played(NamedTuple):
    """An episode: its raw undiscounted return, its length in steps, whether a limit of time cut it off."""

    ret: float
    length: int
    cut: bool


def evaluate(policy: Policy, env: EnvLike, episodes: int = 10, deterministic: bool = True,
             seed: int = 0) -> np.ndarray:
    """Raw undiscounted returns [episodes] of whole episodes; see `play_episodes`."""
    return np.array([episode.ret for episode in play_episodes(policy, env, episodes, deterministic, seed)])


def play_episodes(policy: Policy, env: EnvLike, episodes: int, deterministic: bool, seed: int) -> list[Played]:
    """Whole episodes, nothing of them drawn; the policy's statistics stay as they are.

    Up to 8 environments run side by side. An Atari episode is a whole game, as the policy was trained to play it; games
    that the frame cap cuts off are reported by a warning. Episodes begin where those of training with the same seed did
    not. Raises UserError if the environment's spaces are not the policy's.
    """
    if not isinstance(policy, Policy):
        raise UserError(f"what is evaluated must be a policy, such as load(FILE) gives, not {policy!r}")
    if episodes < 1:
        raise UserError(f"episodes must be at least 1, not {episodes}")
    atari, env = atari_options(policy, env), as_trained(policy, env)
    venv = make_vec_env(env, 1 if isinstance(env, gym.Env) else min(episodes, SIDE_BY_SIDE), atari=atari,
                        threads=tf_setup.threads_per_rank(Comm()))
    try:
        check_spaces(policy, venv.single_observation_space, venv.single_action_space)
        with tf_setup.limited_pools(1):  # few observations at a time: more threads would only wait for each other
            played = Player(policy, venv, deterministic, seed).play(episodes)
        cut = sum(episode.cut for episode in played)
        if cut and atari:
            warnings.warn(f"{cut} of {episodes} games were cut off after {atari.frame_cap:,} frames: the policy may "
                          "have stalled, say by never pressing FIRE", stacklevel=3)
        return played
    finally:
        if not isinstance(env, gym.Env | VectorEnv):
            venv.close()


def summary(played: Sequence[Played]) -> dict[str, Any]:
    """Mean return of episodes, its standard error and 95% Student t interval (None of a single one), and the rest."""
    returns, n = np.array([episode.ret for episode in played]), len(played)
    span = interval(returns, least=2)
    return {"mean": float(returns.mean()), "std_error": float(returns.std(ddof=1) / np.sqrt(n)) if n > 1 else None,
            "interval": span and [float(end) for end in span],
            "min": float(returns.min()), "max": float(returns.max()), "episodes": n,
            "cut": sum(episode.cut for episode in played),
            "eplenmean": float(np.mean([episode.length for episode in played]))}


def as_trained(policy: Policy, env: EnvLike) -> EnvLike:
    """An environment with the keywords with which a policy was trained, if `env` is the id of that one.

    Raises UserError for keywords from a file with text in them, a path say, which nobody has named.
    """
    kwargs = policy.info.get("env_kwargs")
    if kwargs is None or not isinstance(env, str) or env != policy.info.get("env"):
        return env
    if not isinstance(kwargs, Json) and Json(kwargs).has_text:
        raise UserError(f"the model file's policy was trained in {env} with the keywords {kwargs}, in which there is "
                        f"text: if you trust it, give --env_kwargs={shlex.quote(kwargs)}, or from Python an "
                        "environment that you have made")
    return with_kwargs(env, Json(kwargs))


def atari_options(policy: Policy, env: EnvLike) -> AtariOptions | None:
    """How to play whole games with a policy, if `env` is the id or the spec of one."""
    if isinstance(env, str | EnvSpec) and family_of(find_spec(env)) == "atari":
        from baselines_lite.common.envs.atari import to_watch

        return to_watch(policy.info, env if isinstance(env, str) else env.id)
    return None


def deterministic_in(policy: Policy, env: EnvLike, wanted: bool | None) -> bool:
    """Whether to evaluate the most probable actions. Where nothing is `wanted`: but in Atari games.

    There such a policy may stall, by never pressing FIRE; RL Baselines3 Zoo makes the same difference.
    """
    return atari_options(policy, env) is None if wanted is None else wanted


def check_spaces(policy: Policy, observation_space: gym.Space, action_space: gym.Space) -> None:
    """Raises UserError unless an environment's spaces are the policy's."""
    for mine, theirs in ((policy.observation_space, observation_space), (policy.action_space, action_space)):
        if mine != theirs:
            raise UserError(f"the policy was made for the space {mine}, the environment has {theirs}")


class Player:
    """A policy in a vector environment, with its memory if it has one; neither is trained nor normalised anew.

    All that is drawn comes from (seed, rank), and `when`, where it is played more than once.
    """

    def __init__(self, policy: Policy, venv: VectorEnv, deterministic: bool, seed: int, rank: int = 0,
                 when: str = "") -> None:
        self.policy, self.venv, N = policy, venv, venv.num_envs
        self._act, self._deterministic = policy.actor(), deterministic
        self._rng = stream(seed, f"evaluation{when}", rank)
        self._obs = reset(venv, env_seeds(seed, rank, N, f"evaluation environments{when}"))
        self._state = policy.initial_state(N)
        self._firsts, self._dead = np.ones(N, bool), np.zeros(N, bool)
        self._next_step = venv.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
        self._returns, self._lengths = np.zeros(N), np.zeros(N, np.int64)

    def step(self) -> list[tuple[int, Played]]:
        """One step of every environment; the episodes that end with it, each behind its environment's number."""
        policy = self.policy
        noise = None if self._deterministic else policy.noise(self._rng, (self.venv.num_envs,))
        memory = (self._state, self._firsts) if policy.recurrent else ()
        acted = self._act(policy.features(self._obs), noise, *memory)
        self._state = acted.state
        self._obs, rewards, terminated, truncated, _ = self.venv.step(policy.to_env(acted.actions))
        beat()
        done = terminated | truncated
        self._returns += np.where(self._dead, 0.0, rewards)
        self._lengths += ~self._dead
        ended = np.flatnonzero(done)
        cut = truncated & ~terminated  # who dies at the limit was not cut off
        played = [(int(n), Played(float(self._returns[n]), int(self._lengths[n]), bool(cut[n]))) for n in ended]
        self._returns[ended], self._lengths[ended] = 0.0, 0
        # In NEXT_STEP mode an episode begins a step later, after the dead step.
        self._firsts, self._dead = (self._dead, done) if self._next_step else (done, self._dead)
        return played

    def play(self, episodes: int, stopped: Callable[[], bool] = lambda: False) -> list[Played] | None:
        """So many whole episodes, of each environment a fixed share; None once it is `stopped`.

        Taking whichever finish first would favour short ones.
        """
        N = self.venv.num_envs
        quota = [episodes // N + (n < episodes % N) for n in range(N)]
        played: list[list[Played]] = [[] for _ in range(N)]
        steps = itertools.count(1)
        while any(len(mine) < share for mine, share in zip(played, quota, strict=True)):
            if stopped():
                return None
            if next(steps) == LONG and not any(played):
                print(f"an evaluation has taken {LONG:,} steps without the end of an episode, and goes on: the "
                      "environment may need a time limit", file=sys.stderr, flush=True)
            for n, episode in self.step():
                if len(played[n]) < quota[n]:
                    played[n].append(episode)
        return [episode for mine in played for episode in mine]


class Evaluations(Stateful):
    """A run's evaluations: whole episodes, unclipped games, after each `eval_interval`-th update and after the last.

    What they do depends on the policy and (seed, rank, update) alone, and leaves nothing behind: each draws from
    streams of its own, in environments that `make` makes for it, of a number and with options for games. So training
    goes on as without them, and a run that was stopped repeats them. Episodes begin elsewhere each time: the best of
    many evaluations from the same starts would be the luckiest there. `mean` is the last one's mean return.

    One that is `stopped` on a rank, because the run is to end, has no result and is `owed`: a run that goes on from
    there makes it first.
    """

    STATE = ("mean", "owed")

    def __init__(self, policy: Policy, comm: Comm, run: RunOptions, updates: int, env: EnvLike,
                 make: Callable[[int, AtariOptions | None], VectorEnv], stopped: Callable[[], bool] = lambda: False
                 ) -> None:
        if isinstance(env, gym.Env | VectorEnv):
            raise UserError(f"eval_interval={run.eval_interval} is for an environment's id or factory: of a "
                            f"{type(env).__name__} object, no other can be made to evaluate in")
        self.policy, self.comm, self.run, self._updates, self._make = policy, comm, run, updates, make
        self._stopped, self.owed = stopped, False
        self._atari = atari_options(policy, env)
        self._deterministic = deterministic_in(policy, env, run.eval_deterministic)
        self.venv: VectorEnv | None = None  # that of the evaluation in its course, or that failed
        self.mean: float | None = None
        self.seconds = 0.0  # that this rank played in the last one

    def due(self, nupdates: int) -> bool:
        """Whether one comes after that many updates."""
        return nupdates % self.run.eval_interval == 0 or nupdates == self._updates

    def after(self, nupdates: int) -> dict[str, Any] | None:
        """The `summary` of an evaluation, of all ranks' episodes, after that many updates; None: owed. Collective."""
        start, comm, episodes = time.perf_counter(), self.comm, self.run.eval_episodes
        mine = self._play(episodes // comm.size + (comm.rank < episodes % comm.size), nupdates)
        self.seconds = time.perf_counter() - start
        with paused():  # a rank that hangs is named by itself; others may have longer episodes than this one, or more
            everyone = comm.gather(mine)
        self.owed = None in everyone
        if self.owed:
            return None
        found = summary([episode for played in everyone for episode in played])
        if not math.isfinite(found["mean"]):
            raise comm.shared(UserError(f"a return in the evaluation after update {nupdates} is {found['mean']}: a "
                                        "reward was"))
        self.mean = found["mean"]
        return found

    def _play(self, episodes: int, nupdates: int) -> list[Played] | None:
        if episodes == 0:
            return []
        self.venv = self._make(min(episodes, SIDE_BY_SIDE), self._atari)
        try:
            player = Player(self.policy, self.venv, self._deterministic, self.run.seed, self.comm.rank,
                            f" after update {nupdates}")
            played = player.play(episodes, self._stopped)
        except BaseException:  # who waits for a worker in the middle of a step waits for ever
            close(self.venv, at_once=True)
            raise
        self.venv.close()
        self.venv = None
        return played


def watch_episodes(policy: Policy, env: str | EnvSpec, episodes: int, deterministic: bool, seed: int,
                   path: str | None) -> Iterator[Played]:
    """Plays in a window, or into the video file `path`, one episode after the other; yields each.

    An Atari episode is a whole game. Raises UserError where the environment's spaces are not the policy's or a package
    that is needed is missing.
    """
    if path is not None:
        video.prepare()
    atari, made = atari_options(policy, env), as_trained(policy, env)
    env_id = env if isinstance(env, str) else env.id

    def factory() -> gym.Env:
        env = make_one(made, "human" if path is None else "rgb_array", atari=atari)
        return env if path is None else video.Film(env, path, episodes)

    with video.drawing(env_id):
        venv = in_workers([factory])
    try:
        check_spaces(policy, venv.single_observation_space, venv.single_action_space)
        with video.drawing(env_id):
            player = Player(policy, venv, deterministic, seed)
        played = 0
        while played < episodes:
            for _, episode in player.step():
                yield episode
                played += 1
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
    kwargs = policy.info.get("env_kwargs")
    words += [f"--env_kwargs={kwargs}"] if kwargs is not None and Json(kwargs).has_text else []
    words += [f"--alg={policy.info['algorithm']}"] if "." in policy.kind() else []
    words += [f"--{name}={value}" for name, value in (("env", env), ("network", network)) if ":" in value]
    return " ".join(map(shlex.quote, words))
