"""Ctrl-C and SIGTERM: in training, in a start, while playing. What ends by mpirun's signals is in test_mpi.py."""

import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from unittest.mock import DEFAULT, Mock, patch

import pytest

from baselines_lite import load, ppo2
from baselines_lite.common.experiment.evaluation import Player
from baselines_lite.common.experiment.experiment import Experiment
from baselines_lite.common.system.stop_signals import STOP, StopSignals
from tests import HANG
from tests.conftest import MPIRUN, ROOT, until

OPTIONS = dict(num_env=2, nsteps=16, nminibatches=1, noptepochs=1)


@pytest.fixture
def signal_in_update():
    """Lets this process get a signal in a run's update of that number."""
    log = Experiment.log

    def arrange(number, update):
        def logging(self, *values):
            if self.nupdates + 1 == update:
                signal.raise_signal(number)
            log(self, *values)

        return patch.object(Experiment, "log", logging)

    return arrange


@pytest.mark.parametrize("number", STOP, ids=lambda number: number.name)
def test_learn_returns_the_policy_which_says_that_a_signal_stopped_it(number, signal_in_update, tmp_path, capsys,
                                                                      uncompiled):
    before, path = [signal.getsignal(n) for n in STOP], str(tmp_path / "model")
    with signal_in_update(number, 3):
        policy = ppo2.learn("CartPole-v1", 3200, save_path=path, print_interval=1e9, **OPTIONS)
    assert policy.stopped_by is number and load(path).stopped_by is None
    out = capsys.readouterr().out
    assert out.count(f"{number.name}: the run stops after this update; a second one ends it at once\n") == 1
    assert f"stopped by {number.name} after 96 steps" in out
    assert [signal.getsignal(n) for n in STOP] == before and signal.set_wakeup_fd(-1) == -1
    assert ppo2.learn("CartPole-v1", 64, print_interval=1e9, **OPTIONS).stopped_by is None  # a sweep can go on


@pytest.mark.parametrize("first", sorted(set(STOP) - {signal.SIGTERM}))
def test_it_is_the_second_signal_that_is_answered(first):
    """Both have come before Python runs the first one's handler: it may be a while in a compiled update."""
    answered, before = [], {n: signal.signal(n, lambda number, frame: answered.append(number)) for n in STOP}
    signals = StopSignals(lambda number: None)
    try:
        signals.listen()
        signals._write.send(bytes([first, signal.SIGTERM]))  # as the interpreter does at once
        for number in (first, signal.SIGTERM):
            signals._handle(number, None)
        assert signals.number == first and answered == [signal.SIGTERM]
    finally:
        signals.restore()
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_second_ctrl_c_while_the_policy_is_saved_does_not_lose_it(tmp_path, uncompiled):
    replace = Mock(wraps=os.replace, side_effect=[KeyboardInterrupt, DEFAULT])
    with patch.object(os, "replace", replace), pytest.raises(KeyboardInterrupt):
        ppo2.learn("CartPole-v1", 64, save_path=str(tmp_path / "model"), print_interval=1e9, **OPTIONS)
    assert replace.call_count == 2 and load(str(tmp_path / "model"))
    assert os.listdir(tmp_path) == ["model"]


def test_the_command_line_makes_a_status_of_it_and_plays_nothing(main, signal_in_update, uncompiled):
    with signal_in_update(signal.SIGTERM, 2):
        done = main("--env=CartPole-v1", "--num_timesteps=3200", "--play", *(f"--{k}={v}" for k, v in OPTIONS.items()))
    assert done.returncode == 143 and "episode 1" not in done.stdout
    assert done.stderr == "stopped by SIGTERM: exit status 143, nothing is played\n"


def test_signals_that_come_while_no_handler_can_run():
    """The first is told of at once, and two are not one."""
    noticed, main_thread = threading.Event(), threading.main_thread().ident

    def press():
        signal.pthread_kill(main_thread, signal.SIGINT)
        assert noticed.wait(HANG)
        signal.pthread_kill(main_thread, signal.SIGINT)

    signals, thread = StopSignals(lambda number: noticed.set()), threading.Thread(target=press)
    signals.listen()
    try:
        with pytest.raises(KeyboardInterrupt):
            thread.start()
            while True:
                hashlib.pbkdf2_hmac("sha256", b"", b"", 1_000_000)  # some 300 ms without Python
    finally:
        signals.restore()
        thread.join()
    assert signals.number == signal.SIGINT


def start(folder, *flags, ranks=1, **variables):
    launch = [str(MPIRUN), "-np", str(ranks)] if ranks > 1 else []
    return subprocess.Popen([*launch, sys.executable, str(ROOT / "run.py"), *flags], cwd=folder, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
                            env={**os.environ, "DISPLAY": "", **variables})


def press_ctrl_c(process):
    """As a terminal does: to every process of the group."""
    os.killpg(process.pid, signal.SIGINT)
    try:
        return process.communicate(timeout=HANG)
    finally:
        process.kill()


@pytest.mark.parametrize("ranks", [1, 2])
def test_ctrl_c_ends_a_start_with_one_line(ranks, tmp_path):
    """In the middle of TensorFlow's import, when nothing has been written yet."""
    here, fake = tmp_path / "here", tmp_path / "fake"
    here.mkdir()
    fake.mkdir()
    (fake / "tensorflow.py").write_text("import time\nopen('importing', 'a').write('.')\n"
                                        "while True:\n    time.sleep(0.01)")
    process = start(here, "--env=CartPole-v1", ranks=ranks, PYTHONPATH=str(fake))
    until(lambda: (here / "importing").exists() and len((here / "importing").read_text()) == ranks, process)
    _, stderr = press_ctrl_c(process)
    lines = set(line for line in stderr.splitlines() if "mpiexec" not in line)
    assert process.returncode == 130 and lines == {"stopped by Ctrl-C"}, stderr
    assert os.listdir(here) == ["importing"]  # nor the folder that it had made


PLAY = """
import os, time
from pathlib import Path
import gymnasium as gym
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

class Stuck(CartPoleEnv):
    def step(self, action):
        Path("playing").write_text(str(os.getpid()))
        time.sleep(3600)

gym.register("Stuck-v0", Stuck)
"""


def test_the_first_ctrl_c_ends_playing(tmp_path, uncompiled):
    (tmp_path / "stuck.py").write_text(PLAY)
    ppo2.learn("CartPole-v1", 32, save_path=str(tmp_path / "model"), print_interval=1e9, **OPTIONS)
    process = start(tmp_path, "--load_path=model", "--env=stuck:Stuck-v0", "--play")
    until(lambda: (tmp_path / "playing").exists() and (tmp_path / "playing").read_text(), process)
    _, stderr = press_ctrl_c(process)
    assert process.returncode == 130 and stderr == "stopped by Ctrl-C\n"
    worker, deadline = int((tmp_path / "playing").read_text()), time.monotonic() + HANG
    while os.path.exists(f"/proc/{worker}"):
        assert time.monotonic() < deadline, "the worker is left behind"
        time.sleep(0.05)


def test_whatever_ends_playing_ends_its_worker(main, tmp_path, uncompiled):
    def interrupted(self):
        self.venv.step_async([0])
        raise KeyboardInterrupt

    ppo2.learn("CartPole-v1", 32, save_path=str(tmp_path / "model"), print_interval=1e9, **OPTIONS)
    with patch.object(Player, "step", interrupted), pytest.raises(KeyboardInterrupt):
        main("--load_path=model", "--play")
    assert not multiprocessing.active_children()
