"""Helpers that run the command line and programs under the environment's own mpirun."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import pytest

from tests import HANG

ROOT = Path(__file__).resolve().parent.parent
MPIRUN = Path(sys.executable).parent / "mpirun"


def pytest_configure(config):
    """Without the slow tests, compiling takes longer than what is compiled: let XLA's code be made quickly.

    A shell that starts the tests in the background has Ctrl-C ignored, also by what they start: not here.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if "not slow" in config.option.markexpr:
        os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false")


@pytest.fixture(autouse=True)
def registered():
    """What a test registers with Gymnasium in place of something else ends with it: another file's may have that name.

    What is new stays: modules such as ale_py register theirs once.
    """
    before = dict(gym.registry)
    yield
    gym.registry.update(before)


def until(condition, process):
    """Waits for a condition while a process runs."""
    deadline = time.monotonic() + HANG
    while not condition():
        assert process.poll() is None, "the process ended first"
        assert time.monotonic() < deadline, "it hangs"
        time.sleep(0.05)


@pytest.fixture
def cli(tmp_path):
    """Runs `python run.py FLAGS` in an empty folder, under mpirun if ranks > 1."""

    def run(*flags, ranks=1, env=None):
        launch = [str(MPIRUN), "-np", str(ranks)] if ranks > 1 else []
        return subprocess.run([*launch, sys.executable, str(ROOT / "run.py"), *flags], cwd=tmp_path, text=True,
                              capture_output=True, timeout=HANG, env={**os.environ, **(env or {})})

    return run


@pytest.fixture
def main(tmp_path, monkeypatch, capfd):
    """Runs the command line in this process, in an empty folder: like `cli`, without the seconds of a start."""
    from baselines_lite.command_line import main

    def run(*flags):
        monkeypatch.chdir(tmp_path)
        capfd.readouterr()
        code = main(flags)
        out, err = capfd.readouterr()
        return SimpleNamespace(returncode=code, stdout=out, stderr=err)

    return run


@pytest.fixture
def uncompiled():
    """Runs updates operation by operation: compiling one takes seconds, and is no different for each space."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def missing(monkeypatch):
    """Makes a package look as if it were not installed: missing("moviepy")."""

    def hide(name):
        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == name else find(n, *a))

    return hide


@pytest.fixture(scope="session")
def program():
    """Runs functions of tests/plumbing/programs.py under mpirun, in one start: program("name,argument", ranks=2)."""

    def run(*calls, ranks=2):
        command = [str(MPIRUN), "-np", str(ranks), sys.executable, "-m", "tests.plumbing.programs"]
        return subprocess.run([*command, *calls], cwd=ROOT, text=True, capture_output=True)  # ends itself: see there

    return run
