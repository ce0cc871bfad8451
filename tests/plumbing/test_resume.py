"""N updates, a stop, M updates: to the bit what N + M without a stop give."""

import copy
import itertools
import json
import re
from contextlib import contextmanager, nullcontext
from functools import partial
from unittest.mock import patch

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from baselines_lite import UserError, ppo2, registry
from baselines_lite.common.experiment import checkpoints, experiment
from baselines_lite.common.experiment.experiment import Experiment
from baselines_lite.common.experiment.resume import check_same
from baselines_lite.common.policies.actor_critic import ActorCritic
from baselines_lite.common.sampling.replay_buffer import PrioritizedReplayBuffer, ReplayBuffer
from baselines_lite.common.system.mpi import Comm
from tests.logs import reproducible
from tests.plumbing.test_table import SHORT

QUIET = dict(threads=1, print_interval=1e9)
pytestmark = pytest.mark.usefixtures("uncompiled")


@contextmanager
def stopping_after(updates):
    """Runs inside end after that many updates, as by a signal."""
    why = Experiment.why_stop
    with patch.object(Experiment, "why_stop",
                      lambda self, *given: "stopped here" if self.nupdates == updates else why(self, *given)):
        yield


def rows(folder):
    """Of progress.csv, monitor.csv and evaluations.csv, if there is one, each with its header."""
    files = [folder / f"{name}.csv" for name in ("progress", "monitor", "evaluations")]
    return [reproducible(file) for file in files if file.exists()]


def compare(tmp_path, name, env, updates=4, stop=2, again=None, **options):
    """Trains without a stop and with one; `again` are options to repeat when it goes on."""
    learn, options = registry.find(name).learn, {**SHORT[name], **QUIET, **options}
    whole = learn(env, log_path=tmp_path / "whole", **options)
    with stopping_after(stop):
        learn(env, log_path=tmp_path / "parts", **options)
    parts = learn(env, resume=str(tmp_path / "parts"), **QUIET, **(again or {}))
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")
    assert len(rows(tmp_path / "parts")[0]) == 1 + updates
    for mine, other in zip(whole.variables, parts.variables, strict=True):
        np.testing.assert_array_equal(mine.numpy(), other.numpy())
    assert {k: v.tolist() for k, v in whole.normalize.statistics().items()} == {
        k: v.tolist() for k, v in parts.normalize.statistics().items()}


@pytest.mark.parametrize("name", registry.ALGORITHMS)
def test_every_algorithm(tmp_path, capfd, name):
    env = "Pendulum-v1" if name == "ddpg" else "CartPole-v1"
    options = dict(num_timesteps=4 * SHORT[name]["nsteps"] * SHORT[name].get("num_env", 1), log_interval=1)
    compare(tmp_path, name, env, **options, eval_interval=2, eval_episodes=2, eval_deterministic=False)
    out = capfd.readouterr().out
    assert "goes on after update 2" in out and "nobody keeps" not in out and "last digits" not in out
    progress, monitor, evaluations = rows(tmp_path / "whole")
    assert len(evaluations) == 3 and evaluations[1] != evaluations[2]
    assert len({(tmp_path / run / "best.safetensors").read_bytes() for run in ("whole", "parts")}) == 1
    registry.find(name).learn(env, log_path=tmp_path / "without", **{**SHORT[name], **QUIET, **options})
    assert rows(tmp_path / "without") == [progress, monitor]  # evaluations leave nothing behind


class Counting(gym.Wrapper):
    """A user's wrapper that counts in silence: its count outlives a reset, and is in the rewards."""

    def __init__(self, env):
        super().__init__(env)
        self.count = 0

    def step(self, action):
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.count += 1
        return obs, reward + self.count % 7, terminated, truncated, info


def counting():
    return Counting(gym.make("CartPole-v1"))


@pytest.mark.parametrize(("name", "stop"), [("ppo2", 5), ("ppo2", 6), ("deepq", 5)])
def test_environments_that_are_not_known_begin_anew(tmp_path, monkeypatch, capfd, name, stop):
    """A stop between two of the updates at which they do: what they did since then is done again. And at one.

    Evaluations make their own each time.
    """
    monkeypatch.setattr(experiment, "RENEW_AFTER", 1)
    steps = SHORT[name]["nsteps"] * SHORT[name].get("num_env", 1)
    with patch.object(Experiment, "renew_every", property(lambda self: 3, lambda self, value: None), create=True):
        compare(tmp_path, name, counting, updates=8, stop=stop, num_timesteps=8 * steps, log_interval=1,
                eval_interval=4, eval_episodes=2)
    assert "the state of Counting cannot be kept: environments begin anew each 3 updates" in capfd.readouterr().out


class Own(gym.Env):
    """An environment that gives and takes its state; it sees a tuple."""

    observation_space = gym.spaces.Tuple([gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(3)])
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.see(), {}

    def see(self):
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), int(self.np_random.integers(3))

    def step(self, action):
        self.steps += 1
        return self.see(), float(self.steps % 3), self.steps == 7, False, {}

    def get_state(self):
        return {"steps": self.steps, "random": self.np_random}

    def set_state(self, state):
        self.steps, self.np_random = state["steps"], state["random"]


@pytest.mark.parametrize("name", ["ppo2", "deepq"])
def test_environments_that_offer_their_state(tmp_path, capfd, name):
    steps = SHORT[name]["nsteps"] * SHORT[name].get("num_env", 1)
    compare(tmp_path, name, Own, num_timesteps=4 * steps, log_interval=1)
    assert "cannot be kept" not in capfd.readouterr().out


def small(tmp_path, updates=6, **options):
    return ppo2.learn("CartPole-v1", **{**SHORT["ppo2"], **QUIET, "num_timesteps": 16 * updates, "lr": "1e-3",
                                        "log_path": tmp_path / "run", "checkpoint_seconds": 0, **options})


def kept(tmp_path):
    return sorted(path.name for path in (tmp_path / "run/checkpoints").glob("[0-9]*"))


def test_the_last_checkpoints_are_kept_and_the_best_policy(tmp_path):
    small(tmp_path, checkpoint_interval=1, num_env=4, nsteps=32, num_timesteps=6 * 128)
    assert kept(tmp_path) == ["00000004", "00000005", "00000006"]
    assert (tmp_path / "run/best.safetensors").is_file()
    assert "share_checkpoint" in (tmp_path / "run/progress.csv").read_text().splitlines()[0].split(",")


def test_a_best_policy_that_cannot_be_saved_ends_nothing(tmp_path, capfd):
    """A full disk, say."""
    save = ActorCritic.save

    def full(self, path):
        if path.endswith("best.safetensors"):
            raise UserError(f"cannot write {path!r}: No space left on device")
        save(self, path)

    with patch.object(ActorCritic, "save", full):
        small(tmp_path, checkpoint_interval=1, num_env=4, nsteps=32, num_timesteps=3 * 128)
    assert kept(tmp_path)[-1] == "00000003"
    assert "the best policy so far is not kept: cannot write" in capfd.readouterr().err


def test_rows_behind_the_checkpoint_are_cut_off(tmp_path, capfd):
    """What was killed after its last checkpoint has rows that are made anew."""
    small(tmp_path, checkpoint_interval=4, eval_interval=3, eval_episodes=2)
    whole = rows(tmp_path / "run")
    last = tmp_path / "run/checkpoints/00000006"
    (last / "manifest.json").unlink()
    small(tmp_path, resume="auto")
    assert "goes on after update 4, 64 steps; 2 rows of the log behind it cut off" in capfd.readouterr().out
    assert rows(tmp_path / "run") == whole and len(whole[2]) == 3


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
def test_a_damaged_checkpoint_is_left_out(tmp_path, capfd, damage):
    small(tmp_path, checkpoint_interval=4)
    whole, file = rows(tmp_path / "run"), tmp_path / "run/checkpoints/00000006/rank-0000.safetensors"
    data = bytearray(file.read_bytes())
    data[-9] ^= 4
    file.unlink() if damage == "missing" else file.write_bytes(data[:-5] if damage == "cut" else data)
    small(tmp_path, resume="auto")
    out, err = capfd.readouterr()
    assert "00000006' is left out:" in err and "goes on after update 4" in out
    assert rows(tmp_path / "run") == whole


def test_none_is_whole(tmp_path):
    small(tmp_path, updates=2)
    for file in (tmp_path / "run/checkpoints").glob("*/rank-*"):
        file.write_bytes(b"")
    with pytest.raises(UserError, match=r"no checkpoint in .* is whole"):
        small(tmp_path, updates=2, resume="auto")


def test_a_write_that_fails_is_told_once_and_keeps_the_earlier_ones(tmp_path, capfd):
    real, calls = checkpoints.array_file.write, []

    def write(path, data):
        calls.append(path)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        return real(path, data)

    with patch.object(checkpoints.array_file, "write", write):
        small(tmp_path, checkpoint_interval=1)
    err = capfd.readouterr().err
    assert err.count("no checkpoint after update 3: No space left on device; the run goes on without it") == 1
    assert err.count("no checkpoint") == 1 and kept(tmp_path) == ["00000001", "00000002"]
    assert not list((tmp_path / "run/checkpoints").glob(".*"))
    assert (tmp_path / "run/model.safetensors").is_file()


@contextmanager
def spoiled_in(update, spoil):
    """Runs inside have their optimizer spoiled at the end of that update."""
    log = Experiment.log

    def spoiling(self, *values):
        if self.nupdates == update - 1:
            spoil(self.continuation.kept["update"].minibatches.optimizer)
        log(self, *values)

    with patch.object(Experiment, "log", spoiling):
        yield


def fill(variables, value):
    for variable in variables:
        variable.assign(np.full(variable.shape, value, np.float32))


def test_parameters_that_are_not_finite_enter_no_checkpoint(tmp_path):
    with (spoiled_in(3, lambda optimizer: fill(optimizer.variables, np.nan)),
          pytest.raises(UserError, match="after update 3 a parameter is not finite")):
        small(tmp_path, checkpoint_interval=1)
    assert kept(tmp_path) == ["00000001", "00000002"]


def test_optimizers_that_are_not_finite_enter_no_checkpoint(tmp_path):
    with (spoiled_in(3, lambda optimizer: fill(optimizer.v, np.inf)),
          pytest.raises(UserError, match=r"after update 3 update\.minibatches\.optimizer\.v\.0 is not finite")):
        small(tmp_path, checkpoint_interval=1)
    assert kept(tmp_path) == ["00000001", "00000002"]


@pytest.mark.parametrize("spoiled", [True, False])
def test_a_loss_that_is_not_finite_stops_the_run_where_parameters_are_not_either(tmp_path, spoiled):
    """Where they are, nothing was learnt from it: an update without gradient steps has no loss."""
    log = Experiment.log

    def without_loss(self, rollout, stats):
        if spoiled:
            fill(self.policy.trainable_variables, np.nan)
        log(self, rollout, stats | {"policy_loss": np.nan})

    stops = pytest.raises(UserError, match="after update 1 policy_loss is not finite") if spoiled else nullcontext()
    with patch.object(Experiment, "log", without_loss), stops:
        small(tmp_path, updates=2)


def test_a_fork_that_forgets_to_keep_something_is_told(tmp_path, capfd):
    keep = Experiment.keep
    with patch.object(Experiment, "keep", lambda exp, **things: None if "update" in things else keep(exp, **things)):
        small(tmp_path)
    assert "checkpoints leave out what nobody keeps: Update. Name it in exp.keep(...)" in capfd.readouterr().out


def test_a_loop_that_forgets_a_variable_or_a_generator_is_told(tmp_path, capfd):
    log = Experiment.log

    def of_a_loop(exp, *figures):
        beta, own, parameter = tf.Variable(1.0), np.random.default_rng(0), exp.policy.trainable_variables[0]
        log(exp, *figures)
        assert all(x is not None for x in (beta, own, parameter))

    with patch.object(Experiment, "log", of_a_loop):
        small(tmp_path)
    assert "checkpoints leave out what nobody keeps: beta, own. Name" in capfd.readouterr().out


def test_another_place_is_told(tmp_path, capfd):
    small(tmp_path, updates=2)
    with patch("baselines_lite.common.system.tf_setup.processor", lambda: "Z80"):
        small(tmp_path, updates=2, resume="auto")
    assert re.search("it goes on with processor Z80 instead of .+: its numbers may differ in the last digits",
                     capfd.readouterr().out)


def test_another_run_is_refused_by_name(tmp_path):
    small(tmp_path)
    for name, value in {"nsteps": 16, "seed": 1, "lr": "2e-3", "gamma": 0.5, "sizes": "4"}.items():
        with pytest.raises(UserError, match=f"the run that is to go on has {name}="):
            small(tmp_path, resume="auto", **{name: value})
    with pytest.raises(UserError, match="has env=CartPole-v1, not Acrobot-v1"):
        ppo2.learn("Acrobot-v1", resume=str(tmp_path / "run"))
    small(tmp_path, log_path=tmp_path / "falling", lr="linear:1e-3")
    with pytest.raises(UserError, match=r"num_timesteps=96, not 144, and schedules that fall .* with load_path"):
        small(tmp_path, log_path=tmp_path / "falling", resume="auto", lr="linear:1e-3", updates=9)


def test_as_many_ranks_as_before():
    then = {"algorithm": "ppo2", "env": "CartPole-v1", "ranks": 2, "num_timesteps": 9}
    with pytest.raises(UserError, match="has ranks=2, not 1: start it with mpirun -np 2"):
        check_same(then, {**then, "ranks": 1}, None)


def test_a_longer_run_where_nothing_falls(tmp_path, capfd):
    constant = dict(lr="1e-3", cliprange="0.2")
    small(tmp_path, updates=3, **constant)
    small(tmp_path, updates=5, resume="auto", **constant)
    assert "num_timesteps is 80 now, instead of 48" in capfd.readouterr().out
    parts = rows(tmp_path / "run")
    small(tmp_path, updates=5, log_path=tmp_path / "other", **constant)
    assert rows(tmp_path / "other") == parts


def test_auto_begins_where_nothing_is(tmp_path):
    small(tmp_path, updates=2, resume="auto")
    assert kept(tmp_path)
    with pytest.raises(UserError, match="resume=auto needs log_path"):
        small(tmp_path, resume="auto", log_path=None)
    with pytest.raises(UserError, match="there is no checkpoint in"):
        small(tmp_path, resume=str(tmp_path / "nowhere"), log_path=None)


def test_the_steps_of_a_buffer_are_written_once(tmp_path, monkeypatch):
    """Kept checkpoints share files; what none of them needs is removed."""
    monkeypatch.setattr(checkpoints, "PART", 200)
    learn, options = registry.find("deepq").learn, {**SHORT["deepq"], **QUIET, "buffer_size": 32}
    learn("CartPole-v1", 16 * 12, log_path=tmp_path / "run", checkpoint_interval=1, checkpoint_seconds=0, **options)
    files = {path.name for path in (tmp_path / "run/checkpoints/rings").iterdir()}
    paths = sorted((tmp_path / "run/checkpoints").glob("*/manifest.json"))
    manifests = [json.loads(path.read_text()) for path in paths]
    needed = {file["name"].removeprefix("rings/") for manifest in manifests for rank in manifest["ranks"]
              for file in rank["rings"]["buffer"]}
    assert len(manifests) == 3 and files == needed
    ends = sorted((file["start"], file["stop"]) for file in manifests[-1]["ranks"][0]["rings"]["buffer"])
    assert all(a[1] == b[0] for a, b in itertools.pairwise(ends)) and ends[-1][1] == 96


@pytest.mark.parametrize("kind", [ReplayBuffer, partial(PrioritizedReplayBuffer, alpha=0.6, epsilon=1e-2)])
def test_a_buffer_goes_on_from_whatever_step(kind, tmp_path):
    """Also where a file of steps that were written together begins before the oldest that counts."""
    def new():
        return kind(10, 1, np.zeros(1, np.float32), np.zeros((), np.int64))

    def add(buffer, t):
        cut = t % 4 == 3
        buffer.add([0], [t], np.zeros(1, bool), np.full((1, 1), t + 1), np.full(1, cut), {0: [-t]} if cut else {})

    written = checkpoints.Checkpoints(tmp_path, Comm(), 3)
    buffer = new()
    buffer.begin(np.zeros((1, 1)))
    for t in range(100):
        add(buffer, t)
        if t % 7 == 6:
            written.write(t, dict, {"buffer": buffer})
            place = tmp_path / f"{t:08d}"
            rings = json.loads((place / "manifest.json").read_text())["ranks"][0]["rings"]
            again = new()
            state = checkpoints.array_file.read(place / "rank-0000.safetensors")
            checkpoints.Checkpoint(place, {}, state, rings).restore("buffer", again)
            twin = copy.deepcopy(buffer)
            for more in range(t + 1, t + 30):
                for each in (twin, again):
                    add(each, more)
                mine, theirs = (each[each.sample(np.random.default_rng(0), 50)] for each in (twin, again))
                for one, other in zip(mine, theirs, strict=True):
                    np.testing.assert_array_equal(one, other)


def test_command_line(main, tmp_path):
    run = ("--alg=a2c", "--env=CartPole-v1", "--nsteps=8", "--num_env=2", "--num_timesteps=64", "--log_path=log",
           "--resume=auto", "--seed=3")
    assert main(*run).returncode == 0
    again = main(*run)
    assert again.returncode == 0 and "goes on after update 4" in again.stdout
    done = main("--resume=log")
    assert done.returncode == 0 and "a2c on CartPole-v1" in done.stdout
    for flags, sentence in {("--resume=log", "--seed=4"): "has seed=3, not 4",
                            ("--resume=no",): "there is no checkpoint",
                            ("--resume=log", "--alg=ppo2"): "has algorithm=a2c, not ppo2"}.items():
        done = main(*flags)
        assert done.returncode == 2 and sentence in done.stderr, done.stderr


def test_nothing_is_imported_that_nobody_named(main, tmp_path):
    assert main("--alg=a2c", "--env=CartPole-v1", "--nsteps=8", "--num_env=2", "--num_timesteps=32", "--log_path=log"
                ).returncode == 0
    path, = (tmp_path / "log/checkpoints").glob("*/manifest.json")
    good = path.read_text()
    for name, value in {"env": "this:s", "algorithm": "this.s"}.items():
        manifest = json.loads(good)
        manifest["settings"][name] = value
        path.write_text(json.dumps(manifest))
        done = main("--resume=log")
        assert done.returncode == 2 and "which imports a module" in done.stderr
    manifest = json.loads(good)
    manifest["given"]["network"] = "this:s"
    path.write_text(json.dumps(manifest))
    done = main("--resume=log")
    assert done.returncode == 2 and "network=this:s, which imports a module" in done.stderr
