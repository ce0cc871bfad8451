"""Collecting experience: `Collector.collect()` steps the environments and returns a `Rollout` of [T, N] arrays.

The inner loop does only what the next step needs: normalise, act, step. What that does not give by the way (values of
networks that act in NumPy, normalised rewards, episode statistics) is computed for the whole rollout at once, from the
same weights and statistics, which are frozen meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from baselines_lite.common.envs.episode_stats import WHOLE_EPISODE_OVER, EpisodeTracker
from baselines_lite.common.envs.vec_env import final_observations, nested, reset
from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.sampling.rollout import Rollout, flatten
from baselines_lite.common.system.errors import UserError, not_finite
from baselines_lite.common.system.mpi import Comm
from baselines_lite.common.system.seeding import env_seeds, stream
from baselines_lite.common.system.state import Stateful
from baselines_lite.common.system.watchdog import beat

Rows = dict[str, np.ndarray]  # arrays [T, N, ...] by name: T steps of N environments


class Collector(Stateful):
    """Steps a VectorEnv with a policy, `nsteps` steps at a time, carrying on where the last rollout ended.

    Reset seeds come from (seed, rank), those of `renew` from its argument too; action noise from (seed, noise_rank).
    `shape_rewards` makes the rewards to train on from raw ones; one that is not finite raises UserError on all ranks.
    `cut_is_death` takes time limits for terminal states. `late` [N]: environments whose time limits come early in first
    episodes, which do not count as finished then. Statistics are merged over `comm`'s ranks after each rollout
    unless `merge` is False. `values`: whether V is wanted; if not, a rollout's values and next_values are NaN.
    `resumed`: the environments are where they are to go on, and the rest is about to be restored. `start`: when the run
    began, by time.perf_counter(); None: now.
    An environment whose training episodes are parts of a longer one (lives of a game) says in
    infos[WHOLE_EPISODE_OVER] [N] when that has ended: only then does an episode count as finished in the log.

    In NEXT_STEP mode the step after an episode's end ignores its action and only resets. Such dead steps are left out;
    what environments with fewer of them do meanwhile, beyond the rollout's end, counts for the log only: were it kept
    for the next rollout, the policy would soon be trained on what much older ones did.
    """

    STATE = ("_obs", "_firsts", "_dead", "_state", "_tracker", "_noise", "_taken")

    WARM_UP = 1024  # random steps per rank that give the first rollout its normalisation statistics

    def __init__(self, venv: VectorEnv, policy: ActorCritic, nsteps: int, comm: Comm, *, seed: int = 0,
                 noise_rank: int | None = None, merge: bool = True, cut_is_death: bool = False,
                 shape_rewards: Callable[[np.ndarray], np.ndarray] = lambda rewards: rewards,
                 late: np.ndarray | None = None, values: bool = True, resumed: bool = False, start: float | None = None
                 ) -> None:
        self.venv, self.policy, self.comm, self._seed = venv, policy, comm, seed
        self._statistics_comm = comm if merge else Comm()
        self.nsteps, self.num_env, self._valued = nsteps, venv.num_envs, values
        self.shape_rewards, self._cut_is_death = shape_rewards, cut_is_death
        self._next_step, self._late = venv.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP, late
        self._noise = stream(seed, "noise", comm.rank if noise_rank is None else noise_rank)
        self._start = time.perf_counter() if start is None else start
        self._time_env, self._taken = 0.0, 0  # steps of every environment in earlier rollouts
        self._complaints: list[tuple[int, str]] = []  # of a step: why training has to end
        self._obs: Any = None
        self._clear()
        if resumed:
            return
        normalize = policy.normalize
        if (normalize.obs is not None or normalize.ret is not None) and (normalize.obs or normalize.ret).count == 0:
            self._warm_up(stream(seed, "warm up", comm.rank))
        self._begin()

    def _begin(self, purpose: str = "environments") -> None:
        self._seeds = env_seeds(self._seed, self.comm.rank, self.num_env, purpose)
        self._obs = self.comm.together(lambda: reset(self.venv, self._seeds))
        self._clear()
        self.policy.normalize.restart()

    def _clear(self) -> None:
        self._firsts, self._dead = np.ones(self.num_env, bool), np.zeros(self.num_env, bool)
        self._state = self.policy.initial_state(self.num_env)
        self._tracker = EpisodeTracker(self.num_env, self._late)

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self._obs = nested(self.venv.single_observation_space, self._obs)

    def renew(self, purpose: str) -> None:
        """Begins new episodes; the present ones end as by a time limit, and do not count as finished. Collective."""
        self._begin(purpose)

    def _warm_up(self, rng: np.random.Generator) -> None:
        self._begin()
        self.venv.single_action_space.seed(int(rng.integers(2**31)))
        rows, _ = self._live(-(-self.WARM_UP // self.num_env), self._random_steps)
        self._look("the reward", rows["rewards"], 1)
        self._look("an observation", rows["raw"], 0)
        self.comm.together(self._check)
        self.policy.normalize.update(rows["raw"], self.shape_rewards(rows["rewards"]), rows["dones"],
                                     self._statistics_comm)

    def collect(self) -> Rollout:
        """The next `nsteps` steps of every environment."""
        normalize, clock, time_comm, self._time_env = self.policy.normalize, time.perf_counter, self.comm.seconds, 0.0
        start = clock()
        with self.policy.parameters.arrays_once():
            rows, beyond = self._live(self.nsteps, self._steps)
        raw, rewards, over = rows.pop("raw", None), rows.pop("rewards"), rows.pop("over")
        self._look("the reward", rewards, 1)
        for values in (rows["next_values"], rows["values"]) if self._valued else ():
            self._look("the value of an observation", values, 1)
        if beyond is not None:
            self._look("the reward", np.where(beyond["live"], beyond["rewards"], 0.0), 1)
        self.comm.together(self._check)
        self._taken += self.nsteps
        shaped = self.shape_rewards(rewards)
        trained = normalize.normalize_rewards(shaped)
        normalize.update(raw, shaped, rows["dones"], self._statistics_comm)
        cut = rows["dones"] & ~rows["terminated"]
        if self._cut_is_death:
            rows["terminated"] = rows["dones"]
        end = clock()
        episodes = self._tracker.finished(rewards, over, cut, start - self._start, end - self._start)
        if beyond is not None:
            now = end - self._start
            for k, live in enumerate(beyond["live"]):
                episodes += self._tracker.step(beyond["rewards"][k], beyond["over"][k] & live, ~live, now,
                                               self.nsteps + k)
            normalize.pass_over(self.shape_rewards(beyond["rewards"]), beyond["dones"], beyond["live"])
        return Rollout(**rows, rewards=trained, episodes=episodes, time_env=self._time_env,
                       time_act=end - start - self._time_env - (self.comm.seconds - time_comm))

    def _look(self, what: str, numbers: np.ndarray | None, after: int, envs: Any = slice(None)) -> None:
        """Complains where numbers [T, K, ...] of the environments `envs` are not finite.

        Row t is of what there was `after` + t steps into this rollout.
        """
        if numbers is None or np.isfinite(numbers).all():
            return
        t, k, *column = np.argwhere(~np.isfinite(numbers))[0]
        step, env = self._taken + after + int(t), int(np.arange(self.num_env)[envs][k])
        self._complaints.append((step, not_finite(what, numbers[t, k, *column], step, env, self.comm.rank)))

    def _check(self) -> None:
        """Raises UserError for what was first."""
        if self._complaints:
            raise UserError(min(self._complaints)[1])

    def _live(self, T: int, steps: Callable[[int], Rows]) -> tuple[Rows, Rows | None]:
        """The next T steps of every environment, dead ones left out; `steps(T)` gives T steps as they come.

        And, in NEXT_STEP mode, the rewards, dones and ends of whole episodes [K, N] of what environments did beyond
        them, where `live` [K, N].
        """
        if not self._next_step:
            return steps(T), None
        rows = steps(T)
        while (missing := T - (~rows["dead"]).sum(axis=0).min()) > 0:
            more = steps(missing)
            rows = {name: np.concatenate([array, more[name]]) for name, array in rows.items()}
        live = ~rows.pop("dead")
        taken = np.stack([np.flatnonzero(column)[:T] for column in live.T], axis=1)  # [T, N]
        np.put_along_axis(live, taken, False, axis=0)
        beyond = {name: rows[name] for name in ("rewards", "dones", "over")} | {"live": live}
        return {name: array[taken, np.arange(self.num_env)] for name, array in rows.items()}, beyond

    def _steps(self, T: int) -> Rows:
        """T steps of every environment with the policy."""
        N, policy, encoder, clock = self.num_env, self.policy, self.policy.encoder, time.perf_counter
        act, recurrent = policy.actor(), policy.recurrent
        noise = policy.noise(self._noise, (T, N))
        # Row T is the state after the last step: its value is wanted too, so that one call evaluates everything.
        obs = np.empty((T + 1, N, *encoder.shape), encoder.dtype)
        actions = np.empty((T, N, *policy.pdtype.action_shape), policy.pdtype.action_dtype)
        heads = np.empty((T, N, policy.pdtype.head_size), policy.dtype.as_numpy_dtype)
        values = np.empty((T + 1, N), policy.dtype.as_numpy_dtype)
        rewards = np.empty((T, N))
        terminated, truncated, dead, firsts = np.zeros((4, T, N), bool)
        over: np.ndarray | None = None
        raw = None if policy.normalize.obs is None else np.empty((T + 1, N, encoder.vector_size))
        states = np.empty((T + 1, *self._state.shape), self._state.dtype) if recurrent else None
        ends: list[tuple[np.ndarray, ...]] = []  # of episodes that a time limit cut in SAME_STEP mode: see _cut_off

        for t in range(T):
            policy.features(self._obs, obs[t], None if raw is None else raw[t])
            if recurrent:
                states[t], firsts[t] = self._state, self._firsts
                acted = act(obs[t], noise[t], self._state, self._firsts)
                self._state = acted.state
            else:
                acted = act(obs[t], noise[t])
            actions[t], heads[t] = acted.actions, acted.heads
            if acted.values is not None:
                values[t] = acted.values
            env_actions = policy.to_env(actions[t])
            before = clock()
            self._obs, rewards[t], terminated[t], truncated[t], infos = self.venv.step(env_actions)
            self._time_env += clock() - before
            beat()
            if self._next_step:
                dead[t], self._firsts = self._dead, self._dead
                self._dead = terminated[t] | truncated[t]
            elif recurrent or "final_obs" in infos or truncated[t].any():
                self._firsts = terminated[t] | truncated[t]
                ends += self._cut_off(t, np.flatnonzero(truncated[t] & ~terminated[t]), infos)
            if WHOLE_EPISODE_OVER in infos:
                over = np.zeros((T, N), bool) if over is None else over
                over[t] = infos[WHOLE_EPISODE_OVER]

        policy.features(self._obs, obs[T], None if raw is None else raw[T])
        self._look("an observation", self._numbers(obs) if raw is None else raw, 0)
        memory = (self._state, self._firsts) if recurrent else ()
        if recurrent:
            states[T] = self._state
        if not self._valued:
            values[:] = np.nan
        elif acted.values is None:
            values = policy.values(flatten(obs)).reshape(T + 1, N)
        else:
            values[T] = act(obs[T], None, *memory).values
        next_values, next_obs = self._followers(values[1:], obs[1:], ends)
        dones = terminated | truncated
        rows = {"obs": obs[:T], "actions": actions, "rewards": rewards, "terminated": terminated, "dones": dones,
                "over": dones if over is None else over, "values": values[:T], "next_values": next_values,
                "heads": heads, "next_obs": next_obs}
        rows |= {"raw": raw[:T]} if raw is not None else {}
        rows |= {"states": states[:T], "firsts": firsts, "next_states": states[1:]} if recurrent else {}
        return rows | {"dead": dead} if self._next_step else rows

    def _cut_off(self, t: int, envs: np.ndarray, infos: dict[str, Any]) -> list[tuple[np.ndarray, ...]]:
        """At step t a time limit cut the episodes of `envs`: [(t and environment of each, features of their final
        observations, and of a recurrent policy its memory and firsts there)], or nothing.
        """
        if not len(envs):
            return []
        try:
            final = final_observations(infos, envs, self.venv.single_observation_space)
        except UserError as error:  # told later, on all ranks together
            self._complaints.append((self._taken + t + 1, str(error)))
            return []
        raw = None if self.policy.normalize.obs is None else np.empty((len(envs), self.policy.encoder.vector_size))
        features = self.policy.features(final, raw=raw)
        self._look("a final observation", self._numbers(features[None]) if raw is None else raw[None], t + 1, envs)
        memory = (self._state[envs], np.zeros(len(envs), bool)) if self.policy.recurrent else ()
        return [(np.full(len(envs), t), envs, features, *memory)]

    def _numbers(self, obs: np.ndarray) -> np.ndarray | None:
        """What of features [T, N, ...] is no picture: [T, N, d]; None if all is."""
        numbers = self.policy.encoder.numbers(flatten(obs))
        return None if numbers is None else numbers.reshape(*obs.shape[:2], -1)

    def _followers(self, values: np.ndarray, obs: np.ndarray, ends: list[tuple[np.ndarray, ...]]
                   ) -> tuple[np.ndarray, np.ndarray]:
        """V and features of what followed each step: the next row's [T, N, ...], but where an episode was cut off."""
        values = values.copy()
        if ends:
            times, envs, features, *memory = (np.concatenate(parts) for parts in zip(*ends, strict=True))
            if self._valued:
                values[times, envs] = self.policy.values(features, *memory)
            obs = obs.copy()
            obs[times, envs] = features
        return values, obs

    def _random_steps(self, T: int) -> Rows:
        """T steps of every environment with random actions: what normalisation needs of them."""
        raw = np.empty((T, self.num_env, self.policy.encoder.vector_size))
        rewards, (terminated, truncated, dead) = np.empty((T, self.num_env)), np.zeros((3, T, self.num_env), bool)
        for t in range(T):
            self.policy.features(self._obs, raw=raw[t])
            actions = np.stack([self.venv.single_action_space.sample() for _ in range(self.num_env)])
            self._obs, rewards[t], terminated[t], truncated[t], _ = self.venv.step(actions)
            beat()
            dead[t] = self._dead
            self._dead = self._next_step & (terminated[t] | truncated[t])
        dones = terminated | truncated
        return {"raw": raw, "rewards": rewards, "dones": dones, "over": dones, "dead": dead}
