"""Sweeps: every combination of algorithms, environments, options and seeds is run, and a table made of the results.

    baselines-lite sweep --alg=ppo2,a2c --env=CartPole-v1 --seeds=0-4 --lr=1e-4,3e-4 --jobs=2 --out=results
    baselines-lite sweep --merge=shard1,shard2 --out=all
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import shutil
import sys
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from baselines_lite import registry
from baselines_lite.command_line import CommandOptions, complete, option_types, parse
from baselines_lite.common.system.errors import UserError, counted, unknown
from baselines_lite.common.system.mpi import launched_size
from baselines_lite.common.system.options import FilePath, Text, option, option_table, override
from baselines_lite.runs.jobs import Job, codes_of
from baselines_lite.runs.runner import Runner, read_json, results, say, state_of
from baselines_lite.runs.table import print_table, write_table


@dataclasses.dataclass(frozen=True)
class SweepOptions:
    """What only a sweep knows. All other flags are those of runs."""

    alg: str = option("ppo2", "algorithms, separated by commas")
    env: str | None = option(None, "Gymnasium ids, separated by commas")
    seeds: str = option("0", "such as 0-4 or 0,3,7")
    ranks: int = option(1, "MPI processes of each run, which mpirun starts", low=1)
    jobs: int = option(1, "runs at a time; each has its share of the cores", low=1)
    out: FilePath | None = option(None, "folder of the results")
    shard: str | None = option(None, "3/16: of the runs, dealt out in turn, only the third sixteenth")
    merge: str | None = option(None, "folders, separated by commas, whose results are to be brought together in --out")
    dry_run: bool = option(False, "only list the commands of the runs, and what is to be done about each")
    help: bool = option(False, "print this text")


MANY = 100_000  # seeds that nobody means

# Flags of a run that a sweep gives, or that make no sense in one, and what to give instead.
INSTEAD = {"seed": "give --seeds", "log_path": "give --out", "resume": "it goes on by itself",
           "save_path": "each model lies in its run's folder"}


def main(arguments: Sequence[str]) -> int:
    """Runs the command `sweep`; the exit status is that of Runner.run. Raises UserError."""
    flags = complete(parse(arguments), SweepOptions)
    options = override(SweepOptions(), {k: v for k, v in flags.items() if k in SweepOptions.__dataclass_fields__})
    if options.help:
        print(help_text())
        return 0
    if launched_size() > 1:
        raise UserError("a sweep is one process, which starts several ranks for each run itself: give --ranks, without "
                        "mpirun")
    if options.out is None:
        raise UserError("where to? Give --out=FOLDER; the same command goes on there")
    out, rest = Path(options.out), {k: v for k, v in flags.items() if k not in SweepOptions.__dataclass_fields__}
    if options.merge is not None:
        if others := sorted(flags.keys() - {"merge", "out"}):
            raise UserError(f"--{others[0]} has no meaning with --merge, which takes --out alone")
        tabulate(merge([Path(folder).expanduser() for folder in split("merge", options.merge)], out), out)
        return 0
    jobs = combinations(options, rest)
    part = jobs if options.shard is None else shard(jobs, options.shard)
    if options.dry_run:
        for job in part:
            job.resolved()
        for job, code in zip(part, codes_of(part).values(), strict=True):
            print(f"{job.command}  # {state_of(job, out, code)}")
        return 0
    status = Runner(part, out, options.jobs).run()
    tabulate(results(jobs, out), out)
    return status


def combinations(options: SweepOptions, flags: Mapping[str, str | None]) -> list[Job]:
    """The jobs of every combination. Raises UserError for what cannot be meant.

    An option that only some of the algorithms have is theirs alone.
    """
    if options.env is None:
        raise UserError("which environments? Give --env=ID,ID, for example --env=CartPole-v1")
    algorithms = {name: registry.find(name) for name in split("alg", options.alg)}
    for name in flags:
        if name in INSTEAD or name in CommandOptions.__dataclass_fields__:
            raise UserError(f"--{name} has no meaning in a sweep{f': {INSTEAD[name]}' if name in INSTEAD else ''}")
    known = {alg: {field for kind in option_types(module) for field in kind.__dataclass_fields__}
             for alg, module in algorithms.items()}
    own_network = ":" in (flags.get("network") or "")  # whose options are not known here
    theirs = set().union(*known.values())
    for name in flags:
        if name not in theirs and not own_network:
            every = theirs | SweepOptions.__dataclass_fields__.keys()
            raise unknown("flag", f"--{name}", [f"--{each}" for each in every], list_all=False)
    jobs = []
    for alg, module in algorithms.items():
        values = {name: alternatives(name, "true" if text is None else text, module)
                  for name, text in complete(flags, *option_types(module)).items()
                  if name in known[alg] or name not in theirs}
        if missing := [f"--{name}" for name in flags if name not in values]:
            print(f"{alg} has no {', '.join(missing)}: it runs without", file=sys.stderr, flush=True)
        for env in split("env", options.env):
            for chosen in itertools.product(*values.values()):
                jobs += [Job(alg, env, dict(zip(values, chosen)), options.ranks, seed)
                         for seed in seeds_of(options.seeds)]
    return jobs


def split(name: str, text: str, at: str = ",") -> list[str]:
    """The parts of a flag's text. Raises UserError for an empty one and for one that is there twice (1e-3, 0.001)."""
    parts = [part.strip() for part in text.split(at)]
    meant = [number(part) for part in parts]
    for part in parts:
        if not part:
            raise UserError(f"--{name}={text} has an empty part")
        if meant.count(number(part)) > 1:
            raise UserError(f"--{name}={text} has {part} twice")
    return parts


def number(text: str) -> float | str:
    """The number that a text is, or else the text."""
    try:
        return float(text)
    except ValueError:
        return text


def alternatives(name: str, text: str, algorithm: ModuleType) -> list[str]:
    """The values of an option, separated by commas; by semicolons where the option itself takes a list."""
    if ";" in text:
        return split(name, text, ";")
    for kind in option_types(algorithm):
        hint = typing.get_type_hints(kind).get(name)
        if any(isinstance(each, type) and issubclass(each, Text) for each in (hint, *typing.get_args(hint))):
            return [text]
    return split(name, text)


def seeds_of(text: str) -> list[int]:
    """The seeds that 0-4 or 0,3,7 means. Raises UserError."""
    seeds: list[int] = []
    for part in split("seeds", text):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        found = range(int(match[1]), int(match[2] or match[1]) + 1) if match else range(0)
        if not found:
            raise UserError(f"--seeds must be such as 0-4 or 0,3,7, not {text}")
        if len(seeds) + len(found) > MANY:
            raise UserError(f"--seeds={text} are more than {MANY:,}")
        seeds += found
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds={text} has a seed twice")
    return seeds


def shard(jobs: Sequence[Job], text: str) -> list[Job]:
    """The part of the jobs that 3/16 means. Raises UserError."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--shard must be such as 3/16, from 1/16 to 16/16, not {text}")
    return list(jobs[int(match[1]) - 1 :: int(match[2])])


def merge(folders: Sequence[Path], out: Path) -> list[dict[str, Any]]:
    """Copies the finished runs below some folders to `out`, without their checkpoints; all results that are there then.

    Raises UserError, before anything is copied, where two differ which are of the same job.
    """
    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    for folder in (out, *folders):
        if not folder.is_dir() and folder != out:
            raise UserError(f"there is no folder {str(folder)!r} to merge")
        for path in sorted(folder.glob("*/*/result.json")):
            result = read_json(path) or {}
            try:
                name, code = Job(**result["job"]).name, result["code"]["sha256"]
            except (KeyError, TypeError, AttributeError):
                say(f"left out: {str(path)!r} is damaged, or no result of a sweep")
                continue
            if path.parent != folder / name:
                continue  # it was moved
            place, known = found.setdefault(name, (path.parent, result))
            for what, same in (("code", known["code"]["sha256"] == code),
                               ("result", comparable(known) == comparable(result))):
                if not same:
                    raise UserError(f"{str(place)!r} and {str(path.parent)!r} are one run with another {what} each: "
                                    "leave one of them out")
    if not found:
        raise UserError(f"there is no result of a sweep in {', '.join(repr(str(folder)) for folder in folders)}")
    new = {name: path for name, (path, _) in found.items() if path != out / name}
    for name in new:
        if (out / name).exists():
            raise UserError(f"{str(out / name)!r} has not come to its end, but {str(new[name])!r} has: move it away")
    for name, path in new.items():
        part = out / f"{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(path, part, ignore=shutil.ignore_patterns("checkpoints", ".*"))
        part.rename(out / name)
    say(f"{counted(len(found), 'result')} in {str(out)!r}, {len(new)} of them new")
    return [result for _, result in found.values()]


def comparable(result: Mapping[str, Any]) -> dict[str, Any]:
    """What is the same in two results of the same job and code."""
    return {name: result.get(name) for name in ("steps", "score", "episodes", "evaluation")}


def tabulate(found: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Prints the table of some results, and writes it to table.csv and table.md."""
    if found:
        write_table(found, out)
        print_table(found)
        say(f"table: {out / 'table.csv'}, {out / 'table.md'}")
    else:  # those that are there are of results that are old
        for name in ("table.csv", "table.md"):
            (out / name).unlink(missing_ok=True)


def help_text() -> str:
    """What `sweep --help` prints."""
    return "\n".join([
        "usage: baselines-lite sweep --alg=NAME,NAME --env=ID,ID --seeds=0-4 [--FLAG=VALUE,VALUE ...] --jobs=N "
        "--out=FOLDER",
        "       baselines-lite sweep --merge=FOLDER,FOLDER --out=FOLDER",
        "",
        "Runs every combination, and makes a table of the results. Any flag of runs takes values separated by commas,",
        "or by semicolons where a value has commas itself: --sizes='64,64;400,300'. However it was stopped, the same",
        "command goes on; results of other code, or by another configuration, are moved aside and made anew.",
        "",
        option_table(SweepOptions()),
        "",
        "baselines-lite --alg=NAME --help lists the flags of runs."])
