"""Whatever ends a run after its first logged update leaves that one's model, and says where it came from."""

import hashlib
from unittest.mock import patch

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from baselines_lite import UserError, load, ppo2, registry
from baselines_lite.acer import acer
from baselines_lite.common.experiment.experiment import Experiment
from baselines_lite.common.optim.minibatch import Minibatches
from tests.plumbing.test_table import SHORT

SPACE = gym.spaces.Box(-1, 1, (2,))


class Breaks(gym.Env):
    """Raises an exception at its step number `after`; episodes of five steps."""

    observation_space = SPACE

    def __init__(self, after, error, action_space):
        self.action_space, self.after, self.error, self.steps = action_space, after, error, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.normal(size=2).astype(np.float32), {}

    def step(self, action):
        self.steps += 1
        if self.steps == self.after:
            raise self.error
        return self.np_random.normal(size=2).astype(np.float32), self.np_random.normal(), False, self.steps % 5 == 0, {}


@pytest.fixture(autouse=True)
def uncompiled():
    """Runs updates operation by operation: compiling one takes seconds."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def wholes():
    """What each whole update has left, as arrays: parameters and statistics."""
    found, log = [], Experiment.log

    def logging(self, *values):
        log(self, *values)
        found.append({name: np.array(value) for name, value in self.policy.contents().items()})

    with patch.object(Experiment, "log", logging):
        yield found


def broken_run(name, path, error, after=30, **options):
    """A run in which the second of two environments raises at that step; the exception that came out."""
    numbers = iter(range(9))
    space = SPACE if name == "ddpg" else gym.spaces.Discrete(2)
    options = {**SHORT[name], "save_path": path, "print_interval": 1e9, "seed": 3, **options}
    with pytest.raises(type(error)) as raised:
        registry.find(name).learn(
            lambda: Breaks(after if next(numbers) == 1 else 10**9, error, space), 3200, **options)
    return raised.value


def is_that_of(path, whole):
    """Whether a file holds just this."""
    found = load(path).contents()
    return found.keys() == whole.keys() and all(np.array_equal(found[k], whole[k]) for k in whole)


@pytest.mark.parametrize("name", registry.ALGORITHMS)
def test_an_exception_in_an_environment(name, tmp_path, wholes, capsys):
    path = str(tmp_path / "m")
    error = broken_run(name, path, RuntimeError("the wheel came off"))
    assert error.__notes__ == ["This came from environment 1 of rank 0."]
    assert is_that_of(path, wholes[-1]) and len(wholes) == 3
    assert f"the policy after 48 steps, the last logged update, is saved: {path}" in capsys.readouterr().out
    if name != "acer":
        assert not is_that_of(path, wholes[-2])


def test_updates_without_a_row_are_not_kept(tmp_path, wholes, capsys):
    path = str(tmp_path / "m")
    broken_run("a2c", path, RuntimeError("the wheel came off"), log_interval=2)
    assert is_that_of(path, wholes[1]) and len(wholes) == 3
    assert "the policy after 32 steps, the last logged update, is saved" in capsys.readouterr().out


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), UserError("no more fuel")])
def test_ends_of_other_kinds(error, tmp_path, wholes):
    assert broken_run("a2c", str(tmp_path / "m"), error, log_path=str(tmp_path / "log")) is error
    assert is_that_of(tmp_path / "m", wholes[-1]) and not list(tmp_path.rglob("*.lock"))


def raising(function, at):
    """The function, which raises at that call."""
    calls = iter(range(1, 10**9))

    def call(*given, **named):
        if next(calls) == at:
            raise ArithmeticError("half-way")
        return function(*given, **named)

    return call


STEPS = (Minibatches, "__call__")


@pytest.mark.parametrize(("name", "place", "at"), [
    ("vpg", STEPS, 6), ("npg", STEPS, 3), ("trpo_mpi", STEPS, 3), ("a2c", STEPS, 3), ("ppo2", (Experiment, "log"), 3),
    ("acer", (acer.Update, "__call__"), 9)])
def test_half_of_an_update_is_not_kept(name, place, at, tmp_path, wholes):
    """Neither parameters that a part of it has moved, nor statistics of its rollout."""
    path = str(tmp_path / "m")
    with patch.object(*place, raising(getattr(*place), at)):
        error = broken_run(name, path, ArithmeticError(), after=10**9, normalize_observations=True)
    assert not hasattr(error, "__notes__")
    assert is_that_of(path, wholes[-1])


def test_before_the_first_update_nothing_is_saved(tmp_path):
    broken_run("ppo2", str(tmp_path / "m"), RuntimeError("at once"), after=5)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("what", ["parameters", "statistics"])
def test_what_is_not_finite_is_not_saved(what, tmp_path):
    log = Experiment.log

    def spoil(self, *values):
        if what == "parameters":
            self.policy.pi_head.b.assign_add([np.nan, 0.0])
        else:
            self.policy.normalize.obs.mean = np.full(2, np.nan)
        log(self, *values)
        raise RuntimeError

    with patch.object(Experiment, "log", spoil):
        broken_run("ppo2", str(tmp_path / "m"), RuntimeError(), after=10**9, normalize_observations=True)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_which_environment_of_a_vector_environment(mode):
    venv = SyncVectorEnv([lambda n=n: Breaks(9 if n == 2 else 999, LookupError(), gym.spaces.Discrete(2))
                          for n in range(3)], autoreset_mode=mode)
    with pytest.raises(LookupError) as raised:
        ppo2.learn(venv, 480, nsteps=16, print_interval=1e9)
    assert raised.value.__notes__ == ["This came from environment 2 of rank 0."]
    venv = SyncVectorEnv([lambda: Breaks(10**9, LookupError(), gym.spaces.Discrete(2))], autoreset_mode=mode)
    with patch.object(venv, "step", raising(venv.step, 3)), pytest.raises(ArithmeticError) as raised:
        ppo2.learn(venv, 480, nsteps=16, print_interval=1e9)


def test_a_model_that_cannot_be_saved_hides_no_exception(tmp_path, capsys):
    (tmp_path / "models").mkdir()

    class Removes(Breaks):
        def step(self, action):
            if self.steps == self.after - 1:
                (tmp_path / "models").rename(tmp_path / "gone")
                (tmp_path / "models").touch()
            return super().step(action)

    with pytest.raises(RuntimeError, match="off"):
        ppo2.learn(lambda: Removes(40, RuntimeError("off"), gym.spaces.Discrete(2)), 480, num_env=1, nsteps=16,
                   nminibatches=1, save_path=str(tmp_path / "models/m"), print_interval=1e9)
    assert "cannot write the model file" in capsys.readouterr().err


def test_under_mpirun_the_rank_that_fails_saves(program, tmp_path):
    """Rank 0 is in a collective when rank 1 fails, and ends with it; updates are compiled."""
    path = tmp_path / "log/model.safetensors"
    done = program(f"environment_of_one_rank_fails,{path.parent}")
    assert done.returncode != 0 and done.stderr.count("RuntimeError: the wheel came off") == 1
    assert "rank 1 of 2 failed" in done.stderr and "This came from environment 1 of rank 1." in done.stderr
    digests = (tmp_path / "log-digests-1").read_text().split()
    assert len(digests) == 3 and digests[-1] == digest(load(path)) and len(set(digests)) == 3
    assert done.stdout.count(f"the last logged update, is saved: {path}") == 1


def digest(policy):
    """Of all that a policy's file holds."""
    return hashlib.sha256(b"".join(np.array(value).tobytes() for value in policy.contents().values())).hexdigest()
