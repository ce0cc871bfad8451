"""The docs: they build without a warning, and say of every metric what it is."""

import os
import re
import subprocess
import sys

import pytest

from baselines_lite import registry
from tests.conftest import ROOT
from tests.plumbing.test_table import SHORT


def test_the_site_builds_without_a_warning(tmp_path):
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)], cwd=ROOT,
                          capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"})
    assert done.returncode == 0, done.stderr
    assert "Collector.collect" in (tmp_path / "route/index.html").read_text(), "a part of the README is in it"


def test_the_readme_links_every_page():
    text = (ROOT / "README.md").read_text()
    for path in (ROOT / "docs").glob("*.md"):
        assert path.name in ("index.md", "route.md") or f"](docs/{path.name})" in text, path
        assert path.name in (ROOT / "mkdocs.yml").read_text(), path
    for link in re.findall(r"\]\(([\w./-]+)\)", text):
        assert (ROOT / link).exists(), link


METRICS = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
METRICS = [name for names in METRICS for name in re.findall(r"\w+", names)]
SEEN = set()
# Options that bring columns of their own.
MORE = {"ppo1": dict(objective="kl_adaptive"), "deepq": dict(param_noise=True), "ddpg": dict(normalize_returns=True)}


@pytest.mark.parametrize("options", [{}, MORE])
@pytest.mark.parametrize("name", registry.ALGORITHMS)
def test_every_column_is_defined(name, options, tmp_path, uncompiled):
    if options and name not in options:
        return
    env = "Pendulum-v1" if name == "ddpg" else "CartPole-v1"
    options = {**SHORT[name], **options.get(name, {}), "print_interval": 1e9}
    registry.find(name).learn(env, 32, **options, eval_interval=1, eval_episodes=1, log_path=str(tmp_path))
    columns = (tmp_path / "progress.csv").read_text().splitlines()[0].split(",")
    assert set(columns) <= set(METRICS)
    SEEN.update(columns)


def test_nothing_else_is_defined_and_nothing_twice():
    assert len(set(METRICS)) == len(METRICS)
    if len(SEEN) > 20:  # the tests above have run in this process
        assert set(METRICS) == SEEN
