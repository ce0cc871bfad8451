"""What a run is told: the options around it, and what every algorithm's config begins with; presets.

An algorithm's config is a frozen dataclass of `option(...)` fields; see system/options.py. No TensorFlow here.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from baselines_lite.common.envs.atari_options import AtariOptions
from baselines_lite.common.networks.check_options import check_network_options
from baselines_lite.common.networks.options import FEED_FORWARD, SMALL, WITH_MEMORY, MlpOptions
from baselines_lite.common.system.errors import UserError, counted, unknown
from baselines_lite.common.system.options import Config, FilePath, Json, option, override, to_dict
from baselines_lite.common.system.schedules import Schedule

FAMILIES = ("atari", "mujoco", "box2d", "classic_control", "toy_text", "other")
PATHS = ("log_path", "save_path", "load_path")
EVALUATING = ("eval_episodes", "eval_deterministic")  # which mean nothing without eval_interval


def algorithm_name(package: str) -> str:
    """What an algorithm is called: "ppo2" for the package baselines_lite.ppo2, "my_lab.my_ppo" for one's own."""
    if not package:
        raise UserError("an algorithm is named after its package, and this one's file is in none: put it into a folder "
                        "and import it from there, or give Experiment a name in place of __package__")
    return package.removeprefix("baselines_lite.")


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """What surrounds an algorithm: the run's length, seed, files and display. The same for every algorithm."""

    seed: int = option(0, "seed of weights, environments, noise and shuffling", low=0)
    num_timesteps: int = option(1_000_000, "environment steps over all environments and ranks; rounded down to whole "
                                "updates", low=1)
    schedule_timesteps: int | None = option(None, "let schedules fall as in a run of so many steps, of which this is "
                                            "the beginning (default: num_timesteps)", low=1)
    preset: str = option("default", "named set of hyperparameters; 'baselines' restores the original's choices")
    env_type: str | None = option(None, "family whose preset to use, instead of the one detected", choices=FAMILIES)
    env_kwargs: Json | None = option(None, "keywords for the environment's constructor, as JSON: "
                                     "'{\"frame_skip\": 2}'; in Python also a dict")
    reward_scale: float = option(1.0, "factor on every reward that is trained on; logs keep raw rewards", above=0)
    tensorboard: bool = option(False, "also write every figure of progress.csv as TensorBoard events beside the log")
    track: str | None = option(None, "also give every figure to 'wandb', or to a module:Class of one's own")
    log_path: FilePath | None = option(None, "folder for the logs; an earlier run's files there are moved aside")
    log_interval: int = option(1, "updates between two rows of progress.csv", low=1)
    view: str | None = option(None, "what is shown: a 'live' picture, plain 'lines', or a 'table' of every figure "
                              "(default: live on a terminal, else lines)", choices=("live", "lines", "table"))
    print_interval: float | None = option(None, "least seconds between two pictures, lines or tables (default: 0.5, "
                                          "10, 2)", low=0)
    save_path: FilePath | None = option(None, "file for the trained policy (default: model.safetensors beside the log)")
    checkpoint_interval: int | None = option(None, "updates between two checkpoints beside the log (default: a "
                                             "twentieth of the run)", low=1)
    checkpoint_seconds: float = option(30.0, "least seconds between two checkpoints", low=0)
    keep_checkpoints: int = option(3, "how many of the last checkpoints are kept", low=1)
    resume: FilePath | None = option(None, "folder of the log of a run that is to go on from its last checkpoint; "
                                     "'auto': that of log_path, where there is one, else a new run")
    load_path: FilePath | None = option(None, "policy file to start from, or to play or evaluate")
    target_return: float | None = option(None, "stop when the mean return of the last 100 episodes reaches this, or "
                                         "that of an evaluation where eval_interval is given")
    eval_interval: int = option(0, "updates between two evaluations, in environments of their own and whole, unclipped "
                                "games; one follows the last update too; 0: none", low=0)
    eval_episodes: int = option(10, "episodes of an evaluation, over all ranks; with --load_path and without "
                                "--num_timesteps: evaluate the file's policy in so many, acting as eval_deterministic "
                                "says", low=1)
    eval_deterministic: bool | None = option(None, "evaluate the most probable actions instead of drawing them "
                                             "(default: but for Atari games, where such a policy may stall)")
    save_video_interval: int = option(0, "environment steps of rank 0 between two recorded videos; 0: none", low=0)
    save_video_length: int = option(200, "steps per recorded video", low=1)
    threads: int | None = option(None, "compute threads per rank (default: 1 for a small mlp, which more threads "
                                 "slow down, else the host's cores shared among its ranks)", low=1)
    vec: str | None = option(None, "where environments run: 'sync' in this process, 'async' in worker processes, "
                             "'native' in the id's own vector environment (default: native for Atari, else sync)",
                             choices=("sync", "async", "native"))
    dtype: str = option("float32", "arithmetic of convolutional networks; weights, losses and the optimizer stay "
                        "float32", choices=("float32", "bfloat16"))
    stall_timeout: float = option(1800.0, "seconds without a step or an update after which a rank is named that comes "
                                  "no further, and the run ends; 0: none", low=0)
    dry_run: bool = option(False, "set everything up, say what would be trained, and end without training or files")
    verbose: bool = option(False, "let TensorFlow and MuJoCo print their start-up messages")


@dataclasses.dataclass(frozen=True)
class RolloutConfig(Config):
    """What the config of every algorithm that learns from rollouts begins with. Counts are per rank."""

    num_env: int = option(8, "environments per rank", low=1)
    nsteps: int = option(128, "steps per environment and update", low=1)
    gamma: float = option(0.99, "discount", low=0, high=1)
    network: str = option("mlp", WITH_MEMORY)
    value_network: str = option("copy", "'shared': the value is a head on the policy's network, 'copy': on its own",
                                choices=("shared", "copy"))
    time_limit: str = option("bootstrap", "a truncated episode's value: 'bootstrap' from its final observation, or "
                             "'terminal' as the original, which takes a time limit for death",
                             choices=("bootstrap", "terminal"))
    streams: str = option("rank", "noise and shuffling of each rank: its own, or the 'same' on all as the original",
                          choices=("rank", "same"))
    stagger: bool = option(True, "shorten first episodes that a time limit ends, each by another share, so that "
                           "environments do not stay in step")
    uses_budget: ClassVar[bool] = False  # whether anything but schedules depends on how much of the budget remains
    statistics: ClassVar[str] = "global"  # an ActorCriticConfig offers the choice

    @property
    def nbatch(self) -> int:
        """Samples per rank and update."""
        return self.num_env * self.nsteps

    @property
    def step_batch(self) -> int:
        """Samples per rank and gradient step."""
        return self.nbatch

    def ages(self, rank: int, ranks: int) -> list[float] | None:
        """The shares of their time limits that first episodes of a rank's environments have behind them; None: none."""
        total = ranks * self.num_env
        first = rank * self.num_env
        return [n / total for n in range(first, first + self.num_env)] if self.stagger and total > 1 else None

    def describe_batch(self, ranks: int) -> str:
        """What an update of all ranks is made of, for the start of a run."""
        return (f"batch {ranks * self.nbatch} = {counted(ranks, 'rank')} x num_env {self.num_env} x nsteps "
                f"{self.nsteps}")

    def check(self) -> None:
        """Raises UserError for values that do not go together."""

    def check_budget(self, steps: int, ranks: int) -> None:
        """Raises UserError if so many steps, whole updates over all ranks, are too few for what is wanted of them."""


@dataclasses.dataclass(frozen=True)
class ReplayConfig(Config):
    """What the config of every algorithm that draws single transitions from a replay buffer begins with.

    Counts are per rank unless they say otherwise; schedules go by the global steps.
    """

    uses_budget: ClassVar[bool] = False  # whether anything but schedules depends on how much of the budget remains
    streams: ClassVar[str] = "rank"  # each has its own noise

    num_env: int = option(1, "environments per rank", low=1)
    nsteps: int = option(100, "steps of every environment between two rows of the log", low=1)
    batch_size: int = option(32, "transitions per gradient step and rank", low=1)
    buffer_size: int = option(1_000_000, "transitions in the replay buffer", low=1)
    learning_starts: int = option(1000, "environment steps, over all ranks, before the first gradient step", low=1)
    gamma: float = option(0.99, "discount", low=0, high=1)
    network: str = option("mlp", FEED_FORWARD)
    time_limit: str = option("bootstrap", "a truncated episode's value: 'bootstrap' from its final observation, or "
                             "'terminal' as the original, which takes a time limit for death",
                             choices=("bootstrap", "terminal"))

    @property
    def step_batch(self) -> int:
        """Samples per rank and gradient step."""
        return self.batch_size

    def ages(self, rank: int, ranks: int) -> None:
        """As RolloutConfig's: none, since what is drawn from a buffer is of all ages."""

    def describe_batch(self, ranks: int) -> str:
        """What a gradient step of all ranks is made of, for the start of a run."""
        return (f"minibatches of {ranks * self.batch_size} = {counted(ranks, 'rank')} x batch_size "
                f"{self.batch_size}; a row of the log each {ranks * self.num_env * self.nsteps} steps")

    def check(self) -> None:
        """Raises UserError for values that do not go together."""
        least = max(self.batch_size, self.num_env * self.nsteps)
        if self.buffer_size < least:
            raise UserError(f"buffer_size={self.buffer_size} must be at least {least}: batch_size={self.batch_size}, "
                            f"and num_env={self.num_env} x nsteps={self.nsteps}")

    def check_budget(self, steps: int, ranks: int) -> None:
        """Raises UserError if so many steps, whole rows of the log over all ranks, would train nothing."""
        if steps <= self.learning_starts:
            raise UserError(f"a budget of {steps} steps (num_timesteps, in whole rows of nsteps={self.nsteps} per "
                            f"environment) would train nothing: the first learning_starts={self.learning_starts} only "
                            "fill the replay buffer")


@dataclasses.dataclass(frozen=True)
class ActorCriticConfig(RolloutConfig):
    """What the config of every on-policy actor-critic algorithm begins with."""

    one_optimizer: ClassVar[bool] = False  # trains policy and value together; see ActorCritic's `joined`

    lam: float = option(0.95, "GAE's lambda", low=0, high=1)
    ent_coef: float = option(0.0, "weight of the entropy bonus", low=0)
    logstd_init: float = option(0.0, "initial log standard deviation of continuous actions")
    action_scale: bool | None = option(None, "bring a bounded Box's actions from [-1, 1] to its bounds (default: where "
                                       "these differ from -1 and 1 by a factor over 3)")
    normalize_observations: bool = option(False, "normalise observations by running statistics")
    normalize_rewards: bool = option(False, "divide rewards by the running deviation of their discounted sum")
    statistics: str = option("global", "normalisation statistics of all ranks or each rank's own",
                             choices=("global", "rank"))


@dataclasses.dataclass(frozen=True)
class MinibatchConfig(ActorCriticConfig):
    """What the config of an algorithm begins with that steps Adam on minibatches of one loss: PPO's."""

    one_optimizer: ClassVar[bool] = True

    nminibatches: int = option(4, "minibatches per epoch; must divide num_env x nsteps", low=1)
    noptepochs: int = option(4, "passes over each batch", low=1)
    lr: Schedule = option(Schedule("linear:3e-4"), "Adam's learning rate", low=0)
    vf_coef: float = option(0.5, "weight of the value loss", low=0)
    max_grad_norm: float | None = option(0.5, "the averaged gradient is scaled down to this norm; none: off", above=0)
    adam_epsilon: float = option(1e-5, "Adam's epsilon", above=0)
    seq_len: int | None = option(None, "recurrent networks: steps per training sequence; must divide nsteps (default: "
                                 "the longest of which nminibatches can share out a batch)", low=1)

    @property
    def step_batch(self) -> int:
        return self.nbatch // self.nminibatches

    def check(self) -> None:
        super().check()
        if self.nbatch % self.nminibatches:
            raise UserError(f"nminibatches={self.nminibatches} does not divide the batch of num_env={self.num_env} x "
                            f"nsteps={self.nsteps} = {self.nbatch} samples per rank")
        if self.seq_len is not None and not self.shares_out(self.seq_len):
            raise UserError(f"seq_len={self.seq_len} does not fit: it must divide nsteps={self.nsteps}, and "
                            f"nminibatches={self.nminibatches} the sequences of num_env={self.num_env} environments")

    def shares_out(self, length: int) -> bool:
        """Whether sequences of that length make up the rollout and can be shared out among the minibatches."""
        return self.nsteps % length == 0 and self.nbatch // length % self.nminibatches == 0

    def sequence_length(self) -> int:
        """Steps per training sequence of a recurrent network: seq_len, or the longest that can be shared out."""
        return self.seq_len or max(n for n in range(1, self.nsteps + 1) if self.shares_out(n))


@dataclasses.dataclass(frozen=True)
class ValueFitConfig(ActorCriticConfig):
    """What the config of an algorithm begins with that steps the policy first, then fits the value by itself."""

    lam: float = 0.97
    vf_lr: Schedule = option(Schedule("1e-3"), "Adam's learning rate for the value", low=0)
    vf_iters: int = option(5, "passes over each batch to fit the value", low=1)
    vf_minibatches: int = option(32, "minibatches per pass", low=1)

    def check(self) -> None:
        super().check()
        if self.nbatch < self.vf_minibatches:
            raise UserError(f"vf_minibatches={self.vf_minibatches} is more than the batch of num_env={self.num_env} x "
                            f"nsteps={self.nsteps} = {self.nbatch} samples per rank")


@dataclasses.dataclass(frozen=True)
class NaturalConfig(ValueFitConfig):
    """What the config of an algorithm begins with that steps the policy along its natural gradient."""

    network: str = option("mlp", FEED_FORWARD)
    cg_iters: int = option(10, "iterations of conjugate gradient", low=1)
    fisher_every: int = option(1, "1: the Fisher matrix is of every sample; 5: of every fifth", low=1)

    def check_policy(self, policy: Any) -> None:
        """Raises UserError for a policy whose parameters the natural gradient and trust regions do not support."""
        if policy.recurrent:
            raise UserError(f"the network {policy.network} has a memory, which a natural gradient does not support "
                            "here; use --network=mlp, or vpg, ppo1 or ppo2")
        if policy.vf_net is policy.pi_net:
            raise UserError("value_network=shared is not supported: fitting the value would move the policy out of its "
                            "trust region. Use value_network=copy")


def preset_values(presets: Mapping[str, Mapping[str, Mapping[str, Any]]], preset: str, family: str) -> dict[str, Any]:
    """Values of a named preset for an environment family: the preset's "all" row, overridden by the family's row.

    Raises UserError for a preset that does not exist.
    """
    if preset not in presets:
        raise unknown("preset", preset, presets)
    rows = presets[preset]
    return {**rows.get("all", {}), **rows.get(family, {})}


@dataclasses.dataclass(frozen=True)
class Resolved:
    """Everything that a run was told: options around it, the algorithm's config, its network's and Atari's options."""

    run: RunOptions
    config: Any
    network_options: dict[str, Any]
    atari: AtariOptions
    preset: dict[str, Any]  # the values of the preset, before what was given

    @property
    def small(self) -> bool:
        """Whether a second thread would slow an update down, as it does most of those without convolutions.

        With it DDPG's 256 x 256 weights and batches of 100 take 0.7 times as long, 64 x 64 1.05 times, and deepq's 256
        x 256 with batches of 32 1.05 times (two cores).
        """
        if self.config.network != "mlp":
            return self.config.network in SMALL
        return override(MlpOptions(), self.network_options).most_weights < 256 * 256 or self.config.step_batch < 64


def resolve(config_type: type, presets: Mapping[str, Mapping[str, Mapping[str, Any]]], family: str,
            values: Mapping[str, Any], ranks: int = 1, one_env: bool = False) -> Resolved:
    """Options by name, from strings or Python values, as a checked configuration.

    Precedence: the defaults, the preset for the environment's family, `values`. A name that RunOptions, AtariOptions
    and the config do not know must be an option of the network. Raises UserError for anything that cannot be meant,
    also for a budget smaller than one update of all `ranks`. `one_env`: there is one environment, an object; by default
    it gives as many samples per update as the preset's `num_env` would.
    """
    run_names, config_names, atari_names = ({f.name for f in dataclasses.fields(t)}
                                            for t in (RunOptions, config_type, AtariOptions))
    run = override(RunOptions(), {k: v for k, v in values.items() if k in run_names})  # says which preset
    atari_values = {k: v for k, v in values.items() if k in atari_names - config_names}
    atari = override(AtariOptions(), atari_values)
    if atari_values and family != "atari":
        raise UserError(f"the option {next(iter(atari_values))} is for Atari games, which this environment is not")
    row = preset_values(presets, run.preset, run.env_type or family)
    run = override(RunOptions(), {k: v for k, v in {**row, **values}.items() if k in run_names})
    config = usual = override(config_type(), {k: v for k, v in row.items() if k in config_names})
    if one_env:
        config = override(config, dict(num_env=1, nsteps=config.num_env * config.nsteps))
    config = override(config, {k: v for k, v in values.items() if k in config_names})
    if one_env and config.num_env != 1:
        raise UserError(f"num_env={config.num_env} is for an environment's id or factory: an Env object is one "
                        "environment")
    known = run_names | config_names | atari_names
    rest = {k: v for k, v in values.items() if k not in known}
    if config.network == usual.network:  # a preset's network options are for its own network
        rest = {k: v for k, v in row.items() if k not in known} | rest
    network_options = check_network_options(config.network, rest, known)
    config.check()
    for name in EVALUATING:
        if name in values and not run.eval_interval:
            raise UserError(f"{name} has no meaning without eval_interval, the updates between two evaluations (or, on "
                            "the command line, --load_path without --num_timesteps)")
    total = config.num_env * config.nsteps * ranks
    if run.num_timesteps < total:
        raise UserError(f"num_timesteps={run.num_timesteps} is less than one update: {counted(ranks, 'rank')} x "
                        f"num_env={config.num_env} x nsteps={config.nsteps} = {total} steps")
    config.check_budget(run.num_timesteps // total * total, ranks)
    if run.schedule_timesteps is not None and run.schedule_timesteps < run.num_timesteps:
        raise UserError(f"schedule_timesteps={run.schedule_timesteps} is less than num_timesteps={run.num_timesteps}: "
                        "the schedules would end before the run")
    return Resolved(run, config, network_options, atari, row)


def check_alike(all_ranks: Sequence[Mapping[str, Any]]) -> None:
    """Raises UserError if the ranks' settings, as text by name, differ: they would wait for each other for ever.

    Paths may, where rank 0 has one: it reads and writes the files.
    """
    for name in dict.fromkeys(name for settings in all_ranks for name in settings):
        first, *_ = values = [settings.get(name) for settings in all_ranks]
        if name in PATHS and first is None and any(values):
            raise UserError(f"{name} is given on rank {values.index(next(filter(None, values)))}, but not on rank 0, "
                            "which reads and writes the files of all ranks; give it there")
        if name not in PATHS and any(value != first for value in values):
            raise UserError(f"the ranks' settings differ: {name} is {values}; give all the same")


def read_config(path: str | Path) -> dict[str, Any]:
    """The JSON object in a config file. Raises UserError where there is none."""
    try:
        found = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the config file {str(path)!r}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UserError(f"the config file {str(path)!r} is not JSON") from None
    if not isinstance(found, dict):
        raise UserError(f"the config file {str(path)!r} has no JSON object")
    return found


def from_config(given: Any) -> dict[str, Any]:
    """Options by name from what `config` was given: a Config, a dict, or the path of a JSON file with one of these.

    Of a Config those count that it was made with.
    The config.json that a run writes is such a file: its run's options count without paths, also those that are the
    defaults, since a preset may have others. Raises UserError for anything else.
    """
    if dataclasses.is_dataclass(given) and not isinstance(given, type):
        return {name: getattr(given, name) for name in given.given} if isinstance(given, Config) else to_dict(given)
    if isinstance(given, str | Path):
        given = read_config(given)
    if not isinstance(given, Mapping):
        raise UserError(f"config must be a Config, a dict or the path of a JSON file, not {given!r}")
    parts = [given.get(name) for name in ("config", "network_options", "atari")]
    if not isinstance(parts[0], Mapping):
        return dict(given)  # options alone
    run = dict(given.get("run") or {})
    left_out = (*PATHS, "resume", *(() if run.get("eval_interval") else EVALUATING))
    known = RunOptions.__dataclass_fields__  # what another version had, and was not used, has no name here
    run = {k: v for k, v in run.items() if k not in left_out and (k in known or v is not None)}
    return run | {k: v for part in parts for k, v in dict(part or {}).items()}


def with_budget(options: Mapping[str, Any], total_timesteps: float | None, config_type: type) -> dict[str, Any]:
    """`learn`'s options, those of `config` and the budget among them: total_timesteps, or num_timesteps.

    Raises UserError for both, and for a Config of another algorithm.
    """
    if options.get("config") is not None:
        if isinstance(options["config"], Config) and not isinstance(options["config"], config_type):
            kinds = (f"{kind.__module__}.{kind.__qualname__}" for kind in (type(options["config"]), config_type))
            raise UserError("config is a {}, not this algorithm's {}".format(*kinds))
        own = from_config(options["config"])
        options = {**own, **{k: v for k, v in options.items() if k != "config"}}
        if total_timesteps is not None and "num_timesteps" in own:
            options = {k: v for k, v in options.items() if k != "num_timesteps"}
    if total_timesteps is None:
        return dict(options)
    if "num_timesteps" in options:
        raise UserError(f"total_timesteps={total_timesteps} and num_timesteps={options['num_timesteps']} are two names "
                        "of one number: give one of them")
    return {**options, "num_timesteps": total_timesteps}
