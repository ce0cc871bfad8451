"""Helpers that run the command line and programs under the environment's own mpirun."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MPIRUN = Path(sys.executable).parent / "mpirun"
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def cli(tmp_path):
    """Runs `python run.py FLAGS` in an empty folder, under mpirun if ranks > 1."""

    def run(*flags, ranks=1, timeout=120, env=None):
        launch = [str(MPIRUN), "-np", str(ranks)] if ranks > 1 else []
        return subprocess.run([*launch, sys.executable, str(ROOT / "run.py"), *flags], cwd=tmp_path, text=True,
                              capture_output=True, timeout=timeout, env={**os.environ, **(env or {})})

    return run


@pytest.fixture
def program():
    """Runs a function of tests/plumbing/programs.py under mpirun: program("name", ranks=2, timeout=...)."""

    def run(name, *arguments, ranks=2, timeout=60):
        command = [str(MPIRUN), "-np", str(ranks), sys.executable, str(ROOT / "tests/plumbing/programs.py"), name]
        return subprocess.run([*command, *map(str, arguments)], text=True, capture_output=True, timeout=timeout)

    return run
