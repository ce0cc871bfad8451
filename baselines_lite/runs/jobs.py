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
STARTING = ("__init__.py", "command_line.py", "from_file.py", "registry.py", "run.py")  # files that each run executes
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

    `sha256` decides: it is of all files of the package that the run may import, and of the algorithm and `modules` of
    one's own, an environment's say: see `own_files`. Commit and versions are recorded beside it.
    """
    digest = hashlib.sha256()
    for name, path in sorted(files_of(alg, modules).items()):  # the same on another machine, wherever they lie
        text = path.read_bytes()
        digest.update(f"{name} {len(text)}\n".encode() + text)
    made = provenance()
    commit, _, changes = (made["commit"] or "").partition("+")
    return {"sha256": digest.hexdigest(), "commit": commit or None, "dirty": bool(changes), "version": __version__,
            "versions": made["versions"]}


def files_of(alg: str, modules: Sequence[str] = ()) -> dict[str, Path]:
    """The files of code_of's digest, by their names as seen from the package."""
    files, rest, seen = {name: PACKAGE / name for name in STARTING}, {"common"}, {"runs"}
    for module in (registry.find(alg).__name__, *modules):
        top, *parts = module.split(".")
        if top == PACKAGE.name:
            rest.update(part for part in parts[:1] if (PACKAGE / part).is_dir())
        else:
            own = own_files(top)
            files |= {f"../{name}": path for name, path in own.items()}
            rest.update(part for path in own.values() for part in parts_imported(path))
    while rest := rest - seen:
        seen.add(part := rest.pop())
        inside = {str(path.relative_to(PACKAGE)): path for path in PACKAGE.joinpath(part).rglob("*.py")}
        files |= inside
        rest.update(other for path in inside.values() for other in parts_imported(path))
    return files


def own_files(module: str) -> dict[str, Path]:
    """The files of a module or package of one's own, by name, and of what these import from beside it.

    Of an installed one those of its package alone; none where there is no such module, which the run says.
    """
    files: dict[str, Path] = {}
    rest, seen = {module}, {PACKAGE.name}
    while rest := rest - seen:
        seen.add(name := rest.pop())
        with contextlib.suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(name)
            origin = [spec.origin] if spec and spec.has_location else []
            for place in map(Path, (spec and spec.submodule_search_locations) or origin):  # folders, or one file
                root = place.parent
                found = [place] if place.is_file() else list(place.rglob("*.py"))
                files |= {str(path.relative_to(root)): path for path in found}
                if not {"site-packages", "dist-packages"} & set(root.parts):
                    tops = {name.partition(".")[0] for path in found for name in names_imported(path)}
                    rest.update(top for top in tops if (root / f"{top}.py").is_file()
                                or (root / top / "__init__.py").is_file())
    return files


def parts_imported(path: Path) -> Iterator[str]:
    """The folders of baselines_lite that a file imports from."""
    parts = (name.split(".")[1] for name in names_imported(path) if name.startswith(f"{PACKAGE.name}."))
    yield from (part for part in parts if (PACKAGE / part).is_dir())


def names_imported(path: Path) -> Iterator[str]:
    """The dotted names that a file imports, but relative ones: of "from a import b", a.b."""
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError:  # which the run will say
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def codes_of(jobs: Iterable[Job]) -> dict[str, dict[str, Any]]:
    """The code of each of the jobs as it is now, by the job's name."""
    found: dict[tuple[str, tuple[str, ...]], dict[str, Any]] = {}
    for job in jobs:
        if (job.alg, job.modules) not in found:
            found[job.alg, job.modules] = code_of(job.alg, job.modules)
    return {job.name: found[job.alg, job.modules] for job in jobs}
