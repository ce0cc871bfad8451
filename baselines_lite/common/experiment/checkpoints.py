"""Checkpoints: all that the next update depends on, per rank, in folders that are there whole or not at all.

    checkpoints/00000200/rank-0000.safetensors   what a rank's objects consist of
    checkpoints/00000200/manifest.json           written last: settings, sizes and checksums of all files
    checkpoints/rings/rank-0000-buffer-*         steps of a replay buffer, appended to; the kept checkpoints share them
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from baselines_lite.common.experiment import array_file
from baselines_lite.common.system.errors import UserError
from baselines_lite.common.system.mpi import Comm
from baselines_lite.common.system.state import restored, state_of

FORMAT = 1
FACTS = {"nupdates": int, "ranks": list, "logs": dict, "given": dict, "settings": dict, "renew_every": int,
         "time_elapsed": float, "best": float | None}  # what a manifest says, beside what is only to be read
PART = 64 << 20  # bytes, about, of a file of a ring's steps: one is copied in memory while it is written


class Checkpoint:
    """A checkpoint that is whole: `facts` of the run, and what this rank's objects consisted of."""

    def __init__(self, folder: Path, facts: dict[str, Any], objects: dict[str, Any], rings: dict[str, Any]) -> None:
        self._folder, self.facts, self._objects, self._rings = folder, facts, objects, rings

    def restore(self, name: str, thing: Any) -> Any:
        """Makes an object what it was; what its `restore` returns. Raises UserError where it cannot have been that."""
        try:
            state = self._objects[name]
            if hasattr(thing, "rings"):
                self._fill(thing.rings(), self._rings[name])
            return thing.restore(state) if hasattr(thing, "restore") else restored(thing, state)
        except Exception as error:
            why = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(f"the checkpoint {str(self._folder)!r} does not fit: its {name} is of another kind "
                            f"({why[:300]})") from error

    def _fill(self, rings: Mapping[str, np.ndarray], files: list[dict[str, Any]]) -> None:
        for file in files:
            rows, start, stop = array_file.read(self._folder.parent / file["name"]), file["start"], file["stop"]
            for name, ring in rings.items():
                if rows[name].dtype != ring.dtype or rows[name].shape != (stop - start, *ring.shape[1:]):
                    raise ValueError(f"{name} is of another kind")
                ring[np.arange(start, stop) % len(ring)] = rows[name]


class Checkpoints:
    """The checkpoints below a folder, of which the last `keep` stay. All methods are collective.

    Objects are kept by name: Stateful ones, and generators. A replay buffer has `rings` too, arrays whose first axis is
    a ring of steps, number i in slot i modulo their length; those from `oldest` to `written` are complete.
    """

    def __init__(self, folder: Path, comm: Comm, keep: int) -> None:
        self.folder, self.comm, self.keep = folder, comm, keep
        self._rings: dict[int, dict[str, list[dict[str, Any]]]] = {}  # this rank's files by checkpoint
        self._warned = False

    def write(self, nupdates: int, facts: Callable[[], dict[str, Any]], kept: Mapping[str, Any]) -> bool:
        """Writes a checkpoint with `facts` of rank 0; whether that came off.

        Where it does not, a warning says so, once, and the earlier ones stay.
        """
        part = self.folder / f".{nupdates:08d}.part"
        try:
            self.comm.together(lambda: self._begin(part), root_only=True)
            mine = self.comm.together(lambda: self._write_rank(part, kept))
            everyone = self.comm.gather(mine)
            self.comm.together(lambda: self._finish(part, nupdates, facts, everyone), root_only=True)
        except UserError as problem:
            if self.comm.rank == 0:
                shutil.rmtree(part, ignore_errors=True)
                if not self._warned:
                    print(f"no checkpoint after update {nupdates}: {problem}; the run goes on without it",
                          file=sys.stderr, flush=True)
            self._warned = True
            return False
        self._rings[nupdates] = mine["rings"]
        self._prune(sorted(self._rings)[:-self.keep])
        return True

    def _begin(self, part: Path) -> None:
        with told():
            shutil.rmtree(part, ignore_errors=True)
            (self.folder / "rings").mkdir(parents=True, exist_ok=True)
            part.mkdir()

    def _write_rank(self, part: Path, kept: Mapping[str, Any]) -> dict[str, Any]:
        """Writes this rank's part; its seal and its rings' files."""
        with told():
            rings = {name: self._append(name, thing) for name, thing in kept.items() if hasattr(thing, "rings")}
            objects = {name: state_of(thing) for name, thing in kept.items()}
            return {"seal": array_file.write(part / rank_file(self.comm.rank), objects), "rings": rings}

    def _append(self, name: str, buffer: Any) -> list[dict[str, Any]]:
        """Writes a buffer's steps since the last checkpoint; all files that now have its steps, oldest first."""
        files = [file for file in self._rings.get(max(self._rings, default=0), {}).get(name, ())
                 if file["stop"] > buffer.oldest]
        start, rings = max([buffer.oldest, *(file["stop"] for file in files)]), buffer.rings()
        length = min(map(len, rings.values()))
        step = max(1, PART // sum(ring[0].nbytes for ring in rings.values()))
        while start < buffer.written:
            slot = start % length
            stop = min(start + step, buffer.written, start - slot + length)
            path = f"rings/rank-{self.comm.rank:04d}-{name}-{start:012d}.safetensors"
            rows = {n: ring[slot : slot + stop - start] for n, ring in rings.items()}
            seal = array_file.write(self.folder / path, rows)
            files.append({"name": path, "start": start, "stop": stop, **seal})
            start = stop
        return files

    def _finish(self, part: Path, nupdates: int, facts: Callable[[], dict[str, Any]], ranks: list[dict[str, Any]]
                ) -> None:
        with told():
            text = json.dumps({"format": FORMAT, "nupdates": nupdates, **facts(), "ranks": ranks}, indent=1)
            with open(part / "manifest.json", "w", encoding="utf-8") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            place = self.folder / f"{nupdates:08d}"
            shutil.rmtree(place, ignore_errors=True)
            os.replace(part, place)
            for folder in (place, self.folder):
                sync(folder)

    def _prune(self, gone: list[int]) -> None:
        """Removes checkpoints, and this rank's files that no other one needs."""
        lost = {file["name"] for nupdates in gone for files in self._rings.pop(nupdates).values() for file in files}
        needed = {file["name"] for rings in self._rings.values() for files in rings.values() for file in files}
        with contextlib.suppress(OSError):
            for nupdates in gone:
                if self.comm.rank == 0:
                    shutil.rmtree(self.folder / f"{nupdates:08d}", ignore_errors=True)
            for name in lost - needed:
                (self.folder / name).unlink(missing_ok=True)

    def found(self) -> Iterator[Checkpoint]:
        """The checkpoints that are whole on all ranks, newest first. What is not whole is told."""
        names = self.comm.broadcast(sorted(p.name for p in self.folder.glob("[0-9]" * 8)))
        for name in reversed(names):
            manifest = self.comm.broadcast(self.comm.rank == 0 and self._manifest(self.folder / name))
            checkpoint, fault = None, manifest if isinstance(manifest, str) else None
            if fault is None:
                checkpoint, fault = self._opened(self.folder / name, manifest)
            faults = [f for f in self.comm.gather(fault) if f]
            if faults:
                if self.comm.rank == 0:
                    print(f"the checkpoint {str(self.folder / name)!r} is left out: {faults[0]}", file=sys.stderr,
                          flush=True)
                continue
            yield checkpoint

    def go_on_from(self, checkpoint: Checkpoint) -> None:
        """Forgets what is newer than a checkpoint."""
        for place in self.folder.glob("[0-9]" * 8):
            nupdates = int(place.name)
            if nupdates > checkpoint.facts["nupdates"]:
                if self.comm.rank == 0:
                    shutil.rmtree(place, ignore_errors=True)
            elif isinstance(manifest := self._manifest(place), dict):
                self._rings[nupdates] = manifest["ranks"][self.comm.rank]["rings"]

    def _manifest(self, place: Path) -> dict[str, Any] | str:
        """A checkpoint's manifest, or what is wrong with it."""
        try:
            with open(place / "manifest.json", encoding="utf-8") as file:
                manifest = json.load(file)
            if manifest["format"] != FORMAT:
                return f"it has format {manifest['format']}, this version reads only {FORMAT}"
            wrong = [name for name, kinds in FACTS.items() if not isinstance(manifest[name], kinds)]
            wrong += [name for name, length in manifest["logs"].items() if not isinstance(length, int) or length < 0]
            if wrong or manifest["nupdates"] != int(place.name) or manifest["renew_every"] < 1:
                return "its manifest is damaged"
            return manifest
        except Exception as error:
            return f"its manifest cannot be read ({type(error).__name__}: {error})"

    def _opened(self, place: Path, manifest: dict[str, Any]) -> tuple[Checkpoint | None, str | None]:
        """(A checkpoint whose files for this rank are whole, None), or (None, what is wrong)."""
        try:
            mine, path = manifest["ranks"][self.comm.rank], place / rank_file(self.comm.rank)
            if array_file.seal(path) != mine["seal"]:
                return None, f"{path.name} is damaged"
            for file in (file for files in mine["rings"].values() for file in files):
                if not re.fullmatch(r"rings/[\w.-]+", file["name"]):
                    return None, f"it names a file {file['name']!r}"
                seal = array_file.seal(self.folder / file["name"])
                if any(seal[key] != file[key] for key in seal):
                    return None, f"{file['name']} is damaged"
            return Checkpoint(place, manifest, array_file.read(path), mine["rings"]), None
        except Exception as error:
            return None, f"{type(error).__name__}: {error}"


def rank_file(rank: int) -> str:
    """The name of a rank's file."""
    return f"rank-{rank:04d}.safetensors"


def sync(folder: Path) -> None:
    """Makes the names in a folder last; on Windows, which opens no folder, that is left to it."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Within the block, what goes wrong with files is a UserError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UserError(getattr(error, "strerror", None) or str(error)) from None
