"""What hangs and what dies is named, and ends the run. No limit of time here is one that a slow machine could miss."""

import os
import re
import signal
import subprocess
import sys
import time
from unittest.mock import patch

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector.async_vector_env import AsyncState

from baselines_lite import ppo2
from baselines_lite.common.envs.vec_env import make_vec_env
from baselines_lite.common.envs.workers import WorkerError, awaited
from baselines_lite.common.system import watchdog
from baselines_lite.common.system.mpi import Comm
from baselines_lite.common.system.watchdog import Watchdog
from tests import HANG
from tests.conftest import ROOT


def wait_for(condition):
    deadline = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < deadline, "it hangs"
        time.sleep(0.01)


class Looks(Comm):
    """Counts how often a watchdog looks."""

    def __init__(self, waits=None):
        self.waits, self.count = waits, 0

    @property
    def waiting(self):
        self.count += 1
        return self.waits


@pytest.fixture
def reports():
    """What watchdogs would have said before they ended this process."""
    told = []
    with patch.object(Watchdog, "strike", lambda self: told.append(self.report())):
        yield told


def test_workers_that_hang_or_die_are_named(reports):
    venv = make_vec_env("CartPole-v1", 2, vec="async")
    venv.reset(seed=0)
    actions, worker = np.zeros(2, int), venv.processes[1].pid
    os.kill(worker, signal.SIGSTOP)
    venv.step_async(actions)
    wait_for(venv.parent_pipes[0].poll)

    def strike(self):
        reports.append(self.report())
        os.kill(worker, signal.SIGCONT)

    with patch.object(Watchdog, "strike", strike), Watchdog(Comm(), 1.0, lambda frames: awaited(venv, frames)):
        venv.step_wait()  # comes back after that alone
    assert "the run has come no further for 1 s (stall_timeout): it waits for environment 1. It is ended" in reports[0]
    assert "in step_wait" in reports[0]

    os.kill(worker, signal.SIGSTOP)
    venv.step_async(actions)
    os.kill(worker, signal.SIGKILL)  # in the middle of a step
    death = re.escape("the worker process of environment 1 died (SIGKILL)") + "$"
    with pytest.raises(WorkerError, match=death):
        venv.step_wait()  # takes the other's answer
    venv._state = AsyncState.DEFAULT
    with pytest.raises(WorkerError, match=death):
        venv.step_async(actions)  # dead between two steps
    venv.close()
    assert not any(process.is_alive() for process in venv.processes)


class Stalls(gym.Env):
    """Its third step lasts until the watchdog has named it."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (1,)), gym.spaces.Discrete(2)

    def __init__(self, n, reports):
        self.n, self.reports, self.steps = n, reports, 0

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        if self.steps == 3 and self.n == 1:
            wait_for(lambda: any("it waits for environment 1." in told for told in self.reports))
        return np.zeros(1, np.float32), 0.0, False, False, {}


def test_a_run_is_watched_and_the_environment_named(reports, uncompiled):
    numbers = iter([0, 1])
    ppo2.learn(lambda: Stalls(next(numbers), reports), 8, num_env=2, nsteps=4, nminibatches=1, noptepochs=1,
               stall_timeout=1, print_interval=1e9)
    assert any("test_watchdog.py" in told and "in step\n" in told for told in reports)


def test_a_rank_that_waits_for_others_is_no_culprit(reports):
    comm = Looks("Allreduce")
    comm.rank, comm.size = 1, 4
    with Watchdog(comm, 0.1, lambda frames: None):
        wait_for(lambda: reports)
    assert comm.count > 2 * watchdog.LOOKS
    assert "rank 1 of 4 has waited for other ranks in Allreduce for 0.2 s, twice the stall_timeout" in reports[0]


def test_compiling_writing_and_steps_are_no_stall(reports):
    comm = Looks()
    with Watchdog(comm, 0.1, lambda frames: None), watchdog.paused():
        wait_for(lambda: comm.count > 3 * watchdog.LOOKS)
    assert not reports
    with Watchdog(comm, HANG, lambda frames: None), watchdog.paused():
        pass  # leaves at once
    with Watchdog(comm, 0, lambda frames: None):
        pass


def start(code):
    return subprocess.Popen([sys.executable, "-c", HANGS + code], cwd=ROOT, stderr=subprocess.PIPE, text=True)


HANGS = """
import ctypes, functools, sys, threading
from baselines_lite.common.system import stop_signals
from baselines_lite.common.system.mpi import Comm
from baselines_lite.common.system.watchdog import Watchdog

def hang(library):
    mutex = ctypes.create_string_buffer(256)
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="hangs by a lock of its C library")
def test_a_call_that_holds_pythons_lock_is_ended_too():
    process = start("with Watchdog(Comm(), 0.5, lambda frames: None):\n    hang(ctypes.PyDLL(None))")
    try:
        _, stderr = process.communicate(timeout=HANG)
    finally:
        process.kill()
    assert process.returncode == -signal.SIGABRT
    assert "the run has come no further for 0.5 s (stall_timeout), in a call that holds Python's lock" in stderr
    assert "in hang\n" in stderr


@pytest.mark.skipif(sys.platform != "linux", reason="hangs by a lock of its C library")
def test_the_second_signal_ends_what_hangs():
    process = start("stop_signals.GRACE = 0.1\nsay = functools.partial(print, file=sys.stderr, flush=True)\n"
                    "stop_signals.StopSignals(lambda number: say(number.name)).listen()\n"
                    "sys.setswitchinterval(1000)  # Python's lock is given away where it hangs, not before\n"
                    "begins = threading.Lock()\nbegins.acquire()\n"
                    "threading.Thread(target=lambda: begins.acquire() and say('listens'), daemon=True).start()\n"
                    "begins.release()\nhang(ctypes.CDLL(None))")
    with process:
        try:
            assert process.stderr.readline() == "listens\n"
            process.send_signal(signal.SIGUSR1)
            assert process.stderr.readline() == "SIGUSR1\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(HANG) == 128 + signal.SIGTERM
        finally:
            process.kill()


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs /proc")
def test_a_worker_in_a_step_that_never_ends_does_not_outlive_the_main_process():
    process = start("""
import os, time
import gymnasium as gym
from baselines_lite.common.envs.vec_env import make_vec_env

class Hangs(gym.Env):
    observation_space = action_space = gym.spaces.Discrete(1)
    def reset(self, seed=None, options=None):
        print(os.getpid(), file=sys.stderr, flush=True)
        time.sleep(3600)

if __name__ == "__main__":
    venv = make_vec_env(Hangs, 1, vec="async")
    venv.reset_async()
    time.sleep(3600)
""")
    with process:
        worker = int(process.stderr.readline())
        process.kill()
    wait_for(lambda: not os.path.exists(f"/proc/{worker}"))


def test_the_rank_that_stalls_is_named_and_ends_all(program):
    done = program("rank_that_stalls")
    assert done.returncode != 0
    assert "rank 1 of 2 has come no further for 1 s (stall_timeout): it waits for what its stack shows; the other " \
        "ranks wait for it. It is ended" in done.stderr
    assert "rank 0 of 2" not in done.stderr and "in rank_that_stalls\n" in done.stderr
