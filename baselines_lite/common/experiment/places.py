"""Where a run writes: that it can, that no other run does, that nothing is overwritten."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from baselines_lite.common.experiment.config import RunOptions
from baselines_lite.common.experiment.logger import FILES
from baselines_lite.common.system import folders
from baselines_lite.common.system.errors import UserError

BESIDE = ("model.safetensors", "best.safetensors", "checkpoints", "videos")  # what a run writes beside its log


@contextlib.contextmanager
def places(run: RunOptions, save_path: str | None, folder: Path) -> Iterator[str | None]:
    """Within the block the model file and the folder of the log are this run's alone; gives where earlier files went.

    `folder` is for what is written beside the log. Raises UserError where a place cannot be written or another run has
    it.
    """
    path = Path(save_path) if save_path else None
    if path and (path.is_dir() or str(save_path).endswith(("/", os.sep))):
        raise UserError(f"save_path={save_path} is a folder; name a file in it, such as {path / 'model.safetensors'}")
    if path and not folders.writable(path.parent):
        raise UserError(f"cannot write the model file {save_path!r}: its folder is not writable")
    names = (*FILES, *BESIDE) if run.log_path else ["videos"] if run.save_video_interval else ()
    if run.log_path and path and path.parent.resolve() == Path(run.log_path).resolve():
        names = (*names, path.name)
    with contextlib.ExitStack() as held:
        try:
            if names:
                folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(folders.held(folder / ".lock", f"the folder {str(folder)!r}"))
            if path:
                held.enter_context(folders.held(path.with_name(f".{path.name}.lock"), f"the model file {save_path!r}"))
            aside = None if run.resume else folders.move_aside(folder, names)
        except OSError as error:
            raise UserError(f"cannot write the folder {str(folder)!r}: {error.strerror}") from None
        yield aside


def check_room(folder: Path, nbytes: float) -> None:
    """Raises UserError where a folder's disk has less room than so many bytes."""
    free = shutil.disk_usage(folder).free
    if free < nbytes:
        raise UserError(f"checkpoints in {str(folder)!r} take up to {nbytes / 1e9:.1f} GB, but only {free / 1e9:.1f} "
                        "GB are free there; lower buffer_size, or give another log_path")
