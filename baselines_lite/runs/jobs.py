"""A run as something to be done: what it is told, what it is called, and the code that it executes."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import site
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from baselines_lite import registry
from baselines_lite.command_line import check_before_loading, known_options
from baselines_lite.common.experiment.config import Resolved
from baselines_lite.common.experiment.logger import provenance
from baselines_lite.common.networks.options import BUILT_IN
from baselines_lite.common.system.errors import UserError
from baselines_lite.common.system.options import rules_of
from baselines_lite.common.system.version import __version__

PACKAGE = Path(__file__).resolve().parent.parent
# What starts a run: of this very package, whatever the current folder holds.
START = (sys.executable, "-P", "-m", "baselines_lite.run")


@dataclasses.dataclass(frozen=True)
class Job:
    """One run: an algorithm in an environment with flags (names and texts) on some ranks, from one seed."""

    alg: str
    env: str
    flags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ranks: int = 1
    seed: int = 0

    @property
    def key(self) -> dict[str, Any]:
        """What makes this job another than others, as JSON has it: two are one where their keys are equal."""
        return {**dataclasses.asdict(self), "flags": dict(sorted(self.flags.items()))}

    @property
    def name(self) -> str:
        """Its folder: `ppo2-CartPole-v1-lr=1e-4/seed0`. Safe characters, and another one for each other job.

        What is too long or has other characters is told apart by a digest at its end.
        """
        varied = [f"{name}={value}" for name, value in self.key["flags"].items()]
        parts = [self.alg, self.env, *varied, *([f"ranks={self.ranks}"] if self.ranks > 1 else [])]
        whole = "-".join(parts)
        name = re.sub(r"[^A-Za-z0-9_.=+-]+", "_", "-".join([self.alg, self.env.rpartition(":")[2], *parts[2:]]))[:100]
        if name != whole or "-" in self.alg or name.count("=") != len(parts) - 2:  # it could be another one's
            name += f"-{hashlib.sha256(json.dumps([self.key | {'seed': None}]).encode()).hexdigest()[:8]}"
        return f"{name}/seed{self.seed}"

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules that its environment and network are from, where these name one."""
        named = (text.rpartition(":") for text in (self.env, self.flags.get("network", "")))
        return tuple(module for module, colon, _ in named if colon)

    @property
    def arguments(self) -> list[str]:
        """The flags of its command line."""
        return [f"--alg={self.alg}", f"--env={self.env}", f"--seed={self.seed}",
                *(f"--{name}={value}" for name, value in self.flags.items())]

    @property
    def command(self) -> str:
        """The command line that does the same, as a user would type it."""
        launch = ["mpirun", "-np", str(self.ranks)] if self.ranks > 1 else []
        return shlex.join([*launch, "baselines-lite", *self.arguments])

    def resolved(self) -> Resolved:
        """All that the run is told. Raises UserError for what no run would accept, as far as its beginning can tell."""
        try:
            algorithm = registry.find(self.alg)
            options = known_options(algorithm, {**self.flags, "seed": str(self.seed)})
            found = check_before_loading(algorithm, self.env, options, self.ranks)
            networks, network = rules_of(found.config, "network").get("help", ""), found.config.network
            if self.alg in registry.ALGORITHMS and network in BUILT_IN and not re.search(rf"\b{network}\b", networks):
                raise UserError(f"it does not take the network {network}; {networks}")
            return found
        except UserError as error:
            raise UserError(f"{self.alg} on {self.env}: {error}") from None

    def launched(self, folder: Path, cores: int) -> list[str]:
        """The command that begins the run in a folder or goes on with it, with at most so many cores as threads.

        Raises UserError where several ranks have no mpirun.
        """
        more = {"log_path": str(folder), "resume": "auto", "print_interval": "30"}
        if not self.resolved().small:
            more["threads"] = str(max(1, cores // self.ranks))
        launch = [mpirun(), "-np", str(self.ranks)] if self.ranks > 1 else []
        return [*launch, *START, *self.arguments, *(f"--{k}={v}" for k, v in more.items() if k not in self.flags)]


def mpirun() -> str:
    """The mpirun of this Python's environment, else that of the system. Raises UserError where there is none."""
    own = os.path.join(os.path.dirname(sys.executable), "mpirun")
    found = shutil.which(own) or shutil.which("mpirun")
    if found is None:
        raise UserError("several ranks need mpirun, which is neither beside Python nor on the PATH; it comes with: "
                        "pip install 'baselines-lite[mpi]'")
    return found


def environment() -> dict[str, str]:
    """The environment variables of a run, by which Python finds this very package."""
    root = str(PACKAGE.parent)
    paths = [] if root in (*site.getsitepackages(), site.getusersitepackages()) else [root]
    paths += filter(None, [os.environ.get("PYTHONPATH")])
    return {**os.environ, **({"PYTHONPATH": os.pathsep.join(paths)} if paths else {})}


def code_of(alg: str, modules: Sequence[str] = ()) -> dict[str, Any]:
    """What identifies the code that a run of an algorithm executes, as JSON has it.

    `sha256` decides: it is of all files of the package that the run may import, and of `modules` of one's own by name,
    an environment's say (but not of what these import from elsewhere). Commit and versions are recorded beside it.
    """
    paths = {path for folder in ("common", *packages_of(alg)) for path in PACKAGE.joinpath(folder).rglob("*.py")}
    paths |= {PACKAGE / name for name in ("__init__.py", "command_line.py", "from_file.py", "registry.py", "run.py")}
    for module in modules:
        with contextlib.suppress(ImportError, AttributeError):  # there is none: the run says so
            paths.add(Path(importlib.util.find_spec(module).origin))
    texts = sorted((str(path.relative_to(PACKAGE) if path.is_relative_to(PACKAGE) else path.name), path.read_bytes())
                   for path in paths)  # the same on another machine, wherever the package lies
    digest = hashlib.sha256()
    for name, text in texts:
        digest.update(f"{name} {len(text)}\n".encode() + text)
    made = provenance()
    commit, _, changes = (made["commit"] or "").partition("+")
    return {"sha256": digest.hexdigest(), "commit": commit or None, "dirty": bool(changes), "version": __version__,
            "versions": made["versions"]}


def packages_of(alg: str) -> set[Path]:
    """The folder of an algorithm's package, and those of the other algorithms that its files import."""
    module = registry.find(alg)
    found, rest = set(), [Path(path) for path in getattr(module, "__path__", [os.path.dirname(module.__file__)])]
    while rest:
        folder = rest.pop()
        if folder not in found:
            found.add(folder)
            rest += [PACKAGE / part for path in folder.rglob("*.py") for part in parts_imported(path)
                     if part not in ("common", "runs") and (PACKAGE / part).is_dir()]
    return found


def parts_imported(path: Path) -> Iterator[str]:
    """The parts of baselines_lite that a file imports: files and folders at its top, without ".py"."""
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError:  # which the run will say
        return
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{name}" for name in names] if node.level == 0 else []
        yield from (name.split(".")[1] for name in names if name.startswith("baselines_lite."))


def codes_of(jobs: Iterable[Job]) -> dict[str, dict[str, Any]]:
    """The code of each of the jobs as it is now, by the job's name."""
    found: dict[tuple[str, tuple[str, ...]], dict[str, Any]] = {}
    for job in jobs:
        if (job.alg, job.modules) not in found:
            found[job.alg, job.modules] = code_of(job.alg, job.modules)
    return {job.name: found[job.alg, job.modules] for job in jobs}
