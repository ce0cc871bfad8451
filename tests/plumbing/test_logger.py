"""What a run writes down."""

import json
import os
import sys
from pathlib import PurePosixPath
from types import MappingProxyType, SimpleNamespace

import pytest

from baselines_lite.common.experiment.logger import Logger, Tracker
from baselines_lite.common.experiment.view import VIEWS, View, clock, make_view, spark
from baselines_lite.tools.wandb_tracker import Wandb


@pytest.mark.parametrize(("steps_left", "words"), [(62_000, "01:02 left"), (93_784_000, "26:03:04 left")])
def test_the_time_left_may_be_more_than_a_day(steps_left, words, capsys):
    logger = Logger(None, make_view("lines", "a run", 10**9, 0))
    logger.row({"total_timesteps": 10**9 - steps_left, "sps": 1000.0}, last=True)
    logger.close()
    assert f"1,000 steps/s, {words}\n" in capsys.readouterr().out


def test_a_mapping_that_is_no_dict_is_one_in_the_configuration(tmp_path):
    """tf.Module wraps dicts in such mappings; from Python 3.13 on json takes them for something unknown."""
    logger = Logger(tmp_path, make_view("lines", "a run", 1, 0))
    logger.begin("env", {"atari": MappingProxyType({"sticky": 0.25}), "folder": PurePosixPath("a/b")})
    logger.close()
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["atari"] == {"sticky": 0.25} and config["folder"] == "a/b"


@pytest.mark.parametrize("kind", VIEWS)
def test_a_run_goes_on_where_nobody_reads_what_it_says(kind, monkeypatch, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        logger = Logger(tmp_path, make_view(kind, "a run", 10, 0))
        for steps in (1, 2):
            logger.row({"total_timesteps": steps, "sps": 1.0, "time_elapsed": 1.0}, last=True)
            logger.say("hello")
        logger.close()
    assert len((tmp_path / "progress.csv").read_text().splitlines()) == 3


ROW = {"total_timesteps": 500, "sps": 250.0, "time_elapsed": 2.0, "eprewmean": 21.5, "policy_loss": -0.0125,
       "value_loss": 2.0, "entropy": float("nan"), "kl": None, "share_env": 0.25, "share_update": 0.75}


def shown(kind, capsys, *rows):
    view = make_view(kind, "ppo2 CartPole-v1", 1000, 0)
    for row in rows:
        view.row(row, last=True)
    view.say("a [line] of one's own")
    view.close()
    return capsys.readouterr().out


def test_a_line_says_how_far_the_run_is(capsys):
    assert shown("lines", capsys, ROW) == (
        "ppo2 CartPole-v1: 50%, 500 of 1,000 steps, 250 steps/s, 00:02 left; mean return 21.5; policy_loss -0.0125, "
        "value_loss 2\na [line] of one's own\n")
    nothing = dict.fromkeys(ROW) | {"total_timesteps": 10, "sps": 1.0}
    assert "1%, 10 of 1,000 steps, 1 steps/s, 16:30 left\n" in shown("lines", capsys, nothing)


def test_a_table_has_every_figure(capsys):
    out = shown("table", capsys, ROW)
    assert "| eprewmean       |         21.5 |\n" in out and "| kl              |              |\n" in out


def test_a_picture_is_drawn_and_taken_away(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    out = shown("live", capsys, ROW, ROW | {"eprewmean": 300.0, "total_timesteps": 1000})
    for words in ("500 of 1,000", "1,000 of 1,000", "21.5", "300", "policy_loss -0.0125", "env 25%, update 75%",
                  "a [line] of one's own"):
        assert words in out
    assert spark([21.5, 300.0]) in out and "\x1b[?25h" in out and out.rindex("\x1b[2K") > out.rindex("1,000 of 1,000")


def test_numbers_as_a_line():
    assert spark([0, 1, 2, 7]) == "\u2581\u2582\u2583\u2588" and spark([3, 3]) == "\u2581\u2581" and spark([]) == ""
    assert len(spark(list(range(1000)))) == 40 and spark([1, 2], "ascii") == ""
    assert [clock(s) for s in (4, 3600, 93784)] == ["00:04", "01:00:00", "26:03:04"]


def test_no_colour_codes_where_there_is_no_terminal(capsys):
    view = make_view(None, "a run", 10, None)
    view.row({"total_timesteps": 1, "sps": 1.0, "time_elapsed": 1.0}, last=True)
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_no_picture_in_pipes_and_files_whatever_says_that_colours_are_wanted(name, capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(name, "1")
    assert type(make_view(None, "a run", 10, None)) is View
    monkeypatch.setattr(sys, "stdout", None)  # as under pythonw
    view = make_view(None, "a run", 10, None)
    view.say("nobody hears it")
    assert type(view) is View


class Notes(Tracker):
    """Keeps what it is told."""

    told = []  # noqa: RUF012  (of the test)

    def start(self, title, config, resumed):
        self.told.append((title, config["config"]["nsteps"], resumed))

    def row(self, figures, steps):
        self.told.append((steps, figures))

    def close(self):
        self.told.append("closed")


class Half:
    """No tracker: it has not all of the methods."""

    def row(self, figures, steps):
        pass


def test_a_tracker_of_ones_own_is_told_everything(main, tmp_path, uncompiled):
    Notes.told.clear()
    run = ["--env=CartPole-v1", "--num_env=2", "--nsteps=8", "--nminibatches=2", "--noptepochs=1", "--log_path=r"]
    assert main(*run, "--num_timesteps=32", "--eval_interval=2", "--eval_episodes=1",
                "--track=tests.plumbing.test_logger:Notes").returncode == 0
    (start, first, evaluation, second, end) = Notes.told
    assert start == ("ppo2 CartPole-v1", 8, False) and end == "closed"
    assert [first[0], evaluation[0], second[0]] == [16, 32, 32] and "eval/mean" in evaluation[1]
    assert set(first[1]) <= set(second[1]) and None not in first[1].values() and "policy_loss" in first[1]
    done = main("--resume=r")
    assert done.returncode == 2 and "which imports a module: if you trust it, give --track=" in done.stderr
    for name, words in (("wandb", "--track=wandb needs a package"), ("wandbb", "did you mean wandb"),
                        ("nowhere:X", "cannot import the tracker"), ("tests.plumbing.test_logger:X", "has no class"),
                        ("tests.plumbing.test_logger:Half", "Half' has no method start: make it a subclass of"),
                        ("tests.plumbing.test_logger:Demanding", "Demanding' cannot be made: TypeError")):
        for more in ("--log_path=new", "--dry_run"):
            done = main(*run[:-1], "--num_timesteps=32", f"--track={name}", more)
            assert (done.returncode, done.stderr.count("\n")) == (2, 1) and words in done.stderr
    assert main(*run[:-1], "--num_timesteps=32", "--tensorboard", "--dry_run").returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


class Demanding(Notes):
    """One that cannot be made as it is asked for."""

    def __init__(self, key):
        pass


class Unreachable(Notes):
    """A service that is gone."""

    def row(self, figures, steps):
        super().row(figures, steps)
        raise ConnectionError("no route\nto host")


class Locked(Notes):
    """One that nobody may use."""

    def start(self, title, config, resumed):
        raise PermissionError("no key")


def test_a_tracker_that_fails_costs_no_run(main, uncompiled):
    Notes.told.clear()
    run = ["--env=CartPole-v1", "--num_env=2", "--nsteps=8", "--nminibatches=2", "--noptepochs=1", "--num_timesteps=48",
           "--log_path=r", "--track=tests.plumbing.test_logger:"]
    done = main(*run[:-1], run[-1] + "Unreachable")
    assert done.returncode == 0 and done.stdout.count("the tracker Unreachable failed after 16 steps, and the run goes "
                                                      "on without it: ConnectionError: no route\n") == 1
    assert len(Notes.told) == 2, "it is left alone then"
    done = main(*run[:-1], run[-1] + "Locked")
    assert (done.returncode, done.stderr) == (2, "error: the tracker Locked cannot start: PermissionError: no key\n")


def test_wandb_is_told_by_its_own_names(monkeypatch, tmp_path):
    calls = []
    run = SimpleNamespace(id="abc", log=lambda figures, step: calls.append((step, figures)),
                          finish=lambda: calls.append("finish"))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **given: calls.append(given) or run))
    for resumed in (False, True):
        tracker = Wandb()
        tracker.start("ppo2 CartPole-v1", {"run": {"log_path": str(tmp_path)}}, resumed)
        tracker.row({"lr": 1.0}, 5)
        tracker.close()
    assert calls[1:3] == [(5, {"lr": 1.0}), "finish"] and calls[0]["dir"] == str(tmp_path)
    assert [(calls[i]["id"], calls[i]["resume"]) for i in (0, 3)] == [(None, None), ("abc", "allow")]
