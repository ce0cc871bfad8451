"""`learn(callback=...)`: told of each update, and able to end the run; schedules that are functions of one's own."""

import csv

import numpy as np
import pytest

from baselines_lite import UserError, ppo2, registry
from tests.plumbing.test_table import SHORT

QUIET = {"print_interval": 1e9}


@pytest.mark.parametrize("name", ["a2c", "acer", "deepq", "ddpg"])
def test_it_is_told_of_each_update_and_ends_the_run(name, tmp_path, uncompiled):
    told = []

    def callback(after):
        told.append((after.nupdates, after.total_timesteps, after.figures, after.policy, after.rank))
        return after.nupdates == 3

    env = "Pendulum-v1" if name == "ddpg" else "CartPole-v1"
    policy = registry.find(name).learn(env, 3200, **SHORT[name], **QUIET, callback=callback, log_path=str(tmp_path))
    assert [(n, steps) for n, steps, *_ in told] == [(1, 16), (2, 32), (3, 48)]
    assert all(each[3] is policy and each[4] == 0 for each in told)
    with (tmp_path / "progress.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 and (tmp_path / "model.safetensors").exists()
    for row, (_, _, figures, *_) in zip(rows, told, strict=True):
        for key, value in figures.items():
            assert row[key] == "" if value is None else np.isclose(float(row[key]), value, rtol=1e-6, equal_nan=True)


def test_it_ends_a_run_in_words_and_with_a_checkpoint(tmp_path, capsys, uncompiled):
    options = {**SHORT["ppo2"], **QUIET, "log_path": str(tmp_path), "checkpoint_seconds": 0}
    ppo2.learn("CartPole-v1", 320, **options, callback=lambda after: after.nupdates == 2)
    assert "ppo2 was stopped by its callback after 32 steps" in capsys.readouterr().out
    counts = []
    options |= {"resume": "auto", "callback": lambda after: counts.append(after.nupdates)}
    ppo2.learn("CartPole-v1", 320, **options)
    assert counts == list(range(3, 21))


@pytest.mark.parametrize("error", [ArithmeticError("in mine"), UserError("no")])
def test_what_it_raises_comes_out(error, uncompiled):
    def callback(after):
        raise error

    with pytest.raises(type(error), match=str(error)):
        ppo2.learn("CartPole-v1", 320, **SHORT["ppo2"], **QUIET, callback=callback)
    with pytest.raises(UserError, match="callback must be a function"):
        ppo2.learn("CartPole-v1", 320, **SHORT["ppo2"], callback=3)


def test_what_it_writes_is_logged(tmp_path, capfd, uncompiled):
    def callback(after):
        after.figures["twice"] = np.float32(2 * after.nupdates)
        if after.nupdates != 2:
            after.figures["some"] = after.nupdates

    options = {**SHORT["ppo2"], **QUIET}
    ppo2.learn("CartPole-v1", 48, **options, callback=callback, log_path=str(tmp_path))
    with (tmp_path / "progress.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["twice"], row["some"]) for row in rows] == [("2", "1"), ("4", ""), ("6", "3")]
    capfd.readouterr()
    ppo2.learn("CartPole-v1", 48, **options, callback=lambda after: after.figures.update(
        {"best": after.evaluation} if after.nupdates == 1 else {"best": 5, "late": 1}), log_path=str(tmp_path))
    assert capfd.readouterr().out.count("the figure late is no column of progress.csv") == 1
    with (tmp_path / "progress.csv").open(newline="") as file:
        assert [row["best"] for row in csv.DictReader(file)] == ["", "5", "5"]


@pytest.mark.parametrize(("name", "value", "words"), [
    ("words", "many", "figure 'words' must be a number, not 'many'"), ("lr", 5, "lr is a figure of the run's own"),
    ("total_timesteps", 0, "total_timesteps is a figure of the run's own"), ("share_env", 0, "share_env is a figure"),
    ("g,h", 5, "figure 'g,h' needs a text without commas"), ("x\ny", 5, "needs a text"),
    (3, 1, "figure 3 needs a text")])
def test_what_can_be_no_column(name, value, words, uncompiled):
    with pytest.raises(UserError, match=words):
        ppo2.learn("CartPole-v1", 48, **SHORT["ppo2"], **QUIET,
                   callback=lambda after: after.figures.update({name: value}))


def halves(remaining):
    return 1e-3 if remaining > 0.5 else 5e-4


def test_a_schedule_of_ones_own(tmp_path, uncompiled):
    rates = []
    options = {**SHORT["ppo2"], **QUIET, "lr": halves, "log_path": str(tmp_path), "checkpoint_seconds": 0}
    ppo2.learn("CartPole-v1", 64, **options, callback=lambda after: rates.append(after.figures["lr"]))
    assert rates == [1e-3, 1e-3, 5e-4, 5e-4]
    with pytest.raises(UserError, match=r"has lr=tests.plumbing.test_callback.halves, not linear"):
        ppo2.learn("CartPole-v1", resume=str(tmp_path))
    for wrong in (lambda: 1, lambda remaining: None):
        with pytest.raises(UserError, match="must make a number of the fraction that remains"):
            ppo2.learn("CartPole-v1", 64, lr=wrong)
    with pytest.raises(UserError, match="lr must be at least 0"):
        ppo2.learn("CartPole-v1", 64, lr=lambda remaining: -remaining)
