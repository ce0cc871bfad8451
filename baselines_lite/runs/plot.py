"""`baselines-lite plot RUNS...`: learning curves of many runs, as a picture and as a page.

    baselines-lite plot runs/ --out=curves.png --html=curves.html
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backend_bases import FigureCanvasBase

from baselines_lite.command_line import complete, parse
from baselines_lite.common.experiment.plotting import BANDS, plot_curves
from baselines_lite.common.system.errors import UserError, counted, unknown
from baselines_lite.common.system.mpi import get_comm
from baselines_lite.common.system.options import FilePath, option, option_table, override
from baselines_lite.runs.curves import group, lines, remarks
from baselines_lite.runs.logs import find_runs
from baselines_lite.runs.page import require_plotly, write_page

USAGE = """usage: baselines-lite plot RUNS... [--FLAG=VALUE ...]

RUNS are folders of runs' logs, or folders that hold such at any depth, of this library, OpenAI Baselines or
Stable-Baselines3; or single monitor.csv files. Each environment has a panel, each algorithm a curve in it.
"""


@dataclasses.dataclass(frozen=True)
class PlotOptions:
    """What is drawn, and how."""

    out: FilePath = option("curves.png", "file for the picture; .svg and .pdf are other formats")
    html: FilePath | None = option(None, "file for a page, without network, in which one chooses what is drawn; it "
                                   "needs the package plotly: pip install 'baselines-lite[plot]'")
    x: str = option("steps", "what curves are drawn over", choices=("steps", "hours"))
    window: int = option(100, "episodes of the moving average; 1: none", low=1)
    band: str = option("ci", "what is drawn around a mean over runs: Student's 95% interval (below five runs each as a "
                       "thin line instead), the standard deviation, the range, nothing", choices=BANDS)
    by: str = option("alg,env", "runs that agree in these are one curve; options of config.json can be named too: "
                     "alg,env,lr")
    help: bool = option(False, "print this text")


def main(arguments: Sequence[str]) -> int:
    """Draws what the arguments say, on rank 0 alone; the exit status. Raises UserError."""
    comm = get_comm()
    with comm.guarded():
        comm.together(lambda: draw(arguments), root_only=True)
    return 0


def draw(arguments: Sequence[str]) -> None:
    """Draws what the arguments say. Raises UserError."""
    paths: list[str] = []
    flags = complete(parse(arguments, paths), PlotOptions)
    for name in flags:
        if name not in PlotOptions.__dataclass_fields__:
            raise unknown("flag", f"--{name}", [f"--{k}" for k in PlotOptions.__dataclass_fields__])
    options = override(PlotOptions(), flags)
    if options.help:
        print(f"{USAGE}\n{option_table(PlotOptions)}")
        return
    if not paths:
        raise UserError("which runs? Give their folders, or one that holds them: baselines-lite plot RUNS...")
    if options.out.endswith(("/", os.sep)) or Path(options.out).is_dir():
        raise UserError(f"out={options.out} is a folder; name a picture in it, such as "
                        f"{Path(options.out) / 'curves.png'}")
    out = options.out if Path(options.out).suffix else f"{options.out}.png"
    if (ending := Path(out).suffix[1:].lower()) not in (known := FigureCanvasBase.get_supported_filetypes()):
        raise unknown("format of a picture", ending, known)
    if options.html:
        require_plotly()
    found = find_runs([os.path.expanduser(path) for path in paths])
    runs = [run for run in found if len(run.returns)]
    empty = ", ".join(repr(str(run.folder)) for run in found if not len(run.returns))
    if not runs:
        raise UserError(f"no episode has finished yet in {empty}")
    if empty:
        print(f"left out, because no episode has finished yet: {empty}")
    if options.x == "hours" and (clockless := [run for run in runs if np.isnan(run.hours).any()]):
        raise UserError(f"the log in {str(clockless[0].folder)!r} does not say when its episodes ended: only --x=steps")
    by = [name.strip().replace("-", "_") for name in options.by.split(",")]
    groups = group(runs, by)
    for remark in remarks(groups, by, options.x):
        print(remark)
    panels = {env: {label: lines(own, options.x, options.window) for label, own in curves.items()}
              for env, curves in groups.items()}
    write(out, lambda: plot_curves(panels, out, band=options.band, window=options.window,
                                   xlabel={"steps": "environment steps", "hours": "hours"}[options.x]))
    if options.html:
        write(options.html, lambda: write_page(groups, options.html, x=options.x, window=options.window,
                                               band=options.band))
    print(f"{counted(len(runs), 'run')} in {counted(len(groups), 'environment')}: {Path(out)}"
          + (f", {Path(options.html)}" if options.html else ""))


def write(path: str, act: Callable[[], None]) -> None:
    """Runs `act`, which writes the file. Raises UserError where it cannot."""
    try:
        act()
    except OSError as error:
        where = f": {error.filename!r}" if error.filename not in (None, path) else ""
        raise UserError(f"cannot write {path!r}: {error.strerror}{where}") from None
