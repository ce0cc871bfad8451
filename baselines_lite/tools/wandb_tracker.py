"""Weights & Biases as a tracker: --track=wandb. Needs the package wandb, which is no dependency of ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from baselines_lite.common.experiment.logger import Tracker
from baselines_lite.common.system.errors import UserError


class Wandb(Tracker):
    """A run of the project WANDB_PROJECT, which wandb reads itself, as it does the other WANDB_ variables.

    Raises UserError where the package is missing.
    """

    def __init__(self) -> None:
        try:
            import wandb
        except ImportError:
            raise UserError("--track=wandb needs a package: pip install wandb") from None
        self._wandb = wandb

    def start(self, title: str, config: Mapping[str, Any], resumed: bool) -> None:
        folder = config["run"]["log_path"]
        note = Path(folder or ".", "wandb_id.txt")  # by which a run that goes on is the same there
        known = note.read_text(encoding="utf-8").strip() if resumed and note.exists() else None
        self._run = self._wandb.init(name=title, config=dict(config), dir=folder, id=known,
                                     resume="allow" if known else None)
        if folder is not None:
            note.write_text(f"{self._run.id}\n", encoding="utf-8")

    def row(self, figures: Mapping[str, float], steps: int) -> None:
        self._run.log(dict(figures), step=steps)

    def close(self) -> None:
        self._run.finish()
