"""Going on with a run that was stopped: what it was told, and whether it is told the same now. No TensorFlow here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from baselines_lite.common.system.errors import UserError
from baselines_lite.common.system.options import FilePath, Json, convert
from baselines_lite.common.system.schedules import Schedule

FOLDER = "checkpoints"  # below that of the log
# Options on which nothing depends that is trained.
FREE = {"resume", "log_path", "save_path", "load_path", "log_interval", "print_interval", "tensorboard", "threads",
        "verbose", "checkpoint_interval", "checkpoint_seconds", "keep_checkpoints", "save_video_interval",
        "save_video_length", "target_return", "stall_timeout", "dry_run", "view", "track"}


def asked(options: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """The folder of the log of the run that is to go on and what its checkpoints say of it; None for a new run.

    Raises UserError where there is none.
    """
    folder, log_path = (convert(name, FilePath | None, options.get(name)) for name in ("resume", "log_path"))
    if folder is None:
        return None
    if convert("dry_run", bool, options.get("dry_run", False)):
        raise UserError("dry_run says what a new run would be: leave resume away")
    if folder == "auto":
        if log_path is None:
            raise UserError("resume=auto needs log_path, the folder in which the run starts or goes on")
        folder = log_path
    elif log_path is not None and Path(log_path).resolve() != Path(folder).resolve():
        raise UserError(f"resume={folder} goes on in that folder: leave log_path={log_path} away")
    facts = facts_of(Path(folder))
    if facts is None and options["resume"] != "auto":
        raise UserError(f"there is no checkpoint in {str(folder)!r}, which a run writes below the folder of its log")
    return facts and (str(folder), facts)


def facts_of(folder: Path) -> dict[str, Any] | None:
    """What the newest readable manifest in a log's folder says of its run."""
    for path in sorted(folder.glob(f"{FOLDER}/{'[0-9]' * 8}/manifest.json"), reverse=True):
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            given, settings = dict(facts["given"]), dict(facts["settings"])
            kinds = {"algorithm": str, "env": str, "num_timesteps": int}
            if all(isinstance(settings[name], kind) for name, kind in kinds.items()):
                return {"given": given, "settings": settings}
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            continue
    return None


def with_given(options: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a run that goes on: as now given, and as they were given to it at first."""
    for name, value in facts["given"].items():
        if name not in options and isinstance(value, str) and ":" in value and name in ("network", "env", "track"):
            raise trusted(name, value)
    if "env_kwargs" not in options and Json(facts["given"].get("env_kwargs") or "{}").has_text:
        raise UserError(f"the run that is to go on has env_kwargs={facts['given']['env_kwargs']}, with text in it, a "
                        "path say: if you trust it, give --env_kwargs again")
    return {**facts["given"], **options}


def trusted(name: str, value: str) -> UserError:
    """The error of a name that would import a module which nobody has named now."""
    return UserError(f"the run that is to go on has {name}={value}, which imports a module: if you trust it, give "
                     f"--{name}={value} again")


def depends_on_budget(config: Any) -> bool:
    """Whether what an algorithm does at an update depends on how many there will be."""
    return config.uses_budget or any(isinstance(value, Schedule) and value.falls for value in vars(config).values())


def check_same(then: Mapping[str, Any], now: Mapping[str, Any], config: Any) -> list[str]:
    """Raises UserError where a run that goes on would be another; what is only to be said.

    `then` and `now` are what the run depends on by name: options, and what they are given to. `config` is that of its
    algorithm.
    """
    first = ("algorithm", "env", "ranks")  # on which the others depend
    for name in (*first, *sorted({*then, *now} - FREE - {"num_timesteps", *first})):
        if then.get(name) != now.get(name):
            remedy = f"start it with mpirun -np {then.get(name)}" if name == "ranks" else "leave it away"
            raise UserError(f"the run that is to go on has {name}={then.get(name)}, not {now.get(name)}: {remedy}, or "
                            "begin another run")
    if bool(then.get("save_video_interval")) != bool(now.get("save_video_interval")):
        raise UserError("the run that is to go on was begun with" + "out" * (not then.get("save_video_interval"))
                        + " save_video_interval, by which environments run in processes of their own: leave that as it "
                        "was, or begin another run")
    before, after = then["num_timesteps"], now["num_timesteps"]
    if after == before:
        return []
    if now["schedule_timesteps"] is None and depends_on_budget(config):
        raise UserError(f"the run that is to go on has num_timesteps={before}, not {after}, and schedules that fall "
                        "until then: leave it away, or begin another run with load_path, from this one's policy (to be "
                        "extended, a run must be begun with schedule_timesteps)")
    return [f"num_timesteps is {after:,} now, instead of {before:,}"]


def elsewhere(then: Any, now: Mapping[str, Any]) -> list[str]:
    """What is to be said of a run that goes on in another place: other versions, another processor.

    `then` and `now` are `Report.place`; what a manifest says `then` may be anything.
    """
    then = then if isinstance(then, Mapping) else {}
    other = [f"{name} {now.get(name)} instead of {then.get(name)}" for name in sorted({*then, *now})
             if then.get(name) != now.get(name)]
    return [f"it goes on with {', '.join(other)}: its numbers may differ in the last digits"] if other else []


def plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as a manifest holds them: text and numbers; others must be given again."""
    if isinstance(options.get("env_kwargs"), Mapping):
        options = {**options, "env_kwargs": Json(options["env_kwargs"])}
    plain = {name: value.item() if isinstance(value, np.generic) else str(value) if isinstance(value, Path) else value
             for name, value in options.items() if name not in ("resume", "log_path", "load_path")}
    return {name: value for name, value in plain.items()
            if value is None or isinstance(value, bool | int | float | str)}
