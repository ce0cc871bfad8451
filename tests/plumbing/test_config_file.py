"""Options from a file, a dict or a Config: `--config=FILE`, `learn(config=...)`."""

import dataclasses
import json
import pickle

import pytest

from baselines_lite import UserError, a2c, ppo2
from baselines_lite.common.experiment.config import from_config
from baselines_lite.ppo2.config import Config
from tests.plumbing.test_table import SHORT

FLAGS = [f"--{name}={value}" for name, value in {**SHORT["ppo2"], "print_interval": 1e9}.items()]


def same_config(a, b):
    a, b = (json.loads((folder / "config.json").read_text()) for folder in (a, b))
    return a["config"] == b["config"] and a["network_options"] == b["network_options"]


def test_a_runs_config_makes_another_of_its_kind(main, tmp_path, uncompiled):
    told = ["--num_hidden=8", "--lr=linear:2e-4", "--target_kl=0.5", "--seed=5", "--num_timesteps=32"]
    assert main("--env=CartPole-v1", "--log_path=a", *FLAGS, *told).returncode == 0
    assert main("--config=a/config.json", "--log_path=b", "--seed=6").returncode == 0
    assert same_config(tmp_path / "a", tmp_path / "b")
    run = json.loads((tmp_path / "b/config.json").read_text())["run"]
    assert (run["seed"], run["num_timesteps"], run["log_path"]) == (6, 32, str(tmp_path / "b"))
    assert main("--config=a/config.json", "--log_path=c", "--num_hidden=4").returncode == 0
    assert not same_config(tmp_path / "a", tmp_path / "c")
    ppo2.learn("CartPole-v1", 32, config=tmp_path / "a/config.json", log_path=str(tmp_path / "d"))
    assert same_config(tmp_path / "a", tmp_path / "d")


def test_options_alone(main, tmp_path):
    (tmp_path / "o.json").write_text(json.dumps({"alg": "a2c", "env": "Pendulum-v1", "lr": 0.5, "gamma": None}))
    done = main("--config=o.json", "--dry_run")
    assert done.returncode == 2 and done.stderr == "error: gamma must be a number, not 'none'\n"
    done = main("--config=o.json", "--dry_run", "--gamma=0.5")
    assert done.stdout.startswith("a2c on Pendulum-v1")
    assert ["lr", "0.5", "given"] in [line.split() for line in done.stdout.splitlines()]


def test_a_config_or_a_dict(uncompiled):
    assert ppo2.learn("CartPole-v1", config=Config(seq_len=4), dry_run=True).info["config"] == {
        **ppo2.learn("CartPole-v1", dry_run=True).info["config"], "seq_len": 4}  # the preset's others
    cfg = dataclasses.replace(Config(), num_env=2, nsteps=8, nminibatches=2, noptepochs=1)
    with pytest.raises(UserError, match=r"config is a baselines_lite.a2c.config.Config, not this algorithm's"):
        ppo2.learn("CartPole-v1", config=a2c.Config(nsteps=8), dry_run=True)
    for given in (cfg, dataclasses.asdict(cfg)):
        assert from_config(pickle.loads(pickle.dumps(given))) == dataclasses.asdict(cfg)
        policy = ppo2.learn("CartPole-v1", config=given, lr=0.25, dry_run=True)
        assert policy.info["config"]["nsteps"] == 8 and str(policy.info["config"]["lr"]) in ("0.25", "Schedule('0.25')")


@pytest.mark.parametrize(("content", "message"), [
    (None, "cannot read the config file"), ("{", "is not JSON"), ("[1]", "has no JSON object"),
    ('{"lrr": 1}', "unknown flag '--lrr'; did you mean --lr"), ('{"env": "module:Id"}', "imports a module"),
    ('{"alg": "my.ppo"}', "imports a module"), ('{"network": "m:f"}', "imports a module"),
    ('{"track": "m:C"}', "has track=m:C, which imports a module")])
def test_what_cannot_be_meant(content, message, main, tmp_path):
    if content is not None:
        (tmp_path / "c.json").write_text(content)
    done = main("--config=c.json", "--dry_run", *(["--env=CartPole-v1"] if "env" not in (content or "") else []))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and message in done.stderr
    with pytest.raises(UserError, match="config must be a Config, a dict or the path"):
        ppo2.learn("CartPole-v1", config=3)
