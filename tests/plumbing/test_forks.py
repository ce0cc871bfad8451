"""A copied folder is an algorithm of its own: what is edited in it is what runs, and its name is its package's.

On two ranks: copy_trains in tests/plumbing/programs.py.
"""

import csv
import json
import re
import sys

import pytest

from baselines_lite import evaluate, registry
from baselines_lite.common.policies.policy import Policy
from baselines_lite.common.system.errors import UserError
from tests.plumbing.forks import KINDS, PACKAGE, RATE, copy, edited_loss, own_policy, rate_of, trained_parts, with_rate


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """Copies an algorithm's folder to where its module is found: lab("ppo2", edited_loss) -> "my_lab.my_ppo2"."""

    def place(name, *edits, **options):
        path = copy(name, tmp_path, *edits, **options)
        monkeypatch.syspath_prepend(tmp_path)
        return path

    def forget():
        for known in (sys.modules, Policy.KINDS):
            for key in [key for key in known if key.split(".")[0] in ("my_lab", "my_ppo2")]:
                del known[key]

    forget()
    place.forget = forget
    yield place
    forget()


@pytest.mark.parametrize("name", registry.ALGORITHMS)
def test_what_is_edited_in_a_copy_is_what_trains(name, lab, tmp_path, uncompiled):
    path, rate = lab(name, edited_loss, with_rate), rate_of(PACKAGE / name)
    for alg, moves in ((name, True), (path, False)):
        policy, before, after = trained_parts(alg, log_path=str(tmp_path / alg))
        with (tmp_path / alg / "progress.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        config = json.loads((tmp_path / alg / "config.json").read_text())
        assert policy.info["algorithm"] == config["algorithm"] == alg
        assert (float(rows[0][rate]) == RATE) == (str(RATE) in str(config["config"][rate])) == (not moves)
        assert any((old != new).any() for old, new in zip(before, after, strict=True)) == moves


@pytest.mark.parametrize("name", KINDS)
def test_a_copy_with_a_policy_of_its_own(name, lab, main, monkeypatch, tmp_path, uncompiled):
    """A class of the original's name: --help, a preset, the default folder, training on, and --play."""
    path, env = lab(name, own_policy, with_rate), "Pendulum-v1" if name == "ddpg" else "CartPole-v1"
    (tmp_path / "my_lab" / f"my_{name}" / "config.py").open("a").write(
        '\nPRESETS = {**PRESETS, "mine": {"all": dict(gamma=0.5)}}\n')
    flags = (f"--alg={path}", f"--env={env}", "--preset=mine", "--num_timesteps=32", "--threads=1", *KINDS[name])
    shown = main(f"--alg={path}", "--help")
    assert shown.returncode == 0 and re.search(rf"--{rate_of(PACKAGE / name)} +schedule +{RATE}", shown.stdout)
    done = main(*flags)
    assert done.returncode == 0 and f"{path} on {env}" in done.stdout, done.stderr
    log, = (tmp_path / "runs").glob(f"{path}-{env}-*")
    config = json.loads((log / "config.json").read_text())
    assert (config["algorithm"], config["config"]["gamma"]) == (path, 0.5)
    model = f"--load_path={log / 'model.safetensors'}"
    done = main(*flags, model, "--log_path=again")
    assert done.returncode == 0, done.stderr

    lab.forget()
    done = main(model, "--play")
    assert done.returncode == 2 and f"--alg={path}" in done.stderr and done.stderr.count("\n") == 1
    assert "my_lab" not in sys.modules  # what the caller did not name is not imported
    played = []
    monkeypatch.setattr("baselines_lite.command_line.watch", lambda policy, env, *_, **__: played.append((policy, env)))
    done = main(model, "--play", f"--alg={path}")
    assert done.returncode == 0, done.stderr
    (policy, found), = played
    assert type(policy).__module__.startswith(path) and found == env and len(evaluate(policy, env, 1)) == 1

    done = main(*("--alg=" + name if flag.startswith("--alg") else flag for flag in flags if "preset" not in flag),
                "--log_path=original")
    assert done.returncode == 0, done.stderr  # the original's files are of the original's class as before
    assert main(f"--load_path={tmp_path / 'original/model.safetensors'}", "--play").returncode == 0
    assert type(played[1][0]).__module__.startswith("baselines_lite.") and type(policy).__name__ in str(played[1][0])


def test_a_copy_with_the_original_policy_needs_no_alg_to_play(lab, main, monkeypatch, uncompiled):
    path = lab("ppo2")
    done = main(f"--alg={path}", "--env=CartPole-v1", "--num_timesteps=32", *KINDS["ppo2"], "--log_path=log")
    assert done.returncode == 0, done.stderr
    lab.forget()
    monkeypatch.setattr("baselines_lite.command_line.watch", lambda *_, **__: None)
    for alg in ((), (f"--alg={path}",)):
        assert main("--load_path=log/model.safetensors", "--play", *alg).returncode == 0
    done = main("--load_path=log/model.safetensors", "--play", "--alg=ppo2")
    assert done.returncode == 2 and f"is of the algorithm {path}, not ppo2" in done.stderr


def test_a_copy_starts_from_what_the_original_has_trained(lab, main, uncompiled):
    flags = ("--env=CartPole-v1", "--num_timesteps=32", *KINDS["ppo2"])
    assert main("--alg=ppo2", *flags, "--log_path=log").returncode == 0
    done = main(f"--alg={lab('ppo2')}", *flags, "--load_path=log/model.safetensors")
    assert done.returncode == 0, done.stderr


def test_the_stub_of_a_copy_is_right_and_its_own(lab, main, tmp_path):
    original = PACKAGE / "ppo2/__init__.pyi"
    before = original.read_text()
    for edits, path, folder in (((), "my_lab.my_{}", "my_lab/my_ppo2"), ((own_policy, with_rate), "my_{}", "my_ppo2")):
        stub, path = tmp_path / folder / "__init__.pyi", lab("ppo2", *edits, path=path)
        assert stub.read_text() == before
        done = main("stubs", path)
        assert (done.returncode, done.stdout) == (0, f"{stub}\n")
        assert (stub.read_text() == before) == (not edits) and "my_" not in stub.read_text()
    assert "from .ppo2 import ActorCritic" in stub.read_text() and f' = "{RATE}",' in stub.read_text()
    assert original.read_text() == before


def test_names_of_copies(lab, uncompiled):
    """At the top, a folder's name alone; what is no module or no algorithm is said."""
    path = lab("ppo2", path="my_{}")
    assert trained_parts(path)[0].info["algorithm"] == "my_ppo2"
    assert registry.find("baselines_lite.a2c").Config is registry.find("a2c").Config
    for name, words in (("my_pp", "dotted path"), ("my_lab/my_ppo2", "dotted path"), (".my_ppo2", "dotted path"),
                        ("my_lab.missing", "cannot import"), ("common", "it has no learn"), ("pp02", "mean ppo2")):
        with pytest.raises(UserError, match=words):
            registry.find(name)


def test_options_of_a_fork(lab, main, tmp_path, uncompiled):
    """One without `option`, and one that Atari's options have too; noise by rank where the original has none."""
    path = lab("deepq")
    folder = tmp_path / "my_lab/my_deepq"
    (folder / "config.py").open("a").write(
        "\n\n@dataclasses.dataclass(frozen=True)\nclass Config(Config):\n    bonus: float = 0.1\n"
        '    clip_rewards: bool = option(False, "mine")\n')
    loop = (folder / "deepq.py").read_text()
    (folder / "deepq.py").write_text(loop.replace('stream(run.seed, "replay", comm.rank)',
                                                  'stream(run.seed, "replay", exp.noise_rank)'))
    assert "--bonus" in main(f"--alg={path}", "--help").stdout and main("stubs", path).returncode == 0
    done = main(f"--alg={path}", "--env=CartPole-v1", "--clip_rewards=true", "--bonus=0.5", "--num_timesteps=32",
                "--nsteps=8", "--learning_starts=8", "--buffer_size=200", "--log_path=log")
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "log/config.json").read_text())["config"]
    assert config["bonus"] == 0.5 and config["clip_rewards"] is True
