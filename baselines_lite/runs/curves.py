"""Runs as curves: which of them make one, and what a reader of their mean must know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from baselines_lite.common.experiment.plotting import Line, rolling_mean
from baselines_lite.common.system.errors import unknown
from baselines_lite.runs.logs import Run

Groups: TypeAlias = dict[str, dict[str, list[Run]]]  # by environment, then by label

# Options that do not change what is learned. A seed does, which is why there are several.
ASIDE = frozenset((
    "seed", "log_path", "save_path", "resume", "tensorboard", "log_interval", "print_interval", "view", "track",
    "checkpoint_interval", "checkpoint_seconds", "keep_checkpoints", "save_video_interval", "save_video_length",
    "threads", "vec", "stall_timeout", "verbose", "eval_interval", "eval_episodes", "eval_deterministic"))


def options_of(run: Run) -> dict[str, Any]:
    """What a run's config.json says of it, by option."""
    options = {}
    for part in ("run", "config", "atari", "network_options"):
        options |= run.config.get(part) or {}
    return options | {"ranks": run.ranks, "alg": run.algorithm, "env": run.env}


def group(runs: Iterable[Run], by: Sequence[str]) -> Groups:
    """Runs by environment, and by a label of what else `by` names. Raises UserError for an option that no run has."""
    groups: Groups = {}
    described = [(run, options_of(run)) for run in sorted(runs, key=lambda run: (run.env, run.algorithm))]
    known = {name for _, own in described for name in own}
    for name in by:
        if name not in known:
            raise unknown("option", name, known, list_all=False)
    for run, own in described:
        words = [run.algorithm] * ("alg" in by)
        words += [f"{name}={own.get(name)}" for name in by if name not in ("alg", "env")]
        groups.setdefault(run.env, {}).setdefault(" ".join(words) or "all", []).append(run)
    return groups


def lines(runs: Iterable[Run], x: str, window: int) -> list[Line]:
    """Each run's returns over its `x`, "steps" or "hours", smoothed over the last `window` episodes."""
    return [(getattr(run, x), run.returns if run.averaged else rolling_mean(run.returns, window)) for run in runs]


def remarks(groups: Groups, by: Sequence[str], x: str) -> list[str]:
    """Sentences about curves of runs that are not of a kind, or of which some end long before the others."""
    found, names = [], set()
    for env, curves in groups.items():
        for label, runs in curves.items():
            own = differences(options_of(run) for run in runs if run.config)
            names |= own
            seeds = [run.seed for run in runs if run.config]
            if not own and len(set(seeds)) < len(seeds):
                found.append(f"{label} on {env} has several runs of one seed, which are no independent samples")
            shortest, longest = (f(runs, key=lambda run: getattr(run, x)[-1]) for f in (min, max))
            ends = [getattr(run, x)[-1] for run in (shortest, longest)]
            if ends[0] < 0.9 * ends[1]:
                at, of = (f"{end:,.0f}" if x == "steps" else f"{end:.3g}" for end in ends)
                found.append(f"{label} on {env} ends at {at} {x} of {of}: there ends {str(shortest.folder)!r}")
    if names:
        names = sorted(names)
        found.append(f"runs of one curve differ in {', '.join(names)}: --by={','.join([*by, *names])} draws them apart")
    return found


def differences(options: Iterable[Mapping[str, Any]]) -> set[str]:
    """The options, those that count, in which some differ."""
    options = list(options)
    names = {name for each in options for name in each} - ASIDE
    return {name for name in names if len({str(each.get(name)) for each in options}) > 1}
