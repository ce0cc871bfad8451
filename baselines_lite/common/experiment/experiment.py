"""What surrounds every training loop: configuration, processes, environments, files, the decision to stop.

    with Experiment(__package__, Config, PRESETS, env, total_timesteps, options) as exp:
        policy, collector = exp.policy, exp.collector()
        while not exp.finished:
            rollout = collector.collect()
            ...
            exp.log(rollout, {...})

Leaving the block saves the policy and says where everything lies. An exception that leaves it saves the policy of the
last logged update, and ends all ranks unless they raise it together. A signal to stop inside it ends the loop after the
present update; policy.stopped_by tells of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

from baselines_lite.common.envs import video
from baselines_lite.common.envs.atari_options import AtariOptions
from baselines_lite.common.envs.continued import Continued
from baselines_lite.common.envs.episode_stats import EpisodeWindow, in_order
from baselines_lite.common.envs.make import family_of, with_kwargs
from baselines_lite.common.envs.vec_env import EnvLike, cut_early, make_vec_env, name_of, spec_of
from baselines_lite.common.envs.workers import awaited, close
from baselines_lite.common.experiment import resume
from baselines_lite.common.experiment.config import PATHS, algorithm_name, check_alike, resolve, with_budget
from baselines_lite.common.experiment.continuation import Continuation, LastLogged
from baselines_lite.common.experiment.evaluation import Evaluations
from baselines_lite.common.experiment.logger import Logger, make_trackers, versions
from baselines_lite.common.experiment.places import check_room, places
from baselines_lite.common.experiment.report import Report, Shares, without_callback
from baselines_lite.common.experiment.view import make_view
from baselines_lite.common.networks.distributions import is_far_from_unit
from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.policies.model_file import load_into
from baselines_lite.common.policies.policy import Policy
from baselines_lite.common.sampling.collector import Collector
from baselines_lite.common.sampling.replay_collector import Experience, ReplayCollector
from baselines_lite.common.sampling.rollout import Rollout
from baselines_lite.common.system import folders, tf_setup
from baselines_lite.common.system.errors import UserError
from baselines_lite.common.system.mpi import Comm, get_comm
from baselines_lite.common.system.options import to_dict
from baselines_lite.common.system.stop_signals import StopSignals
from baselines_lite.common.system.watchdog import Watchdog, beat, paused

RENEW_AFTER = 10_000  # steps, at least, after which environments whose state cannot be kept begin anew
CHECK_EVERY = 100  # updates between two proofs that the ranks' parameters are finite and equal


class Experiment(Report):
    """One training run. Everything that can be wrong with its input is found here, on all ranks together.

    `package` is that of the algorithm, which is named after it; see config.algorithm_name.
    `total_timesteps` is the option num_timesteps by its other name; None: not given by this one.
    `options` are RunOptions, the algorithm's Config and its network's options by name; see config.resolve. `callback`
    among them is called with an AfterUpdate once an update has ended; the run ends where it returns True on any rank.
    `make_policy` makes the policy of the experiment and the network's options: an ActorCritic unless given.
    `make_buffer` makes what an algorithm that learns from the past stores it in: `buffer`, with its size `nbytes`.
    """

    def __init__(self, package: str, config_type: type, presets: Mapping[str, Any], env: EnvLike,
                 total_timesteps: float | None, options: Mapping[str, Any], comm: Comm | None = None,
                 make_policy: Callable[[Experiment, dict[str, Any]], Policy] | None = None,
                 make_buffer: Callable[[Experiment], Any] | None = None) -> None:
        self._make_policy, self._make_buffer = make_policy or actor_critic, make_buffer
        self.comm = comm or get_comm()
        self.algorithm = algorithm_name(package)
        self.start, self.origin = time.perf_counter(), folders.here()
        self._signals, self.stop = StopSignals(self.say_signal), None  # why the run ends, once it does
        self._held = contextlib.ExitStack()  # places that this run has for itself, and limits of threads
        self.logger: Logger | None = None
        self.venv: VectorEnv | None = None
        self._begun = False  # whether an update has ended here
        self.nupdates = self.total_timesteps = 0
        self.window = EpisodeWindow()
        self.log_ends: dict[str, int] | None = None  # the log's lengths without a last row that is not due
        with self.comm.guarded(), self._given_back():
            options, self.callback = self.comm.together(lambda: without_callback(options))
            self.given, facts = self._asked(with_budget(options, total_timesteps, config_type))
            self.comm.together(lambda: self._prepare(config_type, presets, env, dict(self.given)))
            told = {"algorithm": self.algorithm, "env": self.env_name, **self.settings(),
                    "callback": self.callback is not None}
            all_ranks = self.comm.gather({k: v and str(v) for k, v in told.items()})
            self.comm.together(lambda: check_alike(all_ranks))
            self._follow_rank_0()
            news = self.comm.together(lambda: facts and resume.check_same(
                facts["settings"], self.settings(), self.config))
            self.comm.together(lambda: self._take_places(news), root_only=True)
            self.continuation = Continuation(self.comm, self.log_path and self.log_path / resume.FOLDER, self.run,
                                              self.environments, max(1, self.planned_updates // 20))
            if facts is not None:
                self._go_on()
            own = dict(window=self.window, policy=self.policy, buffer=self.buffer, evaluations=self.evaluations)
            self.keep(**{name: thing for name, thing in own.items() if thing is not None})
        self.stop = self.why_stop(0)
        self.shares = Shares(self.comm, *(["eval"] if self.evaluations else []))
        self.shares.begin(self.total_timesteps)

    @contextlib.contextmanager
    def _given_back(self) -> Iterator[None]:
        """Where the block fails, the run's places and files and the environments made for it are free again."""
        try:
            yield
        except BaseException:
            with self._held:
                if self.logger is not None and self.comm.rank == 0:
                    self.logger.close()
                if self.venv is not None and self._own_env:
                    close(self.venv, at_once=True)
            raise

    def _asked(self, values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """The options of the run, and what its checkpoints say of it where it goes on with one. Collective."""
        found = self.comm.broadcast(self.comm.together(lambda: resume.asked(values), root_only=True))
        if found is None:
            return {**values, "resume": None}, None
        folder, facts = found
        values = self.comm.together(lambda: resume.with_given(values, facts))
        return values | {"log_path": folder, "resume": folder}, facts

    def _prepare(self, config_type: type, presets: Mapping[str, Any], env: EnvLike, values: dict[str, Any]) -> None:
        spec = spec_of(env)
        self.family = family_of(spec)
        self.env_name = env if isinstance(env, str) else spec.id if spec is not None else name_of(env)
        if isinstance(env, VectorEnv):
            values.setdefault("num_env", env.num_envs)
        resolved = resolve(config_type, presets, self.family, values, self.comm.size, isinstance(env, gym.Env))
        self.run, self.config, self.preset = resolved.run, resolved.config, resolved.preset
        env = with_kwargs(env, self.run.env_kwargs)
        self.atari: AtariOptions | None = None  # how games are played, settled
        if isinstance(env, VectorEnv) and self.config.num_env != env.num_envs:
            raise UserError(f"num_env={self.config.num_env}, but the vector environment has {env.num_envs}")
        self.wanted_threads = self.run.threads or tf_setup.threads_for(resolved.small, self.comm)
        self.threads = tf_setup.setup(self.comm, self.wanted_threads)  # those that TensorFlow has
        videos = self.run.save_video_interval > 0 and self.comm.rank == 0
        self._own_env = not isinstance(env, VectorEnv)
        given = isinstance(env, gym.Env | VectorEnv)
        own_ages = None if given else self.config.ages(self.comm.rank, self.comm.size)

        def make(num_env: int = self.config.num_env, atari: AtariOptions | None = resolved.atari,
                 render_mode: str | None = "rgb_array" if videos else None, ages: Any = own_ages) -> VectorEnv:
            return make_vec_env(env, num_env, vec=self.run.vec, render_mode=render_mode, verbose=self.run.verbose,
                                atari=atari, threads=self.threads, ages=ages)

        venv = make()
        if self.family == "atari":
            from baselines_lite.common.envs.atari import AtariGames  # loads the emulator: for its games only

            self.atari = venv.options if isinstance(venv, AtariGames) else None  # None: set up by others
        self.venv = self.environments = Continued(venv, None if given else make)
        cfg = self.config
        self.policy = self._make_policy(self, resolved.network_options)
        if hasattr(cfg, "check_policy"):
            cfg.check_policy(self.policy)
        self.policy.info = {
            "algorithm": self.algorithm, "env": self.env_name, "env_kwargs": self.run.env_kwargs,
            "config": to_dict(cfg), "atari": self.atari and to_dict(self.atari), "versions": versions()}
        self.buffer = self._make_buffer and self._make_buffer(self)
        self.batch = cfg.num_env * cfg.nsteps * self.comm.size  # environment steps per update, all ranks
        self.planned_updates = self.run.num_timesteps // self.batch
        self.renew_every = max(1, self.planned_updates // 20, -(-RENEW_AFTER // cfg.nsteps))  # updates
        self.evaluations = Evaluations(
            self.policy, self.comm, self.run, self.planned_updates, env, partial(make, render_mode=None, ages=None),
            lambda: bool(self._signals.number)) if self.run.eval_interval else None

    def _follow_rank_0(self) -> None:
        """Rank 0 reads and writes the files: its paths count for all ranks, wherever an environment goes from here."""
        own = {name: getattr(self.run, name) for name in PATHS}
        paths = self.comm.broadcast({name: path and os.path.join(self.origin, path) for name, path in own.items()})
        if self.run.dry_run:
            paths |= dict(log_path=None, save_path=None)
        self.run = dataclasses.replace(self.run, **paths)
        self.log_path = None if self.run.log_path is None else Path(self.run.log_path)
        self.folder = self.log_path or Path(self.run.save_path or ".").parent  # for what is written beside the log
        self.save_path = self.run.save_path or (self.log_path and str(self.log_path / "model.safetensors"))
        self._last_logged = LastLogged(self.policy, self.save_path)
        if self.run.load_path:
            self.comm.together(lambda: load_into(self.policy, self.run.load_path), root_only=True)
        if self.comm.size > 1:
            self.policy.restore(self.comm.broadcast(self.policy.state()))

    def _take_places(self, news: list[str] | None) -> None:
        if self.save_path:
            self.policy.description()  # what cannot be saved is found before it is trained
        trackers = make_trackers(self.run)  # one that cannot be used is found before any place is taken
        with contextlib.ExitStack() as held:
            aside = held.enter_context(places(self.run, self.save_path, self.folder))
            if self.log_path is not None and self.buffer is not None and self.run.resume is None:
                check_room(self.log_path, 1.1 * self.buffer.nbytes * self.comm.local_size)
            view = make_view(self.run.view, f"{self.algorithm} {self.env_name}", self.planned_updates * self.batch,
                             self.run.print_interval)
            self.logger = Logger(self.run.log_path, view, [] if self.run.dry_run else trackers,
                                 self.run.resume is not None, self.evaluations is not None)
            self.logger.begin(self.env_name, self.describe())
            self.say_start()
            for line in [f"an earlier run's files are now in {self.shown(aside)}"] if aside else news or []:
                self.logger.say(line)
            if self.run.save_video_interval > 0 and not self.run.dry_run:
                every = max(1, self.run.save_video_interval // self.config.num_env)
                self.venv = video.record(self.venv, self.env_name, self.folder / "videos", every,
                                         self.run.save_video_length)
            self._held = held.pop_all()

    def _go_on(self) -> None:
        """Brings the run to where its last checkpoint is. Collective."""
        facts = self.continuation.go_on(self.logger.say if self.comm.rank == 0 else lambda line: None)
        self.nupdates, self.renew_every = facts["nupdates"], facts["renew_every"]
        self.total_timesteps = self.nupdates * self.batch
        self.start -= facts["time_elapsed"]
        lost = self.comm.together(lambda: self.logger.go_on(facts["logs"], self.total_timesteps), root_only=True)
        if self.comm.rank == 0:
            self.say_going_on(lost, facts.get("place"))

    def keep(self, **things: Any) -> None:
        """Names what the next update depends on beside policy, collector and buffer: it belongs to every checkpoint.

        Stateful objects and generators, once they are made: where the run goes on, they become what they were.
        Collective.
        """
        self.continuation.keep(things)

    def __enter__(self) -> Experiment:
        self._held.enter_context(tf_setup.limited_pools(self.wanted_threads))
        self._held.enter_context(Watchdog(self.comm, self.run.stall_timeout, partial(self.where, awaited)))
        if self.comm.size == 1:
            self._listen()
        if self.evaluations is not None and self.evaluations.owed:
            with self.comm.guarded(), self._given_back():
                self._evaluate(None)
                self.stop = self.why_stop(max(self.comm.gather(self._signals.number)))
        return self

    def _listen(self) -> None:
        """From now on signals to stop end the run after the update, on all ranks.

        Several ranks: from the end of the first update. Before, ranks that start unlike wait for each other for ever.
        """
        self._signals.listen()
        self._held.callback(self._signals.restore)

    def shape_rewards(self, rewards: np.ndarray) -> np.ndarray:
        """Raw rewards as they are trained on: clipped to their sign where Atari's options say so, and scaled."""
        if self.atari is not None and self.atari.clip_rewards:
            rewards = np.sign(rewards)
        return rewards * self.run.reward_scale

    def collector(self, values: bool = True) -> Collector:
        """What collects rollouts of `nsteps` steps with the policy, as the options say; see Collector. Collective."""
        cfg = self.config
        return self._collecting(Collector, cfg.nsteps, self.comm, noise_rank=self.noise_rank,
                                merge=cfg.statistics == "global", late=cut_early(self.venv), values=values)

    def replay_collector(self) -> ReplayCollector:
        """What collects steps with the policy into `buffer`, as the options say. Collective."""
        return self._collecting(ReplayCollector, self.buffer, self.comm)

    def _collecting(self, kind: type, *arguments: Any, **options: Any) -> Any:
        self._collector = kind(self.venv, self.policy, *arguments, **options, seed=self.run.seed,
                               shape_rewards=self.shape_rewards, cut_is_death=self.config.time_limit == "terminal",
                               resumed=self.continuation.source is not None, start=self.start)
        self.keep(collector=self._collector)
        return self._collector

    @property
    def noise_rank(self) -> int:
        """The rank whose streams of random numbers this one uses: its own, or 0 where streams='same' for all."""
        return self.comm.rank if self.config.streams == "rank" else 0

    @property
    def frame_stack(self) -> int:
        """How many frames a picture that the policy sees is a stack of: those of Atari's games, 1 elsewhere."""
        stacked = self.atari is not None and self.policy.encoder.picture_shape is not None
        return self.atari.frame_stack if stacked else 1

    @property
    def horizon(self) -> int:
        """The steps over which schedules fall: all that are planned, or schedule_timesteps."""
        return self.run.schedule_timesteps or self.planned_updates * self.batch

    @property
    def remaining(self) -> float:
        """The fraction of the schedules' steps left before this update: 1 at the first, 1 / updates at the last.

        More at the last where schedule_timesteps says that the run is the beginning of a longer one.
        """
        return 1.0 - self.nupdates / (self.horizon // self.batch)

    @property
    def finished(self) -> bool:
        """True once the budget is used, the target return is reached or a rank was told to stop. Equal on all ranks."""
        return self.stop is not None

    def log(self, rollout: Rollout | Experience, stats: Mapping[str, float | Callable[[], float]],
            times: Mapping[str, float] | None = None) -> None:
        """Ends an update: counts it, evaluates where it is time, shares what the ranks must agree on, writes a row,
        decides whether to go on.

        `stats` are figures of this update by column name, or functions that find one, called where a row is written;
        their mean over ranks is logged. `times` are seconds that an algorithm's own stages took, whose shares are
        logged beside the others. One collective; one more for a row, and now and then another, which proves that the
        ranks' parameters are finite (UserError) and bitwise equal (RuntimeError).
        """
        beat()
        self.nupdates += 1
        self.total_timesteps += self.batch
        if not self._begun:  # environments may have loaded more libraries meanwhile
            self._begun = True
            self._held.enter_context(tf_setup.limited_pools(self.wanted_threads))
            if self.comm.size > 1:
                self._listen()
            self.say_forgotten(inspect.currentframe().f_back.f_locals)
        self.shares.add(env=rollout.time_env, act=rollout.time_act, **(times or {}))
        odd = next((n for n, x in stats.items() if "loss" in n and not callable(x) and not math.isfinite(x or 0)), None)
        if self.evaluations is not None and self.evaluations.due(self.nupdates):
            self._evaluate(odd)
        everyone = self.comm.gather((self._signals.number, self.continuation.rested, rollout.episodes, odd))
        signals, rested, episodes, odd = zip(*everyone, strict=True)
        finished = in_order(episodes)
        self.window.add(finished)
        told, stats = self.call_back(stats)
        self.stop = self.why_stop(max(signals), told)
        due = self.finished or (self.nupdates % self.continuation.every == 0 and rested[0])  # a checkpoint
        if self.nupdates % CHECK_EVERY == 0 or due or any(odd):
            loss = next(filter(None, odd), None)
            self.comm.together(lambda: self.continuation.check(self.nupdates, loss, everything=due))
        if self.comm.rank == 0:
            self.logger.episodes(finished)
        regular = self.nupdates % self.run.log_interval == 0
        if regular or self.finished:
            self._last_logged.note(self.total_timesteps)  # not each update: it would be 4% of a2c's time on CartPole
            figures = {name: value() if callable(value) else value for name, value in stats.items()}
            everyone = self.comm.gather((figures, self.shares.seconds))
            if self.comm.rank == 0:
                self.log_ends = None if regular else self.logger.lengths()
                self.logger.row(self.row(*zip(*everyone, strict=True)), last=self.finished)
            self.shares.begin(self.total_timesteps)
        if self.environments.unknown is not None and self.nupdates % self.renew_every == 0:
            self._collector.renew(f"environments from update {self.nupdates}")
        if due:
            if self.evaluations is None:
                self.continuation.keep_best(self.window.eprewmean)
            self.shares.add(checkpoint=self.continuation.write(self.nupdates, self.facts))

    def _evaluate(self, loss: str | None) -> None:
        """Evaluates the policy, logs that, and keeps the policy if it is the best so far. Collective.

        It must be sound: see Continuation.check for `loss`.
        """
        self.comm.together(lambda: self.continuation.check(self.nupdates, loss, everything=False))
        self._last_logged.note(self.total_timesteps)
        found = self.evaluations.after(self.nupdates)
        self.shares.add(eval=self.evaluations.seconds)
        if found is None:
            return
        if self.comm.rank == 0:
            self.logger.evaluation({**found, "total_timesteps": self.total_timesteps, "time_elapsed": self.elapsed})
        self.continuation.keep_best(found["mean"])

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._held, self.comm.guarded():
            self._leave(error)

    def _leave(self, error: BaseException | None) -> None:
        if error is None:
            try:
                self._finish()
            except KeyboardInterrupt as interruption:
                self._leave(interruption)
                raise
        else:
            self._signals.restore()
            self.explain(error)
            # No collective: others may never come to one. After what was raised on all ranks together rank 0 saves for
            # all, after anything else the rank that failed, since its end ends the others wherever they are.
            if self.comm.rank == 0 or not getattr(error, "on_all_ranks", False):
                self._last_logged.save()
            if self.comm.rank == 0:
                self.logger.close()
        if self._own_env:
            close(self.venv, at_once=error is not None and not isinstance(error, UserError))
        if error is not None:
            self.comm.fail(error)

    def _finish(self) -> None:
        """Saves the policy and says where everything lies."""
        if self.save_path:
            with paused():
                self.comm.together(lambda: self.policy.save(self.save_path), root_only=True)
        self._signals.restore()
        number = max(self.comm.gather(self._signals.number))  # one may have come after the last update
        self.policy.stopped_by = signal.Signals(number) if number else None
        self.comm.together(self.say_end, root_only=True)


def actor_critic(exp: Experiment, network_options: dict[str, Any]) -> ActorCritic:
    """The actor-critic that an experiment's ActorCriticConfig describes, for its environment's spaces."""
    cfg, run, actions = exp.config, exp.run, exp.venv.single_action_space
    action_scale = is_far_from_unit(actions) if cfg.action_scale is None else cfg.action_scale
    return ActorCritic(exp.venv.single_observation_space, actions, network=cfg.network,
                       network_options=network_options, value_network=cfg.value_network, logstd_init=cfg.logstd_init,
                       action_scale=action_scale, normalize_observations=cfg.normalize_observations,
                       normalize_rewards=cfg.normalize_rewards, reward_gamma=cfg.gamma, joined=cfg.one_optimizer,
                       seed=run.seed, compute=run.dtype)
