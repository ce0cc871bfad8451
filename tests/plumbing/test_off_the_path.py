"""What environments, disks and shells do to a run that no tutorial shows."""

import csv
import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

import baselines_lite
from baselines_lite import UserError, a2c
from baselines_lite.common.experiment.experiment import Experiment
from baselines_lite.common.experiment.logger import provenance
from baselines_lite.common.experiment.resume import check_same
from baselines_lite.common.experiment.view import make_view
from baselines_lite.common.networks.builders import build
from baselines_lite.common.networks.parameters import trainable
from baselines_lite.common.optim.mpi_adam import MpiAdam
from baselines_lite.common.sampling.replay_buffer import ReplayBuffer
from baselines_lite.common.system.mpi import Comm, MpiComm, exit_status
from baselines_lite.common.system.watchdog import Watchdog
from baselines_lite.run import console, prepare_streams
from tests.logs import reproducible

SMALL = dict(num_env=2, nsteps=8, threads=1, view="lines", print_interval=1e9, log_interval=1)
pytestmark = pytest.mark.usefixtures("uncompiled")


class Odd(gym.Env):
    """Episodes of ten steps; does something at the start of each, and at the fiftieth step of this environment."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(2)

    def __init__(self, at_fifty=lambda: None, at_reset=lambda: None):
        self.at_fifty, self.at_reset, self.steps = at_fifty, at_reset, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at_reset()
        return self.see(), {}

    def see(self):
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)

    def step(self, action):
        self.steps += 1
        if self.steps == 50:
            self.at_fifty()
        return self.see(), 1.0, self.steps % 10 == 0, False, {}


def learn(env, updates=10, **options):
    return a2c.learn(env, 16 * updates, **{**SMALL, **options})


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def test_a_pipe_of_an_environment_that_breaks_is_an_error(monkeypatch):
    """Only where stdout's reader has gone a broken pipe is the end of the output."""
    def main(arguments):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("baselines_lite.command_line.main", main)
    monkeypatch.setattr(signal, "signal", lambda *given: None)
    with pytest.raises(BrokenPipeError):
        console()


def test_an_environment_that_exits_is_no_success(tmp_path, capfd):
    with pytest.raises(SystemExit) as found:
        learn(lambda: Odd(sys.exit), log_path=tmp_path)
    assert found.value.code == 1
    assert "the run ends early, after update 6: something in it called sys.exit()" in capfd.readouterr().err
    with pytest.raises(SystemExit) as found:
        learn(lambda: Odd(lambda: sys.exit(5)))
    assert found.value.code == 5


def test_a_thread_that_exits_ends_itself_alone(monkeypatch):
    """sys.exit() in a thread ends nothing else, in Python; under mpirun as well."""
    for module, name in ((sys, "excepthook"), (threading, "excepthook")):
        monkeypatch.setattr(module, name, getattr(module, name))
    aborted = []
    MpiComm._install_hooks(SimpleNamespace(abort_with=aborted.append))
    fault = ArithmeticError()
    for error in (SystemExit(), fault):
        threading.excepthook(SimpleNamespace(exc_type=type(error), exc_value=error))
    assert aborted == [fault]
    assert [exit_status(SystemExit(code)) for code in (None, 0, 3, "words")] == [1, 1, 3, 1]


def test_a_smaller_budget_than_what_is_done_ends_at_once(tmp_path, capfd):
    learn("CartPole-v1", 6, lr="1e-3", log_path=tmp_path)
    learn("CartPole-v1", 3, lr="1e-3", log_path=tmp_path, resume="auto")
    assert "used the whole budget after 96 steps" in capfd.readouterr().out.splitlines()[-5]


def test_a_full_disk_ends_nothing_and_loses_no_row(tmp_path, capfd):
    """Files that may not grow any more, from the third update to the seventh: half of a row still goes in."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def callback(after):
        if after.nupdates == 3:
            full = (tmp_path / "some/progress.csv").stat().st_size + 9
            resource.setrlimit(resource.RLIMIT_FSIZE, (full, before[1]))
        if after.nupdates == 7:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    options = dict(checkpoint_interval=2, checkpoint_seconds=0, eval_interval=2, eval_episodes=1)
    learn(Odd, log_path=tmp_path / "whole", **options)
    try:
        learn(Odd, log_path=tmp_path / "some", callback=callback, **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    err = capfd.readouterr().err
    assert err.count("cannot be written (File too large): the run goes on") == 1
    assert len(re.findall("no checkpoint after update 4: .*File too large.*; the run goes on without it", err)) == 1
    for name in ("progress", "monitor", "evaluations"):
        assert reproducible(tmp_path / f"some/{name}.csv") == reproducible(tmp_path / f"whole/{name}.csv")
    assert {"00000002", "00000008", "00000010"} <= set(os.listdir(tmp_path / "some/checkpoints"))


def test_a_disk_that_stays_full_still_gives_the_policy(tmp_path, monkeypatch, capfd):
    """Of which a file was not asked for in another place: what can be written is."""
    monkeypatch.setattr("baselines_lite.common.experiment.report.plot_run", lambda *given: os.stat("/none/such"))
    learn(Odd, log_path=tmp_path)
    assert "curve: not drawn: No such file" in capfd.readouterr().out


def test_a_start_that_fails_gives_its_folder_back(tmp_path):
    learn(Odd, 2, lr="1e-3", log_path=tmp_path)
    for file in (tmp_path / "checkpoints").glob("*/rank-*"):
        file.write_bytes(b"")
    with pytest.raises(UserError, match="is whole"):
        learn(Odd, 2, lr="1e-3", resume=str(tmp_path))
    learn(Odd, 2, lr="1e-3", log_path=tmp_path)


def test_times_in_monitor_csv_go_on_after_a_pause(tmp_path):
    slowly = dict(env=lambda: Odd(at_reset=lambda: time.sleep(0.01)), log_path=tmp_path, lr="1e-3")
    learn(updates=8, **slowly)
    learn(updates=16, resume="auto", **slowly)
    times = [float(row["t"]) for row in read(tmp_path / "monitor.csv")]
    progress = [float(row["time_elapsed"]) for row in read(tmp_path / "progress.csv")]
    assert times == sorted(times) and progress[7] < times[-1] < progress[-1]


def test_an_environment_that_goes_to_another_folder(tmp_path, monkeypatch, capfd):
    """Paths are those of the folder in which the run was started."""
    (tmp_path / "start").mkdir()
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "start")
    learn(lambda: Odd(at_reset=lambda: os.chdir(tmp_path / "other")), log_path="log", save_path="there/m.safetensors",
          checkpoint_interval=1, checkpoint_seconds=0)
    assert "log:   log/progress.csv" in (out := capfd.readouterr().out) and "model: there/m.safetensors" in out
    assert {"progress.csv", "checkpoints", "curve.png", "config.json"} <= set(os.listdir(tmp_path / "start/log"))
    assert (tmp_path / "start/there/m.safetensors").exists() and not os.listdir(tmp_path / "other")


def test_a_current_folder_that_was_deleted(tmp_path, monkeypatch, capfd):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    os.rmdir(tmp_path / "gone")
    learn(Odd, 2, log_path=tmp_path / "log")
    assert f"log:   {tmp_path}/log/progress.csv" in capfd.readouterr().out


def test_numbers_of_numpys_and_paths_are_remembered(tmp_path):
    given = dict(seed=np.int64(3), gamma=np.float32(0.5), save_path=tmp_path / "own.safetensors", num_env=np.int32(4))
    whole = learn(Odd, 4, **given, log_path=tmp_path / "run")
    again = a2c.learn(Odd, resume=tmp_path / "run", threads=1, view="lines")
    for one, other in zip(whole.variables, again.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert not (tmp_path / "run/model.safetensors").exists()


def test_videos_are_begun_or_not():
    then = {"algorithm": "a2c", "env": "E", "ranks": 1, "num_timesteps": 9, "save_video_interval": 0}
    for before, now, word in ((0, 100, "without"), (100, 0, "with ")):
        with pytest.raises(UserError, match=f"begun {word}.*leave that as it was"):
            check_same({**then, "save_video_interval": before}, {**then, "save_video_interval": now}, None)
    check_same({**then, "save_video_interval": 50}, {**then, "save_video_interval": 100}, None)


def test_a_budget_below_the_usual_start_of_learning_goes_on(main, tmp_path):
    """What is checked before a run is read is checked with what it was given."""
    flags = ("--num_timesteps=300", "--learning_starts=20", "--nsteps=20", "--train_freq=4", "--buffer_size=500")
    assert main("--alg=deepq", "--env=CartPole-v1", *flags, "--log_path=run", "--threads=1").returncode == 0
    done = main("--resume=run", "--threads=1")
    assert done.returncode == 0 and "used the whole budget after 300 steps" in done.stdout


def test_a_runs_config_beats_the_presets_of_run_options(main, tmp_path):
    """a2c's preset writes a row of each hundredth update."""
    flags = ("--alg=a2c", "--env=CartPole-v1", "--num_timesteps=640", "--threads=1")
    assert main(*flags, "--log_interval=1", "--log_path=one").returncode == 0
    assert main("--config=one/config.json", "--log_path=two").returncode == 0
    assert reproducible(tmp_path / "one/progress.csv") == reproducible(tmp_path / "two/progress.csv")


def test_keywords_of_an_environment_in_a_config_file(main, tmp_path):
    (tmp_path / "c.json").write_text(json.dumps({"alg": "ppo2", "env": "MountainCarContinuous-v0",
                                                 "env_kwargs": {"goal_velocity": 0.01}}))
    done = main("--config=c.json", "--dry_run")
    assert done.returncode == 0 and '"goal_velocity": 0.01' in done.stdout


def test_a_second_network_and_a_second_buffer_that_nobody_keeps_are_named(tmp_path, monkeypatch, capfd):
    """With an optimizer that is kept; the policy's own networks are."""
    log = Experiment.log

    def of_a_loop(exp, *figures):
        net = build("mlp", 2, rng=np.random.default_rng(0), dtype=tf.float32, compute=tf.float32, name="n", options={})
        optimizer, more = MpiAdam(trainable(net), exp.comm), ReplayBuffer(9, 1, np.zeros(2, np.float32), np.zeros(()))
        policy_net = exp.policy.pi_net
        if exp.nupdates == 0:
            exp.keep(optimizer=optimizer)
        log(exp, *figures)
        assert policy_net and more is not None

    monkeypatch.setattr(Experiment, "log", of_a_loop)
    learn(Odd, 1, log_path=tmp_path)
    assert "what nobody keeps: ReplayBuffer, MpiAdam.variables, net. Name it" in capfd.readouterr().out


def test_a_loss_that_is_not_known_yet(tmp_path, monkeypatch):
    log = Experiment.log
    monkeypatch.setattr(Experiment, "log", lambda exp, rollout, stats: log(exp, rollout, {**stats, "aux_loss": None}))
    learn(Odd, 1, log_path=tmp_path)
    assert read(tmp_path / "progress.csv")[0]["aux_loss"] == ""


def test_statistics_that_a_loss_does_not_give_are_no_others(monkeypatch):
    """The norm of the gradient, which follows upon them, say."""
    monkeypatch.setattr("baselines_lite.a2c.a2c.STATS", ("policy_loss", "value_loss", "entropy", "aux"))
    with pytest.raises(ValueError, match="zip"):
        learn(Odd, 1)


def test_nobody_need_hear_what_is_said(monkeypatch, tmp_path):
    """A closed stdout, as services have it, and one without the letters of a path."""
    for stdout in (None, ascii := io.TextIOWrapper(io.BytesIO(), "ascii")):
        monkeypatch.setattr(sys, "stdout", stdout)
        make_view("lines", "a run", 1, 1).say("fünf")
    assert ascii.buffer.getvalue() == b"f\\xfcnf\n"
    monkeypatch.setattr(sys, "stdout", None)
    prepare_streams()
    print("fünf", flush=True)


def test_an_installed_package_has_no_commit_of_the_project_around_it(tmp_path, monkeypatch):
    package = tmp_path / ".venv/baselines_lite"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    git = ("git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    monkeypatch.setattr(baselines_lite, "__file__", str(package / "__init__.py"))
    assert provenance()["commit"] is None
    subprocess.run([*git, "add", "-f", str(package)], check=True)
    assert len(provenance()["commit"].partition("+")[0]) == 40


def test_a_watch_that_waits_for_ages(capfd):
    with Watchdog(Comm(), 1e12, lambda frames: None):
        Path("/dev/null").read_bytes()
    assert capfd.readouterr().err == ""


