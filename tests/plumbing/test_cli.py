"""The command line: what it says, how fast, and that bad input costs nothing."""

import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

import gymnasium as gym
import matplotlib.font_manager  # noqa: F401  here it looks for fonts, once on a machine: a run would say so if it is slow
import pytest
import scipy.stats
from PIL import Image

from baselines_lite import __version__, evaluate, load, ppo2, registry
from baselines_lite.command_line import COMMANDS
from baselines_lite.common.experiment.config import resolve
from baselines_lite.common.networks.options import MlpOptions
from baselines_lite.common.system.options import override, to_dict
from baselines_lite.registry import ALGORITHMS
from tests.conftest import ROOT
from tests.logs import reproducible

RUN = ("--alg=ppo2", "--env=CartPole-v1", "--num_timesteps=640", "--num_env=2", "--nsteps=32")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a short run's log and model."""
    folder = tmp_path_factory.mktemp("trained")
    done = subprocess.run([sys.executable, str(ROOT / "run.py"), *RUN, "--log_path=log", "--checkpoint_interval=4",
                           "--checkpoint_seconds=0"],
                          cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_a_run_says_where_everything_lies(trained):
    folder, done = trained
    assert "mean return" in done.stdout and "--play" in done.stdout and "steps/s" in done.stdout
    assert done.stderr == ""  # no chatter of TensorFlow or MuJoCo
    assert sorted(os.listdir(folder)) == ["log"]
    assert {"progress.csv", "progress.json", "monitor.csv", "config.json", "curve.png", "model.safetensors",
            "best.safetensors", "checkpoints"} == set(os.listdir(folder / "log"))
    assert sorted(os.listdir(folder / "log/checkpoints")) == ["00000004", "00000008", "00000010", "rings"]


def test_progress_columns(trained):
    folder, _ = trained
    with (folder / "log/progress.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:12] == ["total_timesteps", "nupdates", "time_elapsed", "sps", "eprewmean", "eplenmean",
                                  "episodes", "explained_variance", "policy_loss", "value_loss", "entropy", "approxkl"]
    assert [int(r["total_timesteps"]) for r in rows] == list(range(64, 641, 64))
    lines = (folder / "log/progress.json").read_text().splitlines()
    assert len(lines) == 10 and json.loads(lines[-1])["total_timesteps"] == 640
    assert rows[0]["eprewmean"] == "" or float(rows[0]["eprewmean"]) > 0


def test_monitor_holds_whole_episodes(trained):
    folder, _ = trained
    lines = (folder / "log/monitor.csv").read_text().splitlines()
    assert lines[0].startswith("#{") and lines[1] == "r,l,t"
    episodes = [line.split(",") for line in lines[2:]]
    assert episodes and all(float(r) == int(length) for r, length, _ in episodes)  # CartPole: 1 per step
    assert 640 - 2 * 500 < sum(int(e[1]) for e in episodes) <= 640


def test_config_is_written_whole(trained):
    folder, _ = trained
    config = json.loads((folder / "log/config.json").read_text())
    assert config["config"]["nsteps"] == 32 and config["run"]["seed"] == 0 and config["ranks"] == 1
    assert config["versions"]["tensorflow"] and "run.py" in config["command"] and "commit" in config


def test_play_needs_only_the_file(trained, cli):
    folder, _ = trained
    model = folder / "log/model.safetensors"
    done = cli(f"--load_path={model}", "--play", "--play-episodes=2", "--log_path=here", env={"DISPLAY": ""})
    assert done.returncode == 0, done.stderr
    assert "episode 2: return" in done.stdout and "mean return" in done.stdout


def test_play_without_display_writes_videos_or_names_the_extra(trained, main, missing, monkeypatch, tmp_path):
    folder, _ = trained
    flags = (f"--load_path={folder / 'log/model.safetensors'}", "--play", "--play_episodes=1", "--log_path=here")
    monkeypatch.setenv("DISPLAY", "")
    done = main(*flags)
    assert done.returncode == 0 and done.stderr == ""
    assert list((tmp_path / "here/videos").glob("*/*.mp4"))
    assert "videos/" in (ROOT / ".gitignore").read_text().split()
    missing("moviepy")
    done = main(*flags)
    assert done.returncode == 2 and "baselines-lite[video]" in done.stderr


def test_a_file_is_evaluated(trained, main, tmp_path):
    folder, _ = trained
    shutil.copy(folder / "log/model.safetensors", tmp_path / "m.safetensors")
    done = main("--load_path=m.safetensors", "--eval_episodes=9", "--seed=3")
    assert done.returncode == 0 and done.stderr == "" and "written to m.eval.json" in done.stdout
    assert sorted(os.listdir(tmp_path)) == ["m.eval.json", "m.safetensors"]
    found = json.loads((tmp_path / "m.eval.json").read_text())
    returns = evaluate(load(str(tmp_path / "m.safetensors")), "CartPole-v1", 9, seed=3)
    assert found["returns"] == found["lengths"] == returns.tolist() and found["env"] == "CartPole-v1"
    assert found["model"]["sha256"] == hashlib.sha256((tmp_path / "m.safetensors").read_bytes()).hexdigest()
    assert found["mean"] == pytest.approx(returns.mean()) and found["cut"] == (returns == 500).sum()
    interval = scipy.stats.ttest_1samp(returns, 0).confidence_interval(0.95)
    assert found["interval"] == pytest.approx(list(interval)) and f"{found['mean']:.5g} over 9" in done.stdout
    done = main("--load_path=m.safetensors", "--eval_episodes=1", "--eval_deterministic=false", "--eval_json=new/e")
    assert done.returncode == 0 and "actions drawn" in done.stdout
    found = json.loads((tmp_path / "new/e").read_text())
    assert found["interval"] is None and found["deterministic"] is False


def test_a_file_is_recorded_without_a_display(trained, main, missing, monkeypatch, tmp_path):
    folder, _ = trained
    flags = (f"--load_path={folder / 'log/model.safetensors'}", "--play_episodes=2", "--record=new/film.gif")
    monkeypatch.delenv("DISPLAY", raising=False)
    done = main(*flags)
    assert done.returncode == 0 and done.stderr == "" and "over 2 episodes, recorded in new/film.gif" in done.stdout
    with Image.open(tmp_path / "new/film.gif") as film:
        steps = sum(map(float, re.findall(r"^episode \d: return (\S+)", done.stdout, re.MULTILINE)))
        assert film.width == 320 and abs(film.n_frames - (steps + 2) / 2) <= 1  # each second one of 50 a second
    missing("imageio_ffmpeg")
    done = main(*flags)
    assert done.returncode == 2 and "baselines-lite[video]" in done.stderr


@pytest.mark.parametrize(("flags", "words"), [
    (("--eval_episodes=0",), "eval_episodes must be at least 1"),
    (("--eval_episodes=2", "--eval_interval=5"), "--eval_interval has no meaning where --load_path is played or eval"),
    (("--eval_episodes=2", "--deterministic"), "--deterministic has no meaning without --play or --record"),
    (("--play", "--eval_json=x"), "--eval_json has no meaning without --eval_episodes"),
    (("--eval_episodes=2", "--eval_json=."), "cannot write the file '.': it is a folder"),
    (("--eval_episodes=2", "--env=Acrobot-v1"), "the policy was made for the space"),
    (("--record=film.avi",), "must end with .mp4 or .gif"),
    (("--record=/dev/null/film.gif",), "cannot write the file"),
])
def test_what_cannot_be_done_with_a_file_gets_one_sentence(trained, main, tmp_path, flags, words):
    refused(main(f"--load_path={trained[0] / 'log/model.safetensors'}", *flags), words, tmp_path)


def test_videos_while_training_and_after_it(main, tmp_path):
    done = main(*RUN, "--log_path=log", "--save_video_interval=200", "--save_video_length=20", "--record=new/film.mp4",
                "--play_episodes=1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "new/film.mp4").is_file()
    assert len(list((tmp_path / "log/videos").glob("*.mp4"))) >= 3


def test_help_is_fast_since_of_all_packages_it_loads_numpy_alone():
    for flags in (("--help",), ("--alg=ppo2", "--help")):
        code = ("import sys; before = set(sys.modules); from baselines_lite.command_line import main; "
                f"main({flags!r}); "
                "loaded = {name.partition('.')[0] for name in set(sys.modules) - before}; "
                "own = {name for name in loaded if not name.lstrip('_').startswith('cython_')}; "  # older NumPy's
                "assert own - set(sys.stdlib_module_names) == {'baselines_lite', 'numpy'}, loaded")
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "--num_timesteps" in done.stdout
    assert "--cliprange_vf" in done.stdout and "--num_hidden" in done.stdout


def test_the_version(main):
    assert main("--version").stdout == f"baselines_lite {__version__}\n"


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_help_for_an_environment_shows_what_a_run_there_would_use(main, alg):
    env, family = ("HalfCheetah-v5", "mujoco") if alg == "ddpg" else ("CartPole-v1", "classic_control")
    algorithm = registry.find(alg)
    for flag, given in ((f"--env={env}", {}), (f"--env_type={family}", {"env_type": family})):
        used = resolve(algorithm.Config, algorithm.PRESETS, family, given)
        mlp = override(MlpOptions(), used.network_options)
        values = {name: str(value) for part in (used.run, used.config, mlp) for name, value in to_dict(part).items()}
        shown = re.sub(r"\nnetwork (?!mlp)(.|\n)*", "", main(f"--alg={alg}", flag, "--help").stdout)
        rows = re.findall(r"^  --(\w+) +\w+ +(\S+)", shown, re.MULTILINE)
        assert {name: default for name, default in rows if name in values} == values


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_help_lists_the_networks_that_an_algorithm_takes(main, alg):
    kinds = {"mlp": ["mlp"], "cnn": ["cnn", "cnn_small", "conv_only"], "lstm": ["lstm", "lnlstm"],
             "cnn_lstm": ["cnn_lstm", "cnn_lnlstm"]}
    listed = re.findall(r"\nnetwork (\w+):\n", main(f"--alg={alg}", "--help").stdout)
    assert listed == [name for kind in ALGORITHMS[alg].networks.split(", ") for name in kinds[kind]]


BAD = [
    (("--gama=0.9",), "did you mean --gamma"),
    (("--num_timestep=5",), "did you mean --num_timesteps"),
    (("--gamma=1.5",), "gamma must be at most 1"),
    (("--num_env=0",), "num_env must be at least 1"),
    (("--seed=-1",), "seed must be at least 0"),
    (("--lr=fast",), "number"),
    (("--nsteps=2.5",), "whole number"),
    (("--nsteps",), "needs a value"),
    (("--nsteps=",), "needs a value"),
    (("nsteps=5",), "unexpected argument"),
    (("--env=CartPoll-v1",), "did you mean CartPole-v"),
    (("--env=no_such_module:Env-v0",), "cannot import"),
    (("--wandb",), "unknown flag '--wandb'; did you mean --track?"),
    (("--frobnicate",), "unknown flag '--frobnicate'"),
    (("--learning_rate=1e-3",), "did you mean --lr?"),
    (("--timesteps_per_batch=1e3",), "did you mean --nsteps?"),
    (("--optim_stepsize=1e-3",), "did you mean --lr?"),
    (("--save_interval=5",), "did you mean --checkpoint_interval?"),
    (("--alg=a2c", "--alpha=0.9"), "did you mean --rms_decay?"),
    (("--alg=deepq", "--print_freq=9"), "did you mean --print_interval?"),
    (("--alg=ddpg", "--noise_type=ou"), "did you mean --noise?"),
    (("--extra_import=my_module",), "did you mean --env?"),
    (("--max_iters=9",), "did you mean --num_timesteps?"),
    (("--alg=ddpg", "--lr=1e-3"), "did you mean --actor_lr or --critic_lr?"),
    (("--alg=trpo_mpi", "--vf_stepsize=1e-3"), "did you mean --vf_lr?"),
    (("--lr=<function <lambda> at 0x7f>",), "is not a schedule"),
    (("--alg=ddpg", "--learning_rate=1e-3"), "did you mean --actor_lr or --critic_lr?"),
    (("--num_timesteps=1e30",), "must be at most 9,223,372,036,854,775,807"),
    (("--num_timesteps=inf",), "must be a whole number"),
    (("--num_timesteps=nan",), "must be a whole number"),
    (("--seed=1e30",), "must be at most"),
    (("--alg",), "needs a value"),
    (("--alg=pp02",), "did you mean ppo2"),
    (("--alg=dqn",), "did you mean deepq?"),
    (("--alg=my_ppo",), "dotted path of its package: my_lab.my_ppo"),
    (("--network=mpl",), "did you mean mlp"),
    (("--network=no_such:net",), "cannot import the network"),
    (("--nminibatches=7",), "does not divide the batch"),
    (("--num_timesteps=100",), "less than one update"),
    (("--preset=paper",), "unknown preset"),
    (("--load_path=missing.safetensors",), "no model file"),
    (("--reward_scale=0",), "must be greater than 0"),
    (("--target_return=high",), "must be a number"),
    (("--gamma=__import__('os').abort()",), "must be a number"),
    (("--eval_interval=-1",), "eval_interval must be at least 0"),
    (("--eval_episodes=5",), "eval_episodes has no meaning without eval_interval"),
    (("--eval_json=x",), "a run writes its evaluations to evaluations.csv"),
    (("--record=/dev/null/film.mp4",), "cannot write the file '/dev/null/film.mp4'"),
]


def refused(done, words, folder):
    """With one sentence, and nothing else happened."""
    assert done.returncode == 2
    assert words in done.stderr and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert done.stdout == "" and os.listdir(folder) == []


@pytest.mark.parametrize(("flags", "words"), BAD)
def test_bad_input_gets_one_sentence(main, tmp_path, flags, words):
    given = {f.split("=")[0] for f in flags}
    rest = [f for f in ("--env=CartPole-v1", "--log_path=log") if f.split("=")[0] not in given]
    refused(main(*rest, *flags), words, tmp_path)


BROKEN = {"def x(:": "SyntaxError: invalid syntax", "1 / 0": "ZeroDivisionError: division by zero",
          "raise ValueError('no such')": "ValueError: no such", "import nowhere": "No module named 'nowhere'"}


@pytest.mark.parametrize(("code", "words"), BROKEN.items())
@pytest.mark.parametrize("flag", ["--env=broken:Env-v0", "--network=broken:n", "--alg=broken", "--track=broken:Notes"])
def test_an_error_in_ones_own_module_is_told_with_its_place(main, monkeypatch, tmp_path, flag, words, code):
    (tmp_path / "broken.py").write_text(f"\n{code}\n")
    monkeypatch.syspath_prepend(tmp_path)
    given = ("--env=CartPole-v1",) * (not flag.startswith("--env"))
    done = main(*given, flag, "--log_path=log")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: cannot import")
    assert f"{tmp_path / 'broken.py'}, line 2: {words}" in done.stderr
    assert not (tmp_path / "log").exists()


def test_a_suggested_environment_can_be_typed(main, monkeypatch, tmp_path):
    (tmp_path / "worlds.py").write_text(
        "import gymnasium as gym\nfrom baselines_lite.common.envs.toy_envs import Identity\n"
        "class World(Identity): pass\nclass Moon(Identity): pass\ngym.register('World-v0', World)\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "did you mean worlds:World-v0?" in main("--env=worlds:Wrold-v0").stderr
    assert "did you mean worlds:World-v0?" in main("--env=worlds:World").stderr
    assert "gymnasium.register('Moon-v0', Moon)" in main("--env=worlds:Moon").stderr


def test_bad_input_gets_one_sentence_from_a_process_of_its_own(cli, tmp_path):
    refused(cli("--env=CartPole-v1", "--nminibatches=7"), "does not divide the batch", tmp_path)


def test_spaces_that_are_not_supported_are_refused_in_a_sentence(main, monkeypatch, tmp_path):
    (tmp_path / "odd.py").write_text(
        "import gymnasium as gym\nfrom baselines_lite.common.envs.toy_envs import Identity\n"
        "gym.register('Odd-v0', Identity, kwargs={'action_space': gym.spaces.Text(3)})\n")
    monkeypatch.syspath_prepend(tmp_path)
    done = main("--env=odd:Odd-v0", "--log_path=log")
    assert done.returncode == 2 and "not supported" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "log").exists()


def test_bad_model_files(trained, main, tmp_path):
    folder, _ = trained
    data = (folder / "log/model.safetensors").read_bytes()
    (tmp_path / "short.safetensors").write_bytes(data[: len(data) // 2])
    (tmp_path / "junk.safetensors").write_bytes(b"not a model at all")
    (tmp_path / "good.safetensors").write_bytes(data)
    for name, words in (("short", "damaged"), ("junk", "damaged")):
        for flags in (("--play",), ("--env=CartPole-v1", "--num_timesteps=20000")):
            done = main(f"--load_path={name}.safetensors", *flags)
            assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1
    done = main("--load_path=good.safetensors", "--env=Acrobot-v1")
    assert done.returncode == 2 and "does not fit" in done.stderr
    done = main("--load_path=good.safetensors", "--env=Acrobot-v1", "--play")
    assert done.returncode == 2 and "was made for the space" in done.stderr
    other = data.replace(b'"algorithm\\": \\"ppo2', b'"algorithm\\": \\"a2c2')
    if other == data:
        other = data.replace(b"ppo2", b"a2c2", 1)
    (tmp_path / "other.safetensors").write_bytes(other)
    done = main("--load_path=other.safetensors", "--env=CartPole-v1")
    assert done.returncode == 2 and "its algorithm is a2c2, not ppo2" in done.stderr
    assert (tmp_path / "good.safetensors").read_bytes() == data


def test_training_goes_on_from_a_file(trained, main):
    """In the environment where it was trained, where none is given."""
    folder, _ = trained
    model = folder / "log/model.safetensors"
    for flags in (RUN, [flag for flag in RUN if "--env=" not in flag]):
        done = main(*flags, f"--load_path={model}", "--log_path=log")
        assert done.returncode == 0, done.stderr
    assert f"the environment is CartPole-v1, in which the policy of '{model}' was trained" in done.stdout


def test_training_from_a_file_takes_keywords_but_imports_nothing(main, tmp_path, uncompiled):
    learn = {"total_timesteps": 64, "num_env": 1, "nsteps": 64, "view": "lines"}
    ppo2.learn("CartPole-v1", **learn, env_kwargs={"sutton_barto_reward": True}, save_path=str(tmp_path / "kwargs"))
    done = main("--load_path=kwargs", "--num_timesteps=64", "--nsteps=64", "--num_env=1", "--log_path=log")
    assert done.returncode == 0, done.stderr
    run = json.loads((tmp_path / "log/config.json").read_text())["run"]
    assert json.loads(run["env_kwargs"]) == {"sutton_barto_reward": True}
    data = (tmp_path / "kwargs").read_bytes()
    (tmp_path / "module").write_bytes(data.replace(b"CartPole-v1", b"mine:Pole-1"))
    done = main("--load_path=module", "--num_timesteps=64")
    assert done.returncode == 2 and "if you trust it, give --env=mine:Pole-1" in done.stderr


def test_a_folder_is_no_model_file(trained, main):
    log = trained[0] / "log"
    for flags in (("--env=CartPole-v1",), (), ("--play",), ("--eval_episodes=1",)):
        done = main(f"--load_path={log}", *flags)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert f"give a file: --load_path={log / 'model.safetensors'} or" in done.stderr


@pytest.mark.parametrize(("name", "words"), [("docter", "unknown command 'docter'; did you mean doctor?; commands are"),
                                             ("help", "commands are plot, sweep, list, check, doctor")])
def test_a_word_that_is_no_command(main, name, words, tmp_path):
    refused(main(name), words, tmp_path)


def test_help_says_what_commands_do(main):
    shown = main("--help").stdout
    assert all(re.search(rf"^  {name} +\w+ \w+", shown, re.MULTILINE) for name in COMMANDS)


def test_target_return_stops_early(main):
    done = main("--env=CartPole-v1", "--num_timesteps=1e6", "--target_return=10", "--log_path=log")
    assert done.returncode == 0 and "reached the target return" in done.stdout


def test_tensorboard_has_every_figure_of_progress_csv(main, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    done = main(*RUN, "--tensorboard", "--log_path=log", "--eval_interval=10", "--eval_episodes=2")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "log/progress.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    events = EventAccumulator(str(tmp_path / "log/tensorboard"))
    events.Reload()
    of_evaluations = {f"eval/{name}" for name in ("mean", "std_error", "episodes", "eplenmean", "time_elapsed")}
    assert set(events.Tags()["tensors"]) == set(rows[0]) | of_evaluations
    for name in rows[0]:
        written = {e.step: float(make_ndarray(e.tensor_proto)) for e in events.Tensors(name)}
        expected = {int(row["total_timesteps"]): float(row[name]) for row in rows if row[name]}
        assert written.keys() == expected.keys()
        assert all(abs(written[k] - expected[k]) <= 1e-5 * max(1, abs(expected[k])) for k in expected)


def test_tensorboard_without_its_package_names_the_extra(main, missing):
    missing("tensorboard")
    done = main(*RUN, "--tensorboard")
    assert done.returncode == 2 and "baselines-lite[tensorboard]" in done.stderr


def test_dashes_are_underscores(main, tmp_path):
    done = main("--env=CartPole-v1", "--num-timesteps", "640", "--num-env", "2", "--nsteps", "32", "--log-path", "log",
                "--normalize-observations")  # a bare flag of the algorithm's: yes
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "log/config.json").read_text())["config"]["normalize_observations"] is True


MY_CODE = """
import gymnasium as gym
import tensorflow as tf
from baselines_lite.common.networks.layers import Activation, Dense, Sequential
from baselines_lite.ppo2 import PRESETS, Config

def sequential(size, *, rng, dtype, name, width: int = 16):
    return Sequential([Dense(size, width, rng=rng, dtype=dtype, name=name), Activation("relu")], width)

class Wide(tf.Module):
    out_size = 8

    def __init__(self, size, dtype, name):
        self.matrix = tf.Variable(tf.ones((size, 8), dtype), name=name + "/matrix")

    def __call__(self, x):
        return tf.tanh(x @ self.matrix)

def module(size, *, rng, dtype, name):
    return Wide(size, dtype, name)

from gymnasium.envs.classic_control.cartpole import CartPoleEnv
gym.register("Pole-v0", entry_point=CartPoleEnv, max_episode_steps=50)

def learn(env, total_timesteps, **options):
    from baselines_lite import ppo2
    print("my own learn")
    return ppo2.learn(env, total_timesteps, **options)
"""


@pytest.mark.parametrize(("code", "words"), [
    ("return None", "must give a module with out_size"), ("", "called with size, rng="), ("wide", "argument: 'width'")])
def test_a_network_of_ones_own_that_does_not_fit_is_refused_in_a_sentence(main, monkeypatch, tmp_path, code, words):
    arguments = {"": "size", "wide": "size, *, rng, dtype, name, width"}.get(code, "size, **others")
    (tmp_path / "nets.py").write_text(f"def net({arguments}):\n    return None\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    (tmp_path / "none").mkdir()
    refused(main("--env=CartPole-v1", "--network=nets:net"), words, tmp_path / "none")


@pytest.mark.parametrize("flags", [("--network=mine:sequential", "--width=5"), ("--network=mine:module",),
                                   ("--alg=mine.again",), ("--env=mine:Pole-v0",)])
def test_parts_of_ones_own_from_outside_the_package(main, monkeypatch, tmp_path, flags):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/__init__.py").write_text(MY_CODE)
    (tmp_path / "mine/again.py").write_text("from mine import *")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("DISPLAY", "")
    for name in ("mine", "mine.again"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    gym.registry.pop("Pole-v0", None)
    given = [flag for flag in RUN if flag.partition("=")[0] != flags[0].partition("=")[0]]
    done = main(*given, *flags, "--log_path=log")
    assert done.returncode == 0, done.stderr
    assert ("my own learn" in done.stdout) == ("again" in flags[0])
    play = ("--load_path=log/model.safetensors", "--play", "--play_episodes=1")
    if not flags[0].startswith("--alg"):  # in another process a file imports nothing
        monkeypatch.delitem(sys.modules, "mine")
        gym.registry.pop("Pole-v0", None)
        done = main(*play)
        assert done.returncode == 2 and f"give {flags[0]}" in done.stderr and done.stderr.count("\n") == 1
        play += (flags[0],)
    done = main(*play)
    assert done.returncode == 0, done.stderr
    bad = main(*given, *flags, "--log_path=log2", "--wdith=5")
    assert bad.returncode == 2 and "wdith" in bad.stderr and bad.stderr.count("\n") == 1


def test_nothing_is_left_in_the_working_directory_by_mujoco(cli, tmp_path):
    done = cli("--env=HalfCheetah-v5", "--num_timesteps=512", "--num_env=2", "--nsteps=64", "--log_path=log")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert os.listdir(tmp_path) == ["log"]


def test_same_seed_same_log_byte_for_byte(cli, main, tmp_path):
    """Two runs of 24 updates with normalisation; wall-clock columns aside. On two ranks: tests/plumbing/programs.py."""
    flags = ("--env=Pendulum-v1", "--num_env=2", "--nsteps=64", "--num_timesteps=3100", "--seed=5",
             "--normalize_observations=true", "--normalize_rewards=true")
    logs = []
    for run in (cli, main):  # 3100 steps rounded down to whole updates
        done = run(*flags, "--log_path=log", "--print_interval=0")
        assert done.returncode == 0, done.stderr
        assert re.search(r"1 rank on 1 host, \d+ threads? each", done.stdout)  # TensorFlow may have been running
        logs.append(reproducible(tmp_path / "log/progress.csv"))
    assert logs[0] == logs[1] and len(logs[0]) == 25
    assert logs[0][-1][:2] == ["3072", "24"]
