"""The benchmark tasks of minutes reach their goals, on one seed each. Marked slow; see benchmarks/run.py for all."""

import pytest

from baselines_lite.runs.runner import Runner
from benchmarks.run import job_of, result_of
from benchmarks.suites import SUITES

SHORT = [(suite, name, alg) for suite, tasks in SUITES.items() for name, task in tasks.items()
         for alg in task.algorithms if task.steps <= 3e5 and alg in task.goals]


@pytest.mark.slow
@pytest.mark.parametrize(("suite", "name", "alg"), SHORT)
def test_a_task_reaches_its_goal(suite, name, alg, tmp_path):
    task = SUITES[suite][name]
    job = job_of(task, alg, 0)
    assert Runner([job], tmp_path).run() == 0
    assert result_of(job, (suite, name, alg, 0), tmp_path).scores[task.by] >= task.goals[alg]
