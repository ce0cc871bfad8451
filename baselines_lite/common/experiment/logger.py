"""What a run writes down: what it shows, progress.csv, progress.json, monitor.csv, evaluations.csv, config.json.

Rank 0 only.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import baselines_lite
from baselines_lite.common.experiment.view import View
from baselines_lite.common.system.errors import UserError, counted, unknown
from baselines_lite.common.system.tf_setup import imported
from baselines_lite.common.system.version import __version__

if TYPE_CHECKING:  # it loads TensorFlow
    from baselines_lite.common.envs.episode_stats import Episode

ROWS = ("progress.csv", "progress.json", "monitor.csv", "evaluations.csv")  # the last where there are evaluations
FILES = (*ROWS, "config.json", "curve.png", "tensorboard")
EVALUATION = ("total_timesteps", "mean", "std_error", "episodes", "eplenmean", "time_elapsed")  # a row of these


def as_json(value: Any) -> Any:
    """What json does not know: a mapping (tf.Module wraps each dict that is set on it) as a dict, else its text."""
    return dict(value) if isinstance(value, Mapping) else str(value)


class Tracker:
    """Another place for what a run writes down: a service, a data base. All methods are called on rank 0 alone.

    A subclass of one's own is named by --track=module:Class, and made without arguments.
    """

    def start(self, title: str, config: Mapping[str, Any], resumed: bool) -> None:
        """The run `title` begins, or goes on, with what config.json says of it."""

    def row(self, figures: Mapping[str, float], steps: int) -> None:
        """Figures after so many steps: a row of the log, or an evaluation's, by names that begin with `eval/`."""

    def close(self) -> None:
        """The run has ended."""


class Logger:
    """Writes rows of named values to files, trackers and a view; the columns are fixed from the first row.

    `path` None: no files. Files get every row. `resumed`: rows are added to those that are there; see `go_on`. Raises
    UserError if the folder cannot be written.
    """

    def __init__(self, path: str | None, view: View, trackers: Sequence[Tracker] = (), resumed: bool = False,
                 evaluations: bool = False) -> None:
        self.path, self.view = None if path is None else Path(path), view
        self._trackers, self._resumed = list(trackers), resumed
        self._columns: list[str] | None = None
        self._late: set[str] = set()  # figures that came after them
        self._files: dict[str, Rows] = {}
        self._warned = False
        if self.path is not None:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                for name in ROWS if evaluations else ROWS[:-1]:
                    self._files[name] = Rows(self.path / name, resumed)
            except OSError as error:
                raise UserError(f"cannot write the log folder {str(path)!r}: {error.strerror}") from None

    def lengths(self) -> dict[str, int]:
        """The bytes of each file of the log with all its rows so far, by its path below the folder."""
        return {str(path.relative_to(self.path)): self._files[path.name].length if path.name in self._files
                else path.stat().st_size for path in self._rows()}

    def sync(self) -> None:
        """Brings all rows so far down to the disk. Raises OSError."""
        for file in self._files.values():
            file.flush(to_disk=True)

    def _rows(self) -> list[Path]:
        """The files that rows are added to."""
        return [] if self.path is None else [*(self.path / name for name in self._files),
                                             *(self.path / "tensorboard").glob("*")]

    def go_on(self, lengths: Mapping[str, int], total_timesteps: int) -> int:
        """Cuts the files off where they had these `lengths`, after so many steps; how many rows that loses.

        Raises UserError where one of them is shorter.
        """
        progress = self.path / "progress.csv"
        before = progress.read_bytes().count(b"\n")
        for path in self._rows():
            length = lengths.get(str(path.relative_to(self.path)), 0)
            if path.stat().st_size < length:
                raise UserError(f"{str(path)!r} is shorter than it was at the checkpoint: rows were lost")
            os.truncate(path, length) if length or path.name in self._files else path.unlink()
        lines = progress.read_text(encoding="utf-8").splitlines()
        self._columns = lines[0].split(",") if lines else None
        return before - len(lines)

    def begin(self, env: str, values: dict[str, Any]) -> None:
        """Begins the files, unless the run goes on, and tells trackers: `values` are the resolved configuration."""
        if not self._resumed:
            self._header(env)
        if not self._trackers and (self._resumed or self.path is None):
            return  # nobody asks for the commit, which takes two processes
        values = {**values, **provenance()}
        if not self._resumed:
            self._config(values)
        for tracker in self._trackers:
            try:
                tracker.start(self.view.title, json.loads(json.dumps(values, default=as_json)), self._resumed)
            except UserError:
                raise
            except Exception as error:
                raise UserError(f"the tracker {type(tracker).__name__} cannot start: {told(error)}") from error

    def _config(self, values: Mapping[str, Any]) -> None:
        """Writes config.json: the resolved configuration beside versions, commit and command."""
        if self.path is not None:
            text = json.dumps(values, indent=2, default=as_json)
            (self.path / "config.json").write_text(text + "\n", encoding="utf-8")

    def _header(self, env: str) -> None:
        """Starts evaluations.csv, and monitor.csv in the format of Baselines' Monitor: a JSON comment, then r, l, t."""
        if "evaluations.csv" in self._files:
            self._files["evaluations.csv"].write(",".join(EVALUATION) + "\n")
        if self._files:
            self._files["monitor.csv"].write(f"#{json.dumps({'t_start': time.time(), 'env_id': env})}\nr,l,t\n")

    def episodes(self, episodes: list[Episode]) -> None:
        """Adds finished episodes to monitor.csv: raw return, length in steps, seconds since the start."""
        if self._files:
            self._files["monitor.csv"].write("".join(f"{e.r:.9g},{e.l},{e.t:.6f}\n" for e in episodes))

    def evaluation(self, values: Mapping[str, Any]) -> None:
        """Adds an evaluation to evaluations.csv and trackers, and tells it on stdout."""
        cells = {name: values[name] for name in EVALUATION}
        if self._files:
            self._write("evaluations.csv", cells)
            self._flush()
        steps, error = cells["total_timesteps"], cells["std_error"]
        self._track(steps, {f"eval/{name}": value for name, value in cells.items() if name != "total_timesteps"})
        spread = "" if error is None else f" (standard error {error:.3g})"
        self.say(f"evaluation after {steps:,} steps: mean return {cells['mean']:.5g}{spread} over "
                 f"{counted(cells['episodes'], 'episode')}")

    def say(self, line: str) -> None:
        """Prints a line, above what is shown of the run."""
        self.view.say(line)

    def row(self, values: dict[str, Any], *, last: bool = False) -> None:
        """Writes one row to the files, and shows it if it is time for it or the row is the last.

        The first row has the columns: what a later one lacks is left empty, what it has besides goes to trackers only.
        """
        if self._columns is None:
            self._columns = list(values)
            if self._files:
                self._files["progress.csv"].write(",".join(self._columns) + "\n")
        for name in sorted(values.keys() - self._late - set(self._columns)):
            self._late.add(name)
            self.say(f"the figure {name} is no column of progress.csv, which has those of its first row: give it, None "
                     "at first, from the first update on")
        cells = {name: values.get(name) for name in self._columns}
        if self._files:
            self._write("progress.csv", cells)
            finite = {k: v if v is None or math.isfinite(v) else None for k, v in cells.items()}
            self._files["progress.json"].write(json.dumps(finite) + "\n")
            self._flush()
        self._track(values["total_timesteps"], values)
        self.view.row(cells, last)

    def _write(self, name: str, cells: Mapping[str, Any]) -> None:
        csv.writer(self._files[name], lineterminator="\n").writerow(
            ["" if v is None else f"{v:.9g}" if isinstance(v, float) else v for v in cells.values()])

    def _flush(self) -> None:
        """Brings rows into their files. Those that a full disk does not take wait for the next time."""
        try:
            for file in self._files.values():
                file.flush()
        except OSError as error:
            if not self._warned:
                print(f"the log in {str(self.path)!r} cannot be written ({error.strerror}): the run goes on, and "
                      "writes what is missing as soon as it can", file=sys.stderr, flush=True)
            self._warned = True

    def _track(self, steps: int, cells: Mapping[str, Any]) -> None:
        """Gives trackers what is known. One that fails, a service that is gone say, is left out from then on."""
        for tracker in list(self._trackers):
            try:
                tracker.row({name: value for name, value in cells.items() if value is not None}, steps)
            except Exception as error:
                self._trackers.remove(tracker)
                self.say(f"the tracker {type(tracker).__name__} failed after {steps:,} steps, and the run goes on "
                         f"without it: {told(error)}")

    def close(self) -> None:
        """Closes the files and the view."""
        for tracker in self._trackers:
            try:
                tracker.close()
            except Exception as error:
                self.say(f"the tracker {type(tracker).__name__} could not be closed: {told(error)}")
        self.view.close()
        self._flush()
        for file in self._files.values():
            file.close()


class Rows:
    """A file that text is added to. What the disk does not take stays, and is written before anything else.

    So a row is never lost in the middle of a file; half of one may stand at its end meanwhile.
    """

    def __init__(self, path: Path, resumed: bool) -> None:
        self._file, self._waiting = path.open("ab" if resumed else "wb", buffering=0), bytearray()

    def write(self, text: str) -> None:
        """Adds text, in the file after `flush` at the latest."""
        self._waiting += text.encode()

    def flush(self, to_disk: bool = False) -> None:
        """Brings all that was added into the file. Raises OSError."""
        while self._waiting:
            del self._waiting[: self._file.write(self._waiting)]
        if to_disk:
            os.fsync(self._file.fileno())

    @property
    def length(self) -> int:
        """Its bytes, with those that wait."""
        return os.fstat(self._file.fileno()).st_size + len(self._waiting)

    def close(self) -> None:
        """Closes the file."""
        self._waiting.clear()
        self._file.close()


class TensorBoard(Tracker):
    """Events below the log's folder. Raises UserError where that is not possible."""

    def __init__(self, path: str | None) -> None:
        if path is None:
            raise UserError("tensorboard needs log_path, the folder for the events")
        if importlib.util.find_spec("tensorboard") is None:
            raise UserError("writing TensorBoard events needs a package: pip install 'baselines-lite[tensorboard]'")
        self._path, self._events = Path(path), None

    def row(self, figures: Mapping[str, float], steps: int) -> None:
        import tensorflow as tf

        self._events = self._events or tf.summary.create_file_writer(str(self._path / "tensorboard"))
        with self._events.as_default(step=steps):
            for name, value in figures.items():
                tf.summary.scalar(name, value)
        self._events.flush()

    def close(self) -> None:
        if self._events is not None:
            self._events.close()


def told(error: Exception) -> str:
    """An exception in a line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


TRACKERS = {"wandb": "baselines_lite.tools.wandb_tracker:Wandb"}


def make_trackers(run: Any) -> list[Tracker]:
    """What RunOptions ask for beside files. Raises UserError for what there is not."""
    has_place = run.log_path is not None or not run.dry_run  # a dry run has none
    found: list[Tracker] = [TensorBoard(run.log_path)] if run.tensorboard and has_place else []
    if run.track is not None:
        module, colon, name = TRACKERS.get(run.track, run.track).rpartition(":")
        if not colon:
            raise unknown("tracker", run.track, [*TRACKERS, "module:Class"])
        kind = getattr(imported(module, f"the tracker {run.track!r}"), name, None)
        if not callable(kind):
            raise UserError(f"cannot use the tracker {run.track!r}: the module {module} has no class {name!r}")
        try:
            tracker = kind()
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"the tracker {run.track!r} cannot be made: {told(error)}") from error
        for method in ("start", "row", "close"):
            if not callable(getattr(tracker, method, None)):
                raise UserError(f"the tracker {run.track!r} has no method {method}: make it a subclass of "
                                "baselines_lite.common.experiment.logger.Tracker")
        found.append(tracker)
    return found


def versions() -> dict[str, str]:
    """Versions of what results depend on."""
    found = {"baselines_lite": __version__, "python": platform.python_version()}
    for package in ("tensorflow", "numpy", "gymnasium", "ale-py", "mujoco", "mpi4py", "mpich", "openmpi"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def provenance() -> dict[str, Any]:
    """Versions, the command, and the source tree's commit: None outside one, with "+changes" where it has some."""
    def git(*arguments: str) -> str | None:
        try:
            package = os.path.dirname(baselines_lite.__file__)
            done = subprocess.run(["git", "-C", package, *arguments], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # Installed in a folder of somebody's project, the package is none of its files.
    commit = git("rev-parse", "HEAD") if git("ls-files", "--error-unmatch", "__init__.py") else None
    if commit and git("status", "--porcelain", "--untracked-files=no", "--", "."):
        commit += "+changes"
    return {"versions": versions(), "commit": commit, "command": shlex.join(sys.argv)}
