"""What a run says of itself: at its start, in a row of its log, at its end."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from baselines_lite.common.envs.episode_stats import EpisodeWindow
from baselines_lite.common.envs.workers import failed
from baselines_lite.common.experiment.evaluation import play_command
from baselines_lite.common.experiment.logger import as_json
from baselines_lite.common.experiment.plotting import plot_run
from baselines_lite.common.experiment.resume import elsewhere, plain_options
from baselines_lite.common.networks.distributions import is_far_from_unit
from baselines_lite.common.networks.observations import brief
from baselines_lite.common.networks.options import BUILT_IN
from baselines_lite.common.networks.parameters import weights
from baselines_lite.common.policies.policy import Policy
from baselines_lite.common.system import tf_setup
from baselines_lite.common.system.errors import UserError, counted
from baselines_lite.common.system.mpi import Comm
from baselines_lite.common.system.options import to_dict

COLUMNS = ("total_timesteps", "nupdates", "time_elapsed", "sps", "eprewmean", "eplenmean", "episodes")  # of each run


@dataclasses.dataclass(frozen=True)
class AfterUpdate:
    """What a callback is told once an update has ended. Counts are over all ranks, `figures` this rank's."""

    nupdates: int
    total_timesteps: int
    policy: Policy
    rank: int
    stats: Mapping[str, Any]  # figures of the update, or functions that find them
    window: EpisodeWindow  # the last 100 episodes of all ranks
    evaluation: float | None  # the mean return of the last evaluation

    @functools.cached_property
    def figures(self) -> dict[str, float | None]:
        """The columns of progress.csv, as far as they are known: returns are None before an episode has ended.

        What a callback writes into it is logged, as the mean over the ranks that do: a column of its own, from the
        first row on. None is an empty cell.
        """
        return dict(self._found)

    @functools.cached_property
    def _found(self) -> dict[str, float | None]:
        return {"eprewmean": self.window.eprewmean, "eplenmean": self.window.eplenmean, "episodes": self.window.count,
                **{name: value() if callable(value) else value for name, value in self.stats.items()}}

    def written(self) -> dict[str, float | None]:
        """What the callback has written into `figures`. Raises UserError for what can be no column, or no number."""
        written = {}
        for name, value in vars(self).get("figures", {}).items():
            if name in self._found and value is self._found[name]:
                continue
            if name in self._found or name in COLUMNS or str(name).startswith("share_"):
                raise UserError(f"{name} is a figure of the run's own: the callback's needs another name")
            if not isinstance(name, str) or not name.isprintable() or set(name) & {",", '"'}:
                raise UserError(f"the callback's figure {name!r} needs a text without commas and quotes as its name")
            try:
                written[name] = None if value is None else float(value)
            except (TypeError, ValueError):
                raise UserError(f"the callback's figure {name!r} must be a number, not {value!r}") from None
        return written


def without_callback(options: Mapping[str, Any]) -> tuple[dict[str, Any], Callable[[AfterUpdate], Any] | None]:
    """The options without `callback`, and that. Raises UserError for one that cannot be called."""
    options = dict(options)
    callback = options.pop("callback", None)
    if callback is not None and not callable(callback):
        raise UserError(f"callback must be a function of an AfterUpdate, not {callback!r}")
    return options, callback


class Shares:
    """Seconds by stage since a row was begun, on this rank: env, act, comm, checkpoint, others, an algorithm's own."""

    def __init__(self, comm: Comm, *others: str) -> None:
        self._comm, self._stages = comm, ("env", "act", "comm", "checkpoint", *others)
        self.begin(0)

    def begin(self, total_timesteps: int) -> None:
        """Begins a row after that many steps."""
        self._start, self._steps, self._before = time.perf_counter(), total_timesteps, self._comm.seconds
        self.seconds = dict.fromkeys(self._stages, 0.0)

    def add(self, **seconds: float) -> None:
        """Takes in what stages took."""
        self.seconds["comm"] = self._comm.seconds - self._before
        for name, value in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value

    def columns(self, everyone: Sequence[Mapping[str, float]], total_timesteps: int) -> dict[str, float]:
        """A row's steps per second and shares, from the `seconds` of all ranks."""
        elapsed = time.perf_counter() - self._start
        shares = {f"share_{name}": float(np.mean([s[name] for s in everyone])) / elapsed for name in everyone[0]}
        shares["share_update"] = max(0.0, 1.0 - sum(shares.values()))
        return {"sps": (total_timesteps - self._steps) / elapsed, **shares}


class Report:
    """The part of an Experiment that has its words."""

    def describe(self) -> dict[str, Any]:
        """What config.json says of the run."""
        return {"algorithm": self.algorithm, "env": self.env_name, "family": self.family, "run": to_dict(self.run),
                "config": to_dict(self.config), "atari": self.policy.info["atari"],
                "network_options": self.policy.network_options, "ranks": self.comm.size, "hosts": self.comm.hosts,
                "threads": self.threads}

    def settings(self) -> dict[str, Any]:
        """What the run depends on by name, as a manifest gives it back."""
        settings = to_dict(self.run) | to_dict(self.config) | self.policy.network_options | {
            "atari": self.policy.info["atari"], "algorithm": self.algorithm, "env": self.env_name,
            "ranks": self.comm.size}
        return json.loads(json.dumps(settings, default=as_json))

    def facts(self) -> dict[str, Any]:
        """What a checkpoint's manifest says of the run. Raises OSError where the log's rows do not reach the disk."""
        self.logger.sync()
        return {"algorithm": self.algorithm, "env": self.env_name, "given": plain_options(self.given),
                "settings": self.settings(), "renew_every": self.renew_every, "time_elapsed": self.elapsed,
                "place": self.place(), "logs": self.log_ends or self.logger.lengths()}

    def place(self) -> dict[str, Any]:
        """What the last digits of the run's numbers may depend on, by name."""
        return {"threads": self.threads, "processor": tf_setup.processor(), **self.policy.info["versions"]}

    @property
    def elapsed(self) -> float:
        """Seconds since the run began, without those between its parts."""
        return time.perf_counter() - self.start

    def why_stop(self, signal_number: int, told: bool = False) -> str | None:
        """Why the run ends now: `told` is whether its callback said so. None: it goes on."""
        target, window = self.run.target_return, self.window
        mean = (window.eprewmean if window.full else None) if self.evaluations is None else self.evaluations.mean
        if signal_number:
            return f"stopped by {signal.Signals(signal_number).name}"
        if target is not None and mean is not None and mean >= target:
            return f"reached the target return {target:g}"
        if told:
            return "was stopped by its callback"
        if self.nupdates >= self.planned_updates:  # more: it goes on with a smaller budget
            return "used the whole budget"
        return "is not run" if self.run.dry_run else None

    def call_back(self, stats: Mapping[str, Any]) -> tuple[bool, Mapping[str, Any]]:
        """Tells the callback of the update. Collective.

        Whether it said, on any rank, that the run is to end; and the update's figures with those that it has written.
        """
        if self.callback is None:
            return False, stats
        after = AfterUpdate(self.nupdates, self.total_timesteps, self.policy, self.comm.rank, stats, self.window,
                            self.evaluations and self.evaluations.mean)
        told = self.callback(after)
        return any(self.comm.gather(bool(told))), {**stats, **after.written()}

    def say_start(self) -> None:
        """Says what begins, and what is unusual about it."""
        comm, say = self.comm, self.logger.say
        say(f"{self.algorithm} on {self.env_name} ({self.family}): {counted(comm.size, 'rank')} on "
            f"{counted(comm.hosts, 'host')}, {counted(self.threads, 'thread')} each; "
            f"{self.config.describe_batch(comm.size)}; {counted(self.planned_updates, 'update')}, "
            f"{self.planned_updates * self.batch} steps")
        if self.threads != self.wanted_threads:
            say(f"TensorFlow was already running, with threads={self.threads}: it keeps them, and its GPU; "
                f"threads={self.wanted_threads} takes a process of its own")
        if self.atari is not None:
            from baselines_lite.common.envs.atari import describe

            say(describe(self.atari))
        if self.buffer is not None:
            say(f"replay buffer: {self.buffer.nbytes / 1e9:.2f} GB per rank when it is full"
                + (", and as much on disk for checkpoints" if self.log_path else ""))
        if self.environments.unknown is not None:
            say(f"the state of {self.environments.unknown} cannot be kept: environments begin anew each "
                f"{counted(self.renew_every, 'update')}, with seeds of their own, so that a run which is stopped and "
                "goes on is the same")
        scaled = self.policy.settings.get("action_scale")  # None: a policy that knows no such thing
        if scaled is not None and is_far_from_unit(self.policy.action_space):
            say("the actions' bounds are far from -1 and 1, where a policy begins: "
                + ("its actions are brought to them; action_scale=false clips them instead" if scaled
                   else "its actions are only clipped; action_scale=true brings them there"))
        if self.run.dtype == "bfloat16" and not tf_setup.gains_from_bfloat16():
            say("dtype=bfloat16: this processor has no bfloat16 instructions (avx512_bf16, amx_bf16), so that it gains "
                "nothing from it and may lose")
        if self.run.dry_run:
            self.say_plan()

    def say_plan(self) -> None:
        """Says what the run is told and from where, what the policy sees, does and is made of, and what it takes."""
        policy, cfg = self.policy, self.config
        usual = type(self.run)()
        told = {k: v for k, v in vars(self.run).items() if v != getattr(usual, k) or k in ("seed", "num_timesteps")}
        usual = to_dict(BUILT_IN[policy.network]()) if policy.network in BUILT_IN else {}
        told |= {**to_dict(cfg), **usual, **policy.network_options, **(policy.info["atari"] or {})}
        rows = [(name, str(value), "given" if name in self.given else "preset" if name in self.preset else "default")
                for name, value in told.items()]
        widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
        lines = [f"  {name:{widths[0]}}  {value:{widths[1]}}  {source}".rstrip() for name, value, source in rows]
        parts: dict[str, int] = {}
        for path, weight in weights(policy).items():
            part = path.partition("/")[0]
            parts[part] = parts.get(part, 0) + int(np.prod(weight.shape))
        features = policy.encoder.shape
        nbytes = np.dtype(policy.encoder.dtype).itemsize * math.prod(features) * cfg.num_env * cfg.nsteps
        lines += [f"observations: {brief(policy.observation_space)}, which networks see as "
                  f"{' x '.join(map(str, features))} numbers",
                  f"actions: {brief(policy.action_space)}",
                  f"parameters: {sum(parts.values()):,} ("
                  + ", ".join(f"{part} {count:,}" for part, count in parts.items()) + ")",
                  f"an update's observations take {nbytes / 1e6:.1f} MB on each rank"]
        self.logger.say("\n".join(lines))

    def say_going_on(self, lost: int, place: Any) -> None:
        """Says from where the run goes on: with so many rows fewer, and from what `place`."""
        self.logger.say(f"goes on after update {self.nupdates}, {self.total_timesteps:,} steps; "
                        f"{counted(lost, 'row')} of the log behind it cut off")
        for line in elsewhere(place, self.place()):
            self.logger.say(line)

    def say_signal(self, number: signal.Signals) -> None:
        """Says what a signal will do."""
        if self.comm.rank == 0:
            self.logger.say(f"{number.name}: the run stops after this update; a second one ends it at once")

    def say_forgotten(self, loop: Mapping[str, Any]) -> None:
        """Says what a run that goes on would not have again, although it has a state; see Continuation.forgotten."""
        if self.comm.rank == 0 and self.log_path is not None and (forgotten := self.continuation.forgotten(loop)):
            self.logger.say(f"checkpoints leave out what nobody keeps: {', '.join(forgotten)}. Name it in "
                            "exp.keep(...), or a run that is stopped and goes on is another one")

    def explain(self, error: BaseException) -> None:
        """Adds to an exception which environment raised it, if one did; says of an exit what would be silent."""
        if self.comm.size == 1 and isinstance(error, SystemExit) and not error.code:
            error.code = 1
            print(f"the run ends early, after update {self.nupdates}: something in it called sys.exit()",
                  file=sys.stderr, flush=True)
        where = None if isinstance(error, UserError | KeyboardInterrupt) else self.where(failed, error)
        if where:
            error.add_note(f"This came from {where} of rank {self.comm.rank}.")

    def where(self, find: Callable[[VectorEnv, Any], str | None], trace: Any) -> str | None:
        """The environment that `find` finds in a trace: of those of the evaluation, while there is one."""
        evaluated = None if self.evaluations is None else self.evaluations.venv
        found = find(self.venv if evaluated is None else evaluated, trace)
        return found if found is None or evaluated is None else f"{found} of the evaluation"

    def row(self, figures: Sequence[Mapping[str, float]], seconds: Sequence[Mapping[str, float]]) -> dict[str, Any]:
        """A row of the log, from the figures and `Shares.seconds` of all ranks."""
        shares = self.shares.columns(seconds, self.total_timesteps)
        values = {name: [f[name] for f in figures if f.get(name) is not None] for each in figures for name in each}
        own = (self.total_timesteps, self.nupdates, self.elapsed, shares.pop("sps"), self.window.eprewmean,
               self.window.eplenmean, self.window.count)
        return {**dict(zip(COLUMNS, own, strict=True)),
                **{name: float(np.mean(found)) if found else None for name, found in values.items()}, **shares}

    def say_end(self) -> None:
        """Says why the run ended, and where everything lies; draws its curve."""
        mean = self.window.eprewmean
        self.logger.close()
        if self.run.dry_run:
            return
        lines = [f"{self.algorithm} {self.stop} after {self.total_timesteps:,} steps in {self.elapsed:.1f} s; mean "
                 "return " + ("unknown: no episode has finished" if mean is None
                    else f"{mean:.1f} over the last {len(self.window.last)} episodes")]
        if self.log_path is not None:
            curve = self.log_path / "curve.png"
            lines += [f"log:   {self.shown(self.log_path / 'progress.csv')}", f"curve: {self.shown(curve)}"]
            try:
                plot_run(self.log_path, curve, f"{self.algorithm} on {self.env_name}")
            except OSError as error:
                lines[-1] = f"curve: not drawn: {error.strerror or error}"
        if self.save_path:
            model = self.shown(self.save_path)
            lines += [f"model: {model}", f"play:  {play_command(self.policy, model)}"]
        self.logger.say("\n".join(lines))

    def shown(self, path: str | Path) -> str:
        """A path as from the folder in which the run was started, if it lies there."""
        return str(path).removeprefix(os.path.join(self.origin, ""))
