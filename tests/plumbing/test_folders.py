"""A run's folder and model file are its own: while it lives nobody else writes there, and nothing is overwritten."""

import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gymnasium as gym
import pytest
import tensorflow as tf

from baselines_lite import UserError, load, ppo2
from baselines_lite.common.system import folders
from tests.conftest import ROOT
from tests.plumbing.test_table import SHORT

SMALL = dict(num_env=1, nsteps=8, nminibatches=1, noptepochs=1, print_interval=1e9, seed=0)


@pytest.fixture
def uncompiled():
    """Runs updates operation by operation: these runs make two or three."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def learn(**options):
    return ppo2.learn("CartPole-v1", 16, **{**SMALL, **options})


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_whoever_asks_for_a_name_at_once_gets_a_folder_of_its_own(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(folders.own_folder, [str(tmp_path / "runs/a")] * 40))
    assert len(set(made)) == 40 and {str(tmp_path / "runs/a"), str(tmp_path / "runs/a-40")} <= set(made)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot make the folder"):
        folders.own_folder(str(tmp_path / "file/a"))


@pytest.mark.parametrize("left", ["runs/a", "runs", "nothing"])
def test_what_another_rank_has_begun_to_remove_is_removed_wholly(left, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if left != "nothing":
        os.makedirs(left)
    folders.unused.append("runs/a")
    folders.remove_unused()
    assert os.listdir() == [] and folders.unused == []


def test_what_is_not_empty_stays(tmp_path):
    (tmp_path / "runs/a").mkdir(parents=True)
    (tmp_path / "runs/other").mkdir()
    folders.unused.append(str(tmp_path / "runs/a"))
    folders.remove_unused()
    assert os.listdir(tmp_path / "runs") == ["other"]


HOLD = """
import sys, time
from pathlib import Path
from baselines_lite.common.system.folders import held
with held(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.skipif(folders.fcntl is None, reason="no locks on this system")
def test_a_lock_dies_with_its_process(tmp_path):
    lock = tmp_path / ".lock"
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], cwd=ROOT, text=True, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)
    assert other.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=rf"the folder 'x' is in use by another run \(process {other.pid} on "):
        folders.acquire(lock, "the folder 'x'")
    other.kill()
    other.wait()
    assert lock.exists()  # it means nothing now
    with folders.held(lock, "it"), pytest.raises(UserError, match=f"process {os.getpid()} on"):
        folders.acquire(lock, "it")
    assert not lock.exists()


def test_a_lock_file_that_its_holder_removes_is_not_taken_for_the_one_there(tmp_path, monkeypatch):
    lock, real, opened = tmp_path / ".lock", Path.open, []

    def late(path, *options, **more):  # another run ends between our open and our lock
        opened.append(real(path, *options, **more))
        if len(opened) == 1:
            path.unlink()
        return opened[-1]

    monkeypatch.setattr(Path, "open", late)
    with folders.held(lock, "it"):
        assert len(opened) == 2 and lock.exists()


@pytest.mark.parametrize("options", [dict(log_path="log"), dict(save_path="m"), dict(log_path="log", save_path="m")])
def test_a_place_in_use_is_refused(tmp_path, monkeypatch, uncompiled, options):
    """The run that comes second, while the first is in its first step, is refused; afterwards the place is free."""
    monkeypatch.chdir(tmp_path)
    told = []

    class Meanwhile(gym.Wrapper):
        def step(self, action):
            if not told:
                with pytest.raises(UserError) as error:
                    told.append(error)
                    learn(**options | (dict(save_path="y") if "log_path" in options else {}))
            return self.env.step(action)

    ppo2.learn(lambda: Meanwhile(gym.make("CartPole-v1")), 16, **SMALL, **options)
    place = f"the folder '{tmp_path}/log'" if "log_path" in options else f"the model file '{tmp_path}/m'"
    assert str(told[0].value).startswith(f"{place} is in use by another run (process {os.getpid()} on ")
    model = Path(options.get("save_path", "log/model.safetensors"))
    before = model.read_bytes()
    assert learn(**options) and model.read_bytes() != b"" and not list(tmp_path.rglob("*.lock"))
    if options == dict(log_path="log"):
        assert (tmp_path / "log/previous-1/model.safetensors").read_bytes() == before


@pytest.mark.parametrize("lock", ["fails", "is missing"])
def test_where_there_are_no_locks_nobody_is_kept_away(tmp_path, monkeypatch, uncompiled, lock):
    def flock(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    if lock == "fails" and folders.fcntl:
        monkeypatch.setattr(folders.fcntl, "flock", flock)
    else:
        monkeypatch.setattr(folders, "fcntl", None)
    learn(log_path=str(tmp_path / "log"))
    assert (tmp_path / "log/model.safetensors").exists() and not list(tmp_path.rglob("*.lock"))


def test_a_run_that_never_began_or_failed_keeps_no_place(tmp_path, uncompiled):
    log = tmp_path / "log"
    with pytest.raises(UserError, match="is a folder; name a file in it"):
        learn(log_path=str(log), save_path=str(tmp_path))
    with pytest.raises(UserError, match="is a folder; name a file in it"):
        learn(log_path=str(log), save_path=f"{tmp_path}/models/")
    assert files(tmp_path) == []

    class Broken(gym.Wrapper):
        def step(self, action):
            raise RuntimeError("broken")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="broken"):
            ppo2.learn(lambda: Broken(gym.make("CartPole-v1")), 16, **SMALL, log_path=str(log))
    learn(log_path=str(log))


def test_all_of_an_earlier_run_moves_aside(tmp_path, monkeypatch, capsys, uncompiled):
    """Model, checkpoints and videos too; the next run may start from the very file that moves."""
    monkeypatch.chdir(tmp_path)
    learn(log_path="log", save_path="log/mine.safetensors")
    os.makedirs("log/videos")
    Path("log/videos/a.mp4").touch()
    Path("log/notes.txt").touch()
    first = {name: Path("log", name).read_bytes() for name in files(tmp_path / "log") if name != "notes.txt"}
    assert {"mine.safetensors", "checkpoints/00000002/manifest.json"} <= set(first)
    policy = learn(log_path="log", load_path="log/mine.safetensors", save_path="log/mine.safetensors", lr="0")
    assert "an earlier run's files are now in log/previous-1" in capsys.readouterr().out
    assert {name: Path("log/previous-1", name).read_bytes() for name in first} == first
    then, now = load("log/previous-1/mine.safetensors"), load("log/mine.safetensors")
    for a, b, c in zip(then.variables, now.variables, policy.variables, strict=True):
        assert (a.numpy() == b.numpy()).all() and (b.numpy() == c.numpy()).all()
    learn(log_path="log", load_path="log/previous-1/mine.safetensors")
    assert files(tmp_path / "log/previous-1") == sorted(first) and Path("log/previous-2/progress.csv").exists()
    assert Path("log/notes.txt").exists() and Path("log/mine.safetensors").exists()  # which this run does not write


def test_a_tilde_is_the_users_home(main, tmp_path, monkeypatch, uncompiled):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    options = {**SHORT["ppo2"], "num_timesteps": 32, "print_interval": 1e9}
    flags = [f"--{name}={value}" for name, value in options.items()]
    done = main("--env=CartPole-v1", "--log_path=~/log", "--save_path=~/model", "--checkpoint_seconds=0", *flags)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == ["log", "model"]
    for more in (["--env=CartPole-v1", "--log_path=~/new", "--load_path=~/model", *flags],
                 ["--resume=~/log"], ["--load_path=~/model", "--eval_episodes=1", "--eval_json=~/e.json"],
                 ["--config=~/log/config.json", "--env=CartPole-v1", "--dry_run"]):
        done = main(*more)
        assert done.returncode == 0, done.stderr
    policy = ppo2.learn("CartPole-v1", **options, load_path=Path("~/model"), save_path="~/other")
    policy.save("~/saved")
    assert load("~/saved").info == policy.info and main("plot", "~/log", "--out=~/c.png").returncode == 0
    assert {path.name for path in (tmp_path / "home").iterdir()} >= {"c.png", "other", "e.json"}
    assert not list(tmp_path.rglob("~"))


def test_runs_of_one_second_have_folders_of_their_own(main, tmp_path, monkeypatch, uncompiled):
    """And what is refused leaves none."""
    monkeypatch.setattr("baselines_lite.command_line.now", lambda: "now")
    flags = ("--env=CartPole-v1", "--num_timesteps=16", "--num_env=1", "--nsteps=8", "--nminibatches=1")
    done = main(*flags, "--save_path=.")
    assert done.returncode == 2 and "is a folder" in done.stderr and os.listdir(tmp_path) == []
    for folder in ("ppo2-CartPole-v1-now", "ppo2-CartPole-v1-now-2"):
        done = main(*flags)
        assert done.returncode == 0 and f"model: runs/{folder}/model.safetensors" in done.stdout, done.stderr
    assert len(os.listdir(tmp_path / "runs")) == 2
