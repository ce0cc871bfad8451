"""Reading the logs of runs: our own, those of OpenAI Baselines, and those of Stable-Baselines3."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from baselines_lite.common.experiment.plotting import MONITOR, finite, header_of, read_columns, read_monitor, steps_of
from baselines_lite.common.system.errors import UserError

# Steps, mean return and seconds in a progress.csv: ours; the original's ppo2, a2c; ppo1, trpo_mpi; deepq; ddpg; and
# Stable-Baselines3's.
PROGRESS = (
    ("total_timesteps", "eprewmean", "time_elapsed"),
    ("misc/total_timesteps", "eprewmean", "misc/time_elapsed"),
    ("total_timesteps", "eprewmean", None),
    ("TimestepsSoFar", "EpRewMean", "TimeElapsed"),
    ("steps", "mean 100 episode reward", None),
    ("total/steps", "rollout/return_history", "total/duration"),
    ("time/total_timesteps", "rollout/ep_rew_mean", "time/time_elapsed"),
)


@dataclasses.dataclass(frozen=True)
class Run:
    """One run's log. E is 0 where no episode has finished yet.

    Of others' logs, which do not say it, algorithm and seed are read from the names of folders: ppo2-0, ppo/seed0,
    ppo/CartPole-v1_1.
    """

    folder: Path
    algorithm: str
    env: str
    seed: int | None
    ranks: int
    steps: np.ndarray  # [E] environment steps, over all ranks and environments, when an episode ended
    returns: np.ndarray  # [E] raw returns
    hours: np.ndarray  # [E] since the run began; NaN where the log has no clock
    averaged: bool  # whether there is only a progress.csv, whose returns are means of about 100 episodes already
    config: dict[str, Any]  # config.json
    evaluations: np.ndarray  # [K, 4] total_timesteps, mean, std_error, episodes


def find_runs(paths: Iterable[str | Path]) -> list[Run]:
    """The runs of all paths, each once: a run's folder, one that holds such at any depth, or a log file.

    What is in a run's folder belongs to it, its files too where they are named beside it, and what it has moved to
    previous-N is left out, unless it is named. Raises UserError for a path where there is none.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise UserError(f"there is no folder or file {str(path)!r}")
        logs = [path] if path.is_file() else list(folders_with_logs(path))
        if not logs:
            raise UserError(f"there is no log of a run in {str(path)!r}: no *monitor.csv, no progress.csv")
        for log in logs:
            found.setdefault(log.resolve(), log)
    monitored = {path.parent for path in found if path.name.endswith("monitor.csv")}
    return [read_run(log) for path, log in found.items()
            if path.parent not in found and not (path.name == "progress.csv" and path.parent in monitored)]


def folders_with_logs(folder: Path) -> Iterator[Path]:
    """The folder itself where it is a run's, else those below it, in the order of their names."""
    seen: set[str] = set()  # links may lead in circles
    for root, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(root)) in seen:
            folders.clear()
            continue
        seen.add(real)
        if any(name.endswith("monitor.csv") or name == "progress.csv" for name in files):
            folders.clear()
            yield Path(root)
        folders[:] = sorted(name for name in folders if not re.fullmatch(r"previous-\d+", name))


def read_run(path: str | Path) -> Run:
    """The run whose log is in a folder, or is this one file of it. Raises UserError where there is no log to read."""
    path = Path(path)
    try:
        return _read(path)
    except OSError as error:
        raise UserError(f"cannot read {error.filename or str(path)!r}: {error.strerror}") from None


def _read(path: Path) -> Run:
    folder = path.parent if path.is_file() else path
    files = [path] if path.is_file() else sorted(path.glob("*monitor.csv")) or [path / "progress.csv"]
    for file in files:
        if not is_log(file):
            raise UserError(f"{str(file)!r} is no log of a run: it has not the columns of a monitor.csv (r, l, t) or a "
                            "progress.csv")
    averaged = files[0].name == "progress.csv"
    env, steps, returns, seconds = (None, *read_progress(files[0])) if averaged else merged(files)
    config = read_config(folder / "config.json")
    env = str(config.get("env") or env or "unknown environment")
    algorithm, seed = names_of(folder, env)
    evaluations = folder / "evaluations.csv"
    return Run(
        folder, config.get("algorithm", algorithm), env, config.get("run", {}).get("seed", seed),
        config.get("ranks", 1), steps, returns, np.maximum.accumulate(seconds) / 3600, averaged, config,
        read_columns(evaluations, ("total_timesteps", "mean", "std_error", "episodes")) if evaluations.is_file()
        else np.empty((0, 4)))


def is_log(path: Path) -> bool:
    """Whether a file has the columns of a log, or none yet: a CSV file that was made a moment ago."""
    if not (columns := header_of(path)):
        return path.suffix == ".csv"
    known = PROGRESS if path.name == "progress.csv" else (MONITOR,)
    return any({name for name in names if name} <= set(columns) for names in known)


def merged(files: list[Path]) -> tuple[str | None, np.ndarray, np.ndarray, np.ndarray]:
    """(environment, steps [E], returns [E], seconds [E]) of a run's monitor files, one per rank or environment.

    Several are put in the order of their clocks. Steps are those of the finished episodes of all.
    """
    headers, tables = zip(*map(read_monitor, files), strict=True)
    known = (header.get("env_id") for header in headers)  # "None" is Stable-Baselines3's for one without an id
    env = next((name for name in known if name not in (None, "None")), None)
    if len(files) == 1:
        steps = steps_of(tables[0][:, 1], files[0].with_name("progress.csv"))
        returns, _, seconds = tables[0][: len(steps)].T
        return env, steps, returns, seconds
    starts = np.array([float(header.get("t_start") or 0.0) for header in headers])
    for table, late in zip(tables, starts - starts.min(), strict=True):
        table[:, 2] += late
    table = np.concatenate(tables)
    returns, lengths, seconds = table[np.argsort(table[:, 2], kind="stable")].T
    return env, np.cumsum(lengths), returns, seconds


def read_progress(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(steps, mean returns, seconds) [rows] of a progress.csv of any of the known makers; seconds NaN where unknown."""
    for steps, returns, seconds in PROGRESS:
        table = finite(read_columns(path, [name for name in (steps, returns, seconds) if name]))
        if len(table):
            return table[:, 0], table[:, 1], table[:, 2] if seconds else np.full(len(table), np.nan)
    return np.empty(0), np.empty(0), np.empty(0)


def read_config(path: Path) -> dict[str, Any]:
    """Our config.json; {} where there is none, or another's."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    ours = isinstance(config, dict) and isinstance(config.get("algorithm", ""), str) and all(
        isinstance(config.get(part, {}), dict) for part in ("run", "config", "network_options"))
    return config if ours else {}


def names_of(folder: Path, env: str) -> tuple[str, int | None]:
    """The algorithm and the seed as the names of a folder and of the one around it tell them."""
    folder, number = folder.resolve(), re.compile(r"(?:^|[-_])(?:seed[-_]?)?(\d+)$")
    seed = number.search(folder.name)
    names = (number.sub("", each.name).removesuffix(env).rstrip("-_") for each in (folder, folder.parent))
    return next(filter(None, names), "unknown"), int(seed[1]) if seed else None
