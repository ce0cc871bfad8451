"""The benchmark tasks of minutes reach their goals, on one seed each. Marked slow; see benchmarks/learn.py for all."""

import sys

import pytest

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import learn

SHORT = [(alg, name) for alg, tasks in learn.TASKS.items() for name, task in tasks.items()
         if task.steps <= 3e5 and task.target is not None]


@pytest.mark.slow
@pytest.mark.parametrize(("alg", "name"), SHORT)
def test_a_task_reaches_its_goal(alg, name, tmp_path):
    assert learn.train(alg, name, 0, tmp_path, None) >= learn.TASKS[alg][name].target
