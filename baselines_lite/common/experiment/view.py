"""What a run shows while it goes on: one calm picture on a terminal, plain lines elsewhere, or tables. Rank 0 only."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

VIEWS = ("live", "lines", "table")
BARS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
POINTS = 40  # of the returns' line
LOSSES = ("policy_loss", "value_loss", "entropy")


def make_view(kind: str | None, title: str, total_timesteps: int, interval: float | None) -> View:
    """The view that is asked for; None: `live` on a terminal that can draw it, else `lines`.

    `interval`: least seconds between two pictures, lines or tables; None: as the view has it.
    """
    if kind is None:
        console = Console(file=sys.stdout)
        seen = sys.stdout is not None and sys.stdout.isatty()  # rich takes FORCE_COLOR for a terminal
        kind = "live" if seen and console.is_terminal and not console.is_dumb_terminal else "lines"
    view = {"live": LiveView, "lines": View, "table": TableView}[kind]
    return view(title, total_timesteps, view.INTERVAL if interval is None else interval)


class View:
    """A line each so many seconds: how far the run is, how fast, what it earns and loses."""

    INTERVAL = 10.0

    def __init__(self, title: str, total_timesteps: int, interval: float) -> None:
        self.title, self.total, self._interval, self._last = title, total_timesteps, interval, float("-inf")

    def say(self, line: str) -> None:
        """Prints a line. Where nobody reads any more (`| head`, a terminal), or has such letters, the run goes on."""
        try:
            try:
                self._print(line)
            except UnicodeEncodeError:
                self._print(line.encode("ascii", "backslashreplace").decode())
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def row(self, cells: Mapping[str, Any], last: bool) -> None:
        """Shows a row of the log, if it is time for that or the row is the last."""
        if last or time.monotonic() - self._last >= self._interval:
            self._last = time.monotonic()
            self._show(cells)

    def close(self) -> None:
        """Nothing more is shown."""

    def _print(self, line: str) -> None:
        print(line, flush=True)

    def _show(self, cells: Mapping[str, Any]) -> None:
        self.say("; ".join((self.progress(cells), *self.figures(cells))))

    def progress(self, cells: Mapping[str, Any]) -> str:
        """How far the run is, and how fast."""
        steps = cells["total_timesteps"]
        return f"{self.title}: {steps / self.total:.0%}, {steps:,} of {self.total:,} steps, {self.speed(cells)}"

    def speed(self, cells: Mapping[str, Any]) -> str:
        """Steps per second, and the time left by them."""
        left = (self.total - cells["total_timesteps"]) / max(cells["sps"], 1e-9)
        return f"{cells['sps']:,.0f} steps/s, {clock(left)} left"

    def figures(self, cells: Mapping[str, Any]) -> list[str]:
        """The mean return and the losses, as far as they are known."""
        found = [f"mean return {cells['eprewmean']:.5g}"] if is_known(cells.get("eprewmean")) else []
        return [*found, losses] if (losses := losses_of(cells)) else found


class TableView(View):
    """The same line, and every figure in a table below it: as OpenAI Baselines shows a run."""

    INTERVAL = 2.0

    def _show(self, cells: Mapping[str, Any]) -> None:
        width = max(len(name) for name in cells)
        self.say("\n".join([self.progress(cells), *(
            f"| {name:<{width}} | {'' if v is None else f'{v:.5g}' if isinstance(v, float) else v:>12} |"
            for name, v in cells.items())]) + "\n")


class Screen(Console):
    """A console that leaves it to its user what happens where nobody reads."""

    def on_broken_pipe(self) -> None:
        """Goes on with the BrokenPipeError; rich would end the process."""
        raise


class LiveView(View):
    """A picture below what is said, drawn anew each time: progress, returns so far, losses, where the time goes."""

    INTERVAL = 0.5

    def __init__(self, title: str, total_timesteps: int, interval: float) -> None:
        super().__init__(title, total_timesteps, interval)
        # Forced: under mpirun stdout is a pipe, which ends at a terminal where --view=live says so.
        self._console = Screen(file=sys.stdout, force_terminal=True, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True, redirect_stdout=False,
                          redirect_stderr=False, vertical_overflow="crop")
        self._returns: list[float] = []
        self._gone = False  # whether nobody looks any more

    def close(self) -> None:
        """Takes the picture away."""
        if not self._gone:
            with contextlib.suppress(OSError):
                self._live.stop()

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)

    def _show(self, cells: Mapping[str, Any]) -> None:
        if self._gone:
            return
        if is_known(cells.get("eprewmean")):
            self._returns.append(cells["eprewmean"])
        try:
            if not self._live.is_started:
                self._live.start()
                self._console.show_cursor(True)  # a run that is killed cannot bring it back
            self._live.update(self.picture(cells), refresh=True)
        except OSError:
            self._gone = True
            self.say("")

    def picture(self, cells: Mapping[str, Any]) -> Group:
        """What is drawn of a row."""
        steps = cells["total_timesteps"]
        grid = Table.grid(padding=(0, 2))
        grid.add_row(Text("steps", "dim"), f"{steps:,} of {self.total:,}", Text(self.speed(cells), "dim"))
        if self._returns:
            grid.add_row(Text("mean return", "dim"), Text(f"{self._returns[-1]:.5g}", "bold"),
                         Text(spark(self._returns, self._console.encoding), "green"))
        if losses := losses_of(cells):
            grid.add_row(Text("losses", "dim"), *losses.split(", ", 1))
        shares = ", ".join(f"{name.removeprefix('share_')} {share:.0%}" for name, share in cells.items()
                           if name.startswith("share_") and is_known(share) and share >= 0.005)
        grid.add_row(Text("time", "dim"), clock(cells["time_elapsed"]), Text(shares, "dim"))
        bar = Table.grid()
        bar.add_row(ProgressBar(self.total, steps, width=min(60, self._console.width - 2)))
        return Group(Text(self.title, "bold"), bar, grid)


def losses_of(cells: Mapping[str, Any]) -> str:
    """The losses that are known, in a few digits."""
    return ", ".join(f"{name} {cells[name]:.3g}" for name in LOSSES if is_known(cells.get(name)))


def is_known(value: Any) -> bool:
    """Whether a figure is a number."""
    return value is not None and math.isfinite(value)


def clock(seconds: float) -> str:
    """Seconds as 00:04, 01:02:03, 26:03:04."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"


def spark(values: list[float], encoding: str = "utf-8") -> str:
    """Numbers as a line of bars, at most POINTS of them, evenly chosen; nothing where these cannot be written."""
    if not values or not encoding.lower().startswith("utf"):
        return ""
    count = min(len(values), POINTS)
    chosen = [values[round(i * (len(values) - 1) / max(1, count - 1))] for i in range(count)]
    low, high = min(chosen), max(chosen)
    return "".join(BARS[int((v - low) / (high - low) * (len(BARS) - 1) + 0.5) if high > low else 0] for v in chosen)
