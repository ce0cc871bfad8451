"""`list`, `check` and `doctor`: commands that look and say what they find."""

import importlib.metadata
import json
import sys

import gymnasium as gym
import numpy as np
import pytest

from baselines_lite import registry
from baselines_lite.common.envs.env_rules import fault_of_reset
from baselines_lite.common.networks.options import BUILT_IN
from baselines_lite.common.system.errors import UserError
from baselines_lite.tools import doctor
from tests.conftest import ROOT


def test_what_there_is_to_choose_from(main):
    done = main("list")
    words = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert done.returncode == 0 and words == [*registry.ALGORITHMS, *BUILT_IN]
    done = main("list", "--family=classic_control", "--alg=ppo2,deepq")
    assert "ppo2, preset default:\n  --num_env=8 --nsteps=32" in done.stdout
    assert "deepq, preset baselines:" in done.stdout
    assert "CartPole-v1" in done.stdout and "Ant-v5" not in done.stdout
    assert "PongNoFrameskip-v4" in main("list", "--family=atari", "--alg=acer").stdout
    done = main("list", "--family=atari", "--alg=ppo2,ddpg").stdout
    listed = [line for line in done.splitlines() if line.startswith("  ")]
    assert "ALE/Pong-v5" in done and " Pong-v4" not in "".join(listed) and "Adventure-v0: Adventure-v0 skips a" in done
    assert "ddpg takes actions Box, which no environment here has" in done
    done = main("list", "--family=toy_text", "--alg=ddpg")
    assert (done.stdout, done.stderr) == ("ddpg takes actions Box, which no environment here has\n", "")
    done = main("list", "--family=mujoco", "--alg=ddpg,deepq")
    assert "with actions Box, for ddpg:" in done.stdout and "Ant-v5" in done.stdout and done.stderr == ""
    assert "phys2d/CartPole-v" in main("list", "--family=other").stdout.partition("not here")[2]
    for flag, word in (("--family=atary", "did you mean atari"), ("--alg=ppo3", "did you mean ppo2"), ("x", "x")):
        done = main("list", flag)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1) and word in done.stderr


class Env(gym.Env):
    """Keeps the rules, but for what a keyword says."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(2)

    def __init__(self, unseeded=False, nan=False, blind=False, old=False, raises=False, wide=False, steps=5, later=None,
                 state=None):
        self.unseeded, self.nan, self.old, self.raises, self.wide, self.steps = unseeded, nan, old, raises, wide, steps
        self.blind, self.later, self.state = blind, later, state

    def see(self):
        rng = np.random if self.unseeded else self.np_random
        seen = (rng.uniform(-1, 1, size=2) * (9 if self.wide else 1)).astype(np.float32)
        return np.array([np.nan, seen[0]], np.float32) if self.blind else seen

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = self.steps
        if self.later == "bare" and seed is None:
            return self.see()
        if self.later == "seed" and seed is None:
            raise ValueError("needs a seed")
        return self.see(), {}

    def step(self, action):
        self.left -= 1
        if self.raises:
            raise ValueError("the wheel came off")
        result = self.see(), np.nan if self.nan else 1.0, self.left == 0, False, {}
        return result[:4] if self.old else result


class Old(Env):
    def reset(self):
        return super().reset()[0]


class Foreign:
    """What the old Gym's environments are to Gymnasium."""


class Tells(Env):
    """Offers a state, of which no file could hold some."""

    def get_state(self):
        return {int(key) if key.isdigit() else key: value for key, value in self.state.items()}

    def set_state(self, state):
        if "left" not in state:
            raise ValueError("nothing is left")


for kind in (Env, Old, Foreign, Tells):
    gym.register(f"{kind.__name__}-v0", kind)


@pytest.mark.parametrize(("kwargs", "status", "sentences"), [
    ("{}", 0, ["20 episodes of 5 to 5 steps, returns 5 to 5", "no rule of Gymnasium is broken", "get_state"]),
    ('{"steps": 500}', 0, ["no episode has ended within 100 steps"]),
    ('{"wide": true}', 1, [" of 100 observations lie outside of the space's bounds", "1 rule of Gymnasium b"]),
    ('{"unseeded": true}', 1, ["broken: reset(seed=0) gave two observations that differ", "do not repeat themselves"]),
    ('{"nan": true}', 1, ["broken: step() gave a reward that is not finite: nan", "1 rule of Gymnasium broken"]),
    ('{"blind": true}', 1, ["broken: reset() gave an observation that is not finite: [", "2 rules of Gymnasium b"]),
    ('{"old": true}', 1, ["broken: step() gave a tuple of 4 values, where a tuple"]),
    ('{"raises": true}', 1, ["raised ValueError: the wheel came off"])])
def test_an_environment_is_looked_at(kwargs, status, sentences, main):
    done = main("check", "Env-v0", "--steps=100", f"--env_kwargs={kwargs}")
    assert (done.returncode, done.stderr) == (status, "")
    for sentence in sentences:
        assert sentence in done.stdout, done.stdout


@pytest.mark.parametrize(("name", "kwargs", "words"), [
    ("Env", {"later": "bare"}, "broken: reset() gave float32 of shape (2,), where a tuple"),
    ("Env", {"later": "seed"}, "broken: reset() raised ValueError: needs a seed"),
    ("Tells", {"state": {"0": 1}}, "broken: its state cannot be kept in checkpoints: Tells.get_state() must give"),
    ("Tells", {"state": {}}, "broken: its state cannot be kept in checkpoints: nothing is left"),
    ("Tells", {"state": {"left": 1}}, "its state can be kept in checkpoints\nno rule of Gymnasium is broken")])
def test_later_resets_and_the_state_are_tried(name, kwargs, words, main):
    done = main("check", f"{name}-v0", "--steps=20", f"--env_kwargs={json.dumps(kwargs)}")
    assert words in done.stdout and (done.returncode, done.stderr) == (words.startswith("broken"), ""), done.stdout


@pytest.mark.parametrize(("name", "words"), [
    ("Old-v0", "broken: Old.reset does not take seed"), ("Foreign-v0", "must inherit from the gymnasium.Env class")])
def test_the_old_gym_breaks_rules(name, words, main):
    done = main("check", name)
    assert done.returncode == 1 and done.stderr == "" and words in done.stdout
    assert "1 rule of Gymnasium broken" in done.stdout


def test_the_old_reset_is_named():
    assert "not the old observation alone" in fault_of_reset(np.zeros(2, np.float32), Env.observation_space)


@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "ALE/Pong-v5"])
def test_a_look_is_as_quiet_as_a_run(env_id, cli):
    done = cli("check", env_id, "--steps=5")
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_registered_keeps_the_rules(main):
    done = main("check", "CartPole-v1", "--steps=50")
    assert done.returncode == 0 and "its state can be kept in checkpoints" in done.stdout
    done = main("check", "Blackjack-v1", "--steps=50")
    assert done.returncode == 0 and "observations Tuple(" in done.stdout
    assert "which environment?" in main("check").stderr
    assert "did you mean CartPole-v1" in main("check", "CartPol-v1").stderr


@pytest.mark.parametrize(("installed", "fault"), [
    ("1.26.0", None), ("2.9", None), ("1.25.9", "numpy is 1.25.9, not >=1.26"), ("3.0.0", "numpy is 3.0.0, not <3"),
    ("3.0rc1", "numpy is 3.0rc1, not <3"), (None, "numpy is missing")])
def test_releases_out_of_bounds_are_told(installed, fault, monkeypatch):
    def version(name):
        if installed is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert doctor.fault_of("numpy<3,>=1.26") == fault


def launcher(tmp_path, script):
    path = tmp_path / "mpirun"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(("script", "words"), [
    ("echo found 1 by MPICH; echo found 1 by MPICH", "do not find each other, because that launcher is of another MPI"),
    ("echo no slots >&2; exit 1", "two processes do not start: no slots"),
    ("echo found 2 by MPICH", "two processes find each other")])
def test_a_launcher_that_does_not_go_with_the_library_is_told(script, words, tmp_path, monkeypatch):
    launcher(tmp_path, script)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (found,) = doctor.mpi()
    assert words in found.text and found.good == ("find each other" in words and "do not" not in words)


def test_a_launcher_that_no_shell_finds_is_told_with_what_mends_it(tmp_path, monkeypatch):
    launcher(tmp_path, "echo found 2 by MPICH")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    works, hidden = doctor.mpi()
    assert works.good and hidden.good is False and not hidden.needed
    assert "one process runs without it" in hidden.text and f'export PATH={tmp_path}:"$PATH"' in hidden.text
    (tmp_path / "mpirun").unlink()
    (found,) = doctor.mpi()
    assert found.good is False and not found.needed and "one process runs without it" in found.text


@pytest.mark.parametrize(("code", "words"), [
    ("raise ImportError('libEGL.so.1: cannot open')", "cannot be imported: libEGL.so.1: cannot open"),
    ("import no_such_part", "needs a missing package (No module named 'no_such_part'); pip install")])
def test_why_mujoco_cannot_be_imported_is_told(code, words, cli, tmp_path):
    (tmp_path / "mujoco.py").write_text(code)
    done = cli("check", "HalfCheetah-v5", env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1


def test_what_keeps_runs_back_is_the_exit_status(main, monkeypatch):
    """Each part is tried as itself above and in use; here only what comes of it."""
    parts = "python", "packages", "tensorflow", "cores", "mpi", "environments", "video"
    for part in parts:
        monkeypatch.setattr(doctor, part, lambda part=part: iter([doctor.Finding(part != "mpi", part)]))
    done = main("doctor")
    assert done.returncode == 0 and "missing mpi\n" in done.stdout and "training would run here" in done.stdout

    def fails():
        raise UserError("it has no wheel")

    monkeypatch.setattr(doctor, "environments", lambda: iter([doctor.tried("cars", fails, needed=True)]))
    done = main("doctor")
    assert done.returncode == 1 and "BROKEN  cars: it has no wheel\n" in done.stdout


def test_doctor_here(main, monkeypatch):
    """As it is: two processes are started, and two environments drawn."""
    monkeypatch.setenv("PATH", str(ROOT / "nowhere"), prepend=":")
    done = main("doctor")
    assert done.returncode == 0, done.stdout
    assert f"ok      Python {sys.version.split()[0]}" in done.stdout and "ok      Atari can be stepped" in done.stdout
    assert "two processes find each other" in done.stdout
