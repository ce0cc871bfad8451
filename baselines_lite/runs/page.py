"""Learning curves as one HTML page that needs no network: plotly.js, the curves, and a script that draws them.

`fill`, `drawn`, STYLE and SCRIPT are for other such pages too.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from baselines_lite.common.experiment.plotting import Line, average, looks, single_lines
from baselines_lite.common.system.errors import UserError
from baselines_lite.runs.curves import Groups, lines
from baselines_lite.runs.logs import Run

EPISODES = 1000  # dots per run, evenly chosen

BANDS = {"ci": "bands are Student's 95% intervals of the mean, from five runs on; of fewer each run is a thin line",
         "std": "bands are one standard deviation to either side", "minmax": "bands are the range of the runs",
         "none": "without bands"}


def require_plotly() -> None:
    """Raises UserError where Plotly is not installed."""
    if importlib.util.find_spec("plotly") is None:
        raise UserError("an HTML page of curves needs a package: pip install 'baselines-lite[plot]'")


def write_page(groups: Groups, path: str | Path, *, x: str = "steps", window: int = 100, band: str = "ci") -> None:
    """Writes the page, and the folder for it. Raises OSError where it cannot be written."""
    look = looks(label for curves in groups.values() for label in curves)
    curves = [{"env": env, "label": label, "color": look[label][0], "dash": look[label][1], "runs": len(runs),
               **{axis: on_axis(runs, axis, window, band) for axis in ("steps", "hours")}}
              for env, curves in groups.items() for label, runs in curves.items()]
    text = fill(PAGE, {"curves": curves, "x": x, "window": window}, WINDOW=str(window), BANDS=BANDS[band],
                EPISODES=f"{EPISODES:,}")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")


def fill(template: str, data: Any, **parts: str) -> str:
    """A page: @DATA@ in the template is what `data` is in JSON, @PLOTLY@, @STYLE@ and @SCRIPT@ what their names say."""
    from plotly.offline import get_plotlyjs

    text = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    parts |= {"DATA": text, "PLOTLY": get_plotlyjs(), "STYLE": STYLE, "SCRIPT": SCRIPT}
    return re.sub("@([A-Z]+)@", lambda place: parts[place[1]], template)


def on_axis(runs: Sequence[Run], axis: str, window: int, band: str) -> dict[str, Any] | None:
    """What the page draws of a curve over one x axis; None where a run has no such numbers."""
    smooth = lines(runs, axis, window)
    if not all(np.isfinite(x).all() for x, _ in smooth):
        return None
    return {**drawn(smooth, band, single_lines(smooth, band)),
            "episodes": [points(line, EPISODES) for line in lines(runs, axis, 1)]}


def drawn(runs: Sequence[Line], band: str, beside: Sequence[Line]) -> dict[str, Any]:
    """What SCRIPT's `curve` draws: the mean of runs, its band, and the lines beside them."""
    mean = average(runs, band)
    return {"x": short(mean.x), "mean": short(mean.mean), "low": mean.low is not None and short(mean.low),
            "high": mean.high is not None and short(mean.high), "lines": [points(line) for line in beside]}


def points(line: Line, most: int | None = None) -> dict[str, list[float]]:
    """A line, or `most` of its points, evenly chosen."""
    x, y = line
    chosen = slice(None) if most is None or len(x) <= most else np.linspace(0, len(x) - 1, most).astype(int)
    return {"x": short(x[chosen]), "y": short(y[chosen])}


def short(values: np.ndarray) -> list[float]:
    """Numbers of six digits, which a picture cannot tell from the whole ones."""
    return [float(f"{value:.6g}") for value in values]


STYLE = """
  body { font: 15px/1.5 system-ui, sans-serif; margin: 1em auto; max-width: 75em; padding: 0 1em; color: #222 }
  form { display: flex; flex-wrap: wrap; gap: .3em 1.2em; align-items: baseline }
  #plot { height: 65vh; min-height: 20em; max-width: 100%; overflow: hidden }
  .swatch { display: inline-block; width: 1.6em; border-top: 3px; vertical-align: middle; margin-right: .3em }
"""

SCRIPT = """
const $ = id => document.getElementById(id), data = JSON.parse($("data").textContent), hidden = new Set();

function choices(curves, axis) {  // a box for each curve, with its colour: the legend
  $("labels").replaceChildren(...curves.map(c => {
    const label = document.createElement("label"), box = document.createElement("input");
    const swatch = document.createElement("span");
    box.type = "checkbox";
    box.checked = !hidden.has(c.label);
    box.onchange = () => { box.checked ? hidden.delete(c.label) : hidden.add(c.label); draw(); };
    swatch.className = "swatch";
    swatch.style.borderTopColor = c.color;
    swatch.style.borderTopStyle = {solid: "solid", dash: "dashed"}[c.dash] || "dotted";
    label.append(box, swatch, `${c.label} (${c.runs} run${c.runs > 1 ? "s" : ""}${c[axis] ? "" : ", no " + axis})`);
    return label;
  }));
}

function curve(c, of, beside = true) {  // its mean, with a band, and the lines beside them
  const line = {color: c.color, dash: c.dash}, quiet = {hoverinfo: "skip", showlegend: false};
  const back = values => values.slice().reverse();
  if (!of) return [];
  const band = of.low ? [{x: [...of.x, ...back(of.x)], y: [...of.high, ...back(of.low)], ...quiet, mode: "lines",
                          fill: "toself", fillcolor: c.color + "33", line: {width: 0}}] : [];
  const single = beside ? of.lines.map(r => ({...r, ...quiet, mode: "lines", opacity: .5, line: {...line, width: 1}}))
                        : [];
  return [...band, ...single, {x: of.x, y: of.mean, name: c.label, mode: "lines", showlegend: false,
                               line: {...line, width: 3}}];
}
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Learning curves</title>
<style>@STYLE@</style>
<h1>Learning curves</h1>
<form>
  <label>environment <select id="env"></select></label>
  <label>show <select id="mode"><option value="smooth">mean of the last @WINDOW@ episodes
    <option value="raw">single episodes</select></label>
  <label>over <select id="axis"><option value="steps">environment steps<option value="hours">hours</select></label>
</form>
<form id="labels"></form>
<div id="plot"></div>
<p>Means over runs; @BANDS@. Of single episodes at most @EPISODES@ of a run, evenly chosen.</p>
<script type="application/json" id="data">@DATA@</script>
<script>@PLOTLY@</script>
<script>@SCRIPT@
for (const name of new Set(data.curves.map(c => c.env))) $("env").append(new Option(name));
$("axis").value = data.x;
for (const id of ["env", "mode", "axis"]) $(id).onchange = draw;

function dots(c, of) {
  return of ? of.episodes.map(r => ({...r, name: c.label, mode: "markers", showlegend: false,
                                     marker: {color: c.color, size: 4, opacity: .4}})) : [];
}

function draw() {
  const curves = data.curves.filter(c => c.env === $("env").value), axis = $("axis").value;
  const raw = $("mode").value === "raw";
  choices(curves, axis);
  Plotly.react("plot", curves.filter(c => !hidden.has(c.label)).flatMap(c => (raw ? dots : curve)(c, c[axis])), {
    xaxis: {title: {text: axis === "steps" ? "environment steps" : "hours"}, rangemode: "tozero"},
    yaxis: {title: {text: raw || data.window === 1 ? "return" : `return, last ${data.window} episodes`}},
    margin: {t: 20, r: 20, b: 50, l: 60}, hovermode: raw ? "closest" : "x unified",
  }, {responsive: true});
}
draw();
</script>
"""
