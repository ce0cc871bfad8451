"""The docs: they build without a warning, have a page for every algorithm, and say of every metric what it is."""

import dataclasses
import itertools
import os
import re
import runpy
import subprocess
import sys

import pytest
from mkdocs.exceptions import PluginError

from baselines_lite import registry
from baselines_lite.command_line import known_options, option_types
from baselines_lite.common.experiment.logger import EVALUATION
from baselines_lite.common.system.errors import UserError
from tests.conftest import ROOT
from tests.plumbing.test_table import SHORT


def test_the_site_builds_without_a_warning(tmp_path):
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)], cwd=ROOT,
                          capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"})
    assert done.returncode == 0, done.stderr
    assert "Collector.collect" in (tmp_path / "route/index.html").read_text(), "a part of the README is in it"
    for name in registry.ALGORITHMS:
        page = (tmp_path / f"algorithms/{name}/index.html").read_text()
        assert '<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">' in page, "formulas are drawn"
        assert "suite/task" in page, "the README's results are in it"
        assert 'href="../../spaces/">the table of spaces<' in page, "a link that goes elsewhere from the README"
        assert not re.search(r":::|--8&lt;--|\\[(\[]|<script[^>]*src=.https?:", page), "nothing is left, or fetched"


def test_code_that_is_to_be_copied_comes_whole():
    """A file without its first lines, its imports, is not what one can copy."""
    for page in (ROOT / "docs").rglob("*.md"):
        for given in re.findall(r'--8<-- "([^"]*\.py[^"]*)"', page.read_text()):
            assert (ROOT / given).is_file(), (page, given)


def test_every_algorithm_has_a_page():
    nav = re.findall(r"^ +- (\w+): algorithms/(\w+).md$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert nav == [(name, name) for name in registry.ALGORITHMS]
    for name, row in registry.ALGORITHMS.items():
        what = (ROOT / f"baselines_lite/{name}/README.md").read_text().split("<!-- --8<-- [end:what] -->")[0]
        for paper in re.findall(r"\d{4}\.\d{5}", row.paper):
            assert f"https://arxiv.org/abs/{paper}" in what


@pytest.mark.parametrize("name", registry.ALGORITHMS)
def test_an_algorithm_s_page_names_its_options_and_metrics(name):
    page = (ROOT / f"docs/algorithms/{name}.md").read_text()
    options, metrics = (set(re.findall(r"`(\w+)`", page.split(f"## {part}\n")[1].split("\n## ")[0]))
                        for part in ("Options", "Metrics"))
    assert options <= {field.name for field in dataclasses.fields(registry.find(name).Config)}
    assert metrics <= {*METRICS, "normalize_returns"}


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=str)
def test_lines_of_code_fit_the_page(path):
    """80 columns beside a table of contents; a file that has a title, in smaller print, all 120 without one."""
    text = path.read_text()
    blocks = re.findall(r"^```([^\n]*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert all(len(line) <= 80 for _, code in blocks for line in code.splitlines())
    for kind, code in blocks:
        if code.startswith("--8<--"):
            assert "title=" in kind and text.startswith("---\nhide: [toc]\n---\n"), code


def test_the_names_of_others_lead_to_options_that_there_are():
    rows = re.findall(r"^\| (.*?) \| (.*?) \|", (ROOT / "docs/migrating.md").read_text(), re.MULTILINE)
    found = {name for _, here in rows for name in re.findall(r"`(?:--)?([a-z_0-9]+)[`=]", here)}
    options = {field.name for name in registry.ALGORITHMS for kind in option_types(registry.find(name))
               for field in dataclasses.fields(kind)}
    assert found - options - {*registry.ALGORITHMS} == {"evaluate", "callback", "batch_size"} - options


def test_the_command_line_leads_from_the_names_of_others_to_those_that_the_page_gives():
    programs = {"make_vec_env", "make_atari_env", "evaluate_policy", "results_plotter", "load", "learn"}  # no options
    whose = {name: name for name in registry.ALGORITHMS} | {
        "PPO": "ppo2", "DQN": "deepq", "A2C": "a2c", "DDPG": "ddpg", "TRPO": "trpo_mpi"}
    tried = set()
    for theirs, ours in re.findall(r"^\| (.*?) \| (.*?) \|", (ROOT / "docs/migrating.md").read_text(), re.MULTILINE):
        given = set(re.findall(r"`(?:--)?([a-z_]+)[`=]", ours))
        algorithms = [alg for name, alg in whose.items() if re.search(rf"\b{name}\b", theirs)] or ["ppo2"]
        names = set(re.findall(r"`(?:--)?([a-z_]+)[`=]", theirs)) - programs if given else ()
        for alg, name in itertools.product(algorithms, names):
            module = registry.find(alg)
            if name not in {field.name for kind in option_types(module) for field in dataclasses.fields(kind)}:
                tried.add(name)
                with pytest.raises(UserError, match=f"unknown flag '--{name}'; did you mean ") as told:
                    known_options(module, {name: "1"})
                meant = set(re.findall(r"--(\w+)", str(told.value).partition(";")[2]))
                assert meant <= given, (alg, name)
    assert {"rprop_alpha", "clip_norm", "lrschedule", "n_critic_updates", "policy_kwargs"} < tried


HOOKS = runpy.run_path(str(ROOT / "docs/hooks.py"))


def test_a_flag_is_one_word():
    found = HOOKS["on_page_content"](f'of <code>--vec=async {"x" * 40}</code>, highlighted <code><b>--vec</b></code>')
    assert found == (f'of <code><span class="word">--vec=async</span> {"x" * 40}</code>, '
                     'highlighted <code><b>--vec</b></code>')


def test_source_is_what_the_file_has():
    first, second = map(HOOKS["on_page_markdown"], ("::: common/optim/losses.py surrogate",
                                                    "::: ppo2/ppo2.py loss_and_stats ratio loss"))
    assert first == """```python title="common/optim/losses.py: surrogate"
def surrogate(ratio: tf.Tensor, advs: tf.Tensor) -> tf.Tensor:
    return -ratio * advs
```"""
    assert second == """```python title="ppo2/ppo2.py: loss_and_stats"
ratio = tf.exp(logratio)
...
loss = policy_loss - cfg.ent_coef * entropy + cfg.vf_coef * value_loss
```"""


@pytest.mark.parametrize("line", ["ppo3/ppo3.py learn", "ppo2/ppo2.py lern", "ppo2/ppo2.py Update.lern",
                                  "ppo2/ppo2.py learn.rollout", "ppo2/ppo2.py loss_and_stats ratio rato"])
def test_source_that_is_not_there_ends_the_build(line):
    with pytest.raises(PluginError, match=line.split()[-1].split(".")[-1]):
        HOOKS["on_page_markdown"](f"::: {line}")


def test_a_formula_that_is_not_understood_ends_the_build():
    with pytest.raises(PluginError, match="nosuch"):
        HOOKS["on_page_content"](r'<span class="arithmatex">\(\nosuch{x}\)</span>')


def test_the_readme_links_every_page():
    text = (ROOT / "README.md").read_text()
    for path in (ROOT / "docs").glob("*.md"):
        assert path.name in ("index.md", "route.md") or f"](docs/{path.name})" in text, path
        assert path.name in (ROOT / "mkdocs.yml").read_text(), path
    for link in re.findall(r"\]\(([\w./-]+)\)", text):
        assert (ROOT / link).exists(), link


def test_what_an_evaluation_gives_is_defined():
    rows = re.findall(r"^\| `(\w+)` \| (?:`eval/(\w+)`)? ?\|", EVALUATIONS, re.MULTILINE)
    assert [name for name, _ in rows] == list(EVALUATION)
    assert [name for _, name in rows] == ["", *EVALUATION[1:]]


def test_the_tracker_notes_returns_and_evaluations(tmp_path, monkeypatch, uncompiled):
    (block,) = re.findall(r"^```python\n(.*?class Notes.*?)^```", (ROOT / "docs/python.md").read_text()
                          .split("## Trackers")[1], re.DOTALL | re.MULTILINE)
    (tmp_path / "my_tracker.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    registry.find("ppo2").learn("CartPole-v1", 128, **SHORT["ppo2"] | {"nsteps": 64}, print_interval=1e9,
                                eval_interval=1, eval_episodes=1, track="my_tracker:Notes")
    assert re.fullmatch(r"128 eval/mean [\d.]+\n128 eprewmean [\d.]+\n", (tmp_path / "notes.txt").read_text())


METRICS, EVALUATIONS = (ROOT / "docs/metrics.md").read_text().split("## Evaluations")
METRICS = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", METRICS, re.MULTILINE)
METRICS = [name for names in METRICS for name in re.findall(r"\w+", names)]
SEEN = {}  # columns of each run below
# Options that bring columns of their own.
MORE = {"ppo1": dict(objective="kl_adaptive"), "deepq": dict(param_noise=True), "ddpg": dict(normalize_returns=True)}


@pytest.mark.parametrize("options", [{}, MORE])
@pytest.mark.parametrize("name", registry.ALGORITHMS)
def test_every_column_is_defined(name, options, tmp_path, uncompiled):
    if options and name not in options:
        return
    run, env = (name, bool(options)), "Pendulum-v1" if name == "ddpg" else "CartPole-v1"
    options = {**SHORT[name], **options.get(name, {}), "print_interval": 1e9}
    registry.find(name).learn(env, 32, **options, eval_interval=1, eval_episodes=1, log_path=str(tmp_path))
    columns = (tmp_path / "progress.csv").read_text().splitlines()[0].split(",")
    assert set(columns) <= set(METRICS)
    SEEN[run] = columns


def test_nothing_else_is_defined_and_nothing_twice():
    assert len(set(METRICS)) == len(METRICS)
    if len(SEEN) == len(registry.ALGORITHMS) + len(MORE):  # the tests above have all run in this process
        assert set(METRICS) == set().union(*SEEN.values())
