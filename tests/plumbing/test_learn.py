"""`learn` from Python: its budget by either name."""

import csv

import pytest

from baselines_lite import UserError, ppo2, registry
from tests.plumbing.test_table import ACTIONS, CHOICE, SHORT, VECTOR, Anything


@pytest.mark.parametrize("name", registry.ALGORITHMS)
def test_num_timesteps_is_total_timesteps(name, tmp_path, uncompiled):
    options = dict(SHORT[name], threads=1, print_interval=1e9, log_path=str(tmp_path / "log"))
    registry.find(name).learn(lambda: Anything(VECTOR, ACTIONS.get(name, CHOICE)), num_timesteps=32, **options)
    with (tmp_path / "log/progress.csv").open(newline="") as file:
        assert list(csv.DictReader(file))[-1]["total_timesteps"] == "32"
    with pytest.raises(UserError, match="two names of one number"):
        registry.find(name).learn("CartPole-v1", 1000, num_timesteps=1000)


@pytest.mark.parametrize("budget", [1e30, float("inf"), float("nan"), "many", 0, -5])
@pytest.mark.parametrize("keyword", ["total_timesteps", "num_timesteps"])
def test_a_budget_that_is_none(keyword, budget):
    with pytest.raises(UserError, match="num_timesteps must be"):
        ppo2.learn("CartPole-v1", **{keyword: budget})
