"""npg's training loop, end to end."""

import csv

import pytest

from baselines_lite import npg


def test_steps_are_as_long_as_the_schedule_says(tmp_path):
    npg.learn("CartPole-v1", 512, num_env=4, nsteps=32, num_hidden=8, vf_minibatches=1, vf_iters=1,
              step_kl="linear:1e-3", log_path=str(tmp_path), print_interval=1e9)
    with (tmp_path / "progress.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    lengths = [1e-3, 0.75e-3, 0.5e-3, 0.25e-3]
    assert [float(row["step_kl"]) for row in rows] == pytest.approx(lengths)
    assert [float(row["kl"]) for row in rows] == pytest.approx(lengths, rel=0.1)
