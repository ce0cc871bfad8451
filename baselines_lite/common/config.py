"""Configuration: frozen dataclasses whose fields say their meaning and range, and strict overrides of them.

An algorithm's config is a frozen dataclass of `option(...)` fields. Values come from strings (the command line) or
Python (keywords of `learn`), are converted by the field's type, never evaluated as code, and checked against the
field's range. An unknown name is an error that suggests the nearest one. No TensorFlow here: `--help` must be fast.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, ClassVar

from baselines_lite.common.errors import UserError, counted, unknown
from baselines_lite.common.schedules import Schedule

FAMILIES = ("atari", "mujoco", "box2d", "classic_control", "toy_text", "other")

# What `--network` may be. `--help` lists the options of the networks named here.
FEED_FORWARD = "network: mlp, cnn, cnn_small, conv_only, or module:function of one's own"
WITH_MEMORY = ("network: mlp, cnn, cnn_small, conv_only, lstm, lnlstm, cnn_lstm, cnn_lnlstm, or module:function of "
               "one's own")


LARGEST = 2**63 - 1  # of whole numbers: what arrays and files can count


def algorithm_name(package: str) -> str:
    """What an algorithm is called: "ppo2" for the package baselines_lite.ppo2, "my_lab.my_ppo" for one's own."""
    if not package:
        raise UserError("an algorithm is named after its package, and this one's file is in none: put it into a folder "
                        "and import it from there, or give Experiment a name in place of __package__")
    return package.removeprefix("baselines_lite.")


def option(default: Any, help: str, *, low: float | None = None, high: float | None = None,
           above: float | None = None, below: float | None = None, choices: tuple[str, ...] | None = None) -> Any:
    """A dataclass field with its meaning and allowed values: low <= it <= high, above < it < below, one of choices."""
    rules = dict(help=help, low=low, high=high, above=above, below=below, choices=choices)
    return dataclasses.field(default=default, metadata=rules)


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
    reward_scale: float = option(1.0, "factor on every reward that is trained on; logs keep raw rewards", above=0)
    tensorboard: bool = option(False, "also write every figure of progress.csv as TensorBoard events beside the log")
    log_path: str | None = option(None, "folder for the logs; an earlier run's files there are moved aside")
    log_interval: int = option(1, "updates between two rows of progress.csv", low=1)
    print_interval: float = option(2.0, "least seconds between two tables on stdout", low=0)
    save_path: str | None = option(None, "file for the trained policy (default: model.safetensors beside the log)")
    save_interval: int = option(0, "updates between two checkpoints of the policy beside the log; 0: none", low=0)
    load_path: str | None = option(None, "policy file to start from, or to play")
    target_return: float | None = option(None, "stop when the mean return of the last 100 episodes reaches this")
    save_video_interval: int = option(0, "environment steps of rank 0 between two recorded videos; 0: none", low=0)
    save_video_length: int = option(200, "steps per recorded video", low=1)
    threads: int | None = option(None, "compute threads per rank (default: 1 for an mlp, which more threads slow "
                                 "down, else the host's cores shared among its ranks)", low=1)
    vec: str | None = option(None, "where environments run: 'sync' in this process, 'async' in worker processes, "
                             "'native' in the id's own vector environment (default: native for Atari, else sync)",
                             choices=("sync", "async", "native"))
    dtype: str = option("float32", "arithmetic of convolutional networks; weights, losses and the optimizer stay "
                        "float32", choices=("float32", "bfloat16"))
    verbose: bool = option(False, "let TensorFlow and MuJoCo print their start-up messages")


@dataclasses.dataclass(frozen=True)
class RolloutConfig:
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

    @property
    def nbatch(self) -> int:
        """Samples per rank and update."""
        return self.num_env * self.nsteps

    def describe_batch(self, ranks: int) -> str:
        """What an update of all ranks is made of, for the start of a run."""
        return (f"batch {ranks * self.nbatch} = {counted(ranks, 'rank')} x num_env {self.num_env} x nsteps "
                f"{self.nsteps}")

    def check(self) -> None:
        """Raises UserError for values that do not go together."""

    def check_budget(self, steps: int, ranks: int) -> None:
        """Raises UserError if so many steps, whole updates over all ranks, are too few for what is wanted of them."""


@dataclasses.dataclass(frozen=True)
class ReplayConfig:
    """What the config of every algorithm that draws single transitions from a replay buffer begins with.

    Counts are per rank unless they say otherwise; schedules go by the global steps.
    """

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
    logstd_init: float = option(0.0, "initial log standard deviation of continuous actions")
    action_scale: bool | None = option(None, "bring a bounded Box's actions from [-1, 1] to its bounds (default: where "
                                       "these differ from -1 and 1 by a factor over 3)")
    normalize_observations: bool = option(False, "normalise observations by running statistics")
    normalize_rewards: bool = option(False, "divide rewards by the running deviation of their discounted sum")
    statistics: str = option("global", "normalisation statistics of all ranks or each rank's own",
                             choices=("global", "rank"))


def check_minibatches(config: Any) -> None:
    """Raises UserError unless nminibatches shares out a config's batch, and seq_len its sequences."""
    c = config
    if c.nbatch % c.nminibatches:
        raise UserError(f"nminibatches={c.nminibatches} does not divide the batch of num_env={c.num_env} x "
                        f"nsteps={c.nsteps} = {c.nbatch} samples per rank")
    if c.seq_len is not None and not shares_out(c, c.seq_len):
        raise UserError(f"seq_len={c.seq_len} does not fit: it must divide nsteps={c.nsteps}, and "
                        f"nminibatches={c.nminibatches} the sequences of num_env={c.num_env} environments")


def shares_out(config: Any, length: int) -> bool:
    """Whether sequences of that length make up the rollout and can be shared out among the minibatches."""
    return config.nsteps % length == 0 and config.nbatch // length % config.nminibatches == 0


def sequence_length(config: Any) -> int:
    """Steps per training sequence of a recurrent network: seq_len, or the longest that can be shared out."""
    return config.seq_len or max(n for n in range(1, config.nsteps + 1) if shares_out(config, n))


def check_value_minibatches(config: Any) -> None:
    """Raises UserError where a batch has fewer samples than vf_minibatches."""
    if config.nbatch < config.vf_minibatches:
        raise UserError(f"vf_minibatches={config.vf_minibatches} is more than the batch of num_env={config.num_env} x "
                        f"nsteps={config.nsteps} = {config.nbatch} samples per rank")


def check_natural(policy: Any) -> None:
    """Raises UserError for a policy whose parameters the natural gradient and trust regions do not support."""
    if policy.recurrent:
        raise UserError(f"the network {policy.network} has a memory, which a natural gradient does not support here; "
                        "use --network=mlp, or vpg, ppo1 or ppo2")
    if policy.vf_net is policy.pi_net:
        raise UserError("value_network=shared is not supported: fitting the value would move the policy out of its "
                        "trust region. Use value_network=copy")


class Sizes(str):
    """The text of layer sizes separated by commas: `400,300`. Raises UserError for anything else."""

    layers: list[int]

    def __new__(cls, text: str | int) -> Sizes:
        if not re.fullmatch(r"\s*[1-9]\d*\s*(,\s*[1-9]\d*\s*)*", str(text)):
            raise UserError(f"{str(text)!r} are no layer sizes: write whole numbers separated by commas, such as "
                            "400,300")
        self = super().__new__(cls, text)
        self.layers = [int(size) for size in self.split(",")]
        return self


@dataclasses.dataclass(frozen=True)
class MlpOptions:
    """Options of the network `mlp`: fully connected layers; see networks.mlp."""

    num_layers: int = option(2, "hidden layers", low=1)
    num_hidden: int = option(64, "units per hidden layer", low=1)
    sizes: Sizes | None = option(None, "units of each hidden layer, such as 400,300, in place of the two above")
    activation: str = option("tanh", "activation of the hidden layers", choices=("tanh", "relu", "elu"))
    layer_norm: bool = option(False, "normalise each hidden layer before its activation")


class Convs(str):
    """The text of a stack of convolutions, `filters@kernel/stride` each: `32@8/4,64@4/2`.

    Raises UserError for anything else.
    """

    layers: list[tuple[int, int, int]]

    def __new__(cls, text: str) -> Convs:
        matches = [re.fullmatch(r"(\d+)@(\d+)/(\d+)", part.strip()) for part in str(text).split(",")]
        layers = [tuple(map(int, match.groups())) for match in matches if match]
        if len(layers) < len(matches) or not all(min(layer) > 0 for layer in layers):
            raise UserError(f"{str(text)!r} is no stack of convolutions: write FILTERS@KERNEL/STRIDE for each, "
                            "separated by commas, such as 32@8/4,64@4/2")
        self = super().__new__(cls, text)
        self.layers = layers
        return self


@dataclasses.dataclass(frozen=True)
class CnnOptions:
    """Options of the network `cnn`: Mnih et al. 2015; see networks.cnn."""

    convs: Convs = option(Convs("32@8/4,64@4/2,64@3/1"), "filters@kernel/stride of each convolution")
    num_hidden: int = option(512, "units of the fully connected layer after them", low=1)
    activation: str = option("relu", "activation of every layer", choices=("tanh", "relu", "elu"))


@dataclasses.dataclass(frozen=True)
class CnnSmallOptions(CnnOptions):
    """Options of the network `cnn_small`, a quarter of `cnn`; see networks.cnn."""

    convs: Convs = option(Convs("8@8/4,16@4/2"), "filters@kernel/stride of each convolution")
    num_hidden: int = option(128, "units of the fully connected layer after them", low=1)


@dataclasses.dataclass(frozen=True)
class ConvOnlyOptions:
    """Options of the network `conv_only`: padded convolutions and no fully connected layer; see networks.conv_only."""

    convs: Convs = option(Convs("32@8/4,64@4/2,64@3/1"), "filters@kernel/stride of each convolution")
    activation: str = option("relu", "activation of every layer", choices=("tanh", "relu", "elu"))


@dataclasses.dataclass(frozen=True)
class LnLstmOptions:
    """Options of the network `lnlstm`: an LSTM with layer normalisation; see networks.lstm."""

    nlstm: int = option(128, "units of the LSTM", low=1)


@dataclasses.dataclass(frozen=True)
class LstmOptions(LnLstmOptions):
    """Options of the network `lstm`; see networks.lstm."""

    layer_norm: bool = option(False, "normalise what enters the LSTM's gates and its cell")


@dataclasses.dataclass(frozen=True)
class CnnLnLstmOptions(CnnOptions):
    """Options of the network `cnn_lnlstm`: `cnn_lstm` with layer normalisation."""

    nlstm: int = option(128, "units of the LSTM", low=1)


@dataclasses.dataclass(frozen=True)
class CnnLstmOptions(CnnLnLstmOptions):
    """Options of the network `cnn_lstm`: `cnn`, then an LSTM; see networks.cnn_lstm."""

    layer_norm: bool = option(False, "normalise what enters the LSTM's gates and its cell")


# The built-in networks' options stand here, not beside the networks, so that --help needs no TensorFlow.
BUILT_IN: dict[str, type] = {"mlp": MlpOptions, "cnn": CnnOptions, "cnn_small": CnnSmallOptions,
                             "conv_only": ConvOnlyOptions, "lstm": LstmOptions, "lnlstm": LnLstmOptions,
                             "cnn_lstm": CnnLstmOptions, "cnn_lnlstm": CnnLnLstmOptions}


@dataclasses.dataclass(frozen=True)
class AtariOptions:
    """How an Atari game is played; see common/atari.py. None: as the environment's id says."""

    sticky: float | None = option(None, "probability that the emulator repeats the last action for a frame (default: "
                                  "the id's, 0 for ...NoFrameskip-v4, 0.25 for ALE/...-v5)", low=0, high=1)
    full_action_space: bool | None = option(None, "all 18 actions instead of those the game uses (default: the id's)")
    frame_skip: int = option(4, "frames per step; the last two are merged by their maximum", low=1)
    frame_stack: int = option(4, "steps that an observation shows", low=1)
    frame_cap: int = option(108_000, "frames after which a game is cut off: a time limit, not a death", low=1)
    noop_max: int = option(30, "a game begins with up to so many frames of doing nothing, drawn uniformly", low=0)
    fire_reset: bool = option(True, "press FIRE as the first of them where the game has it")
    life_loss: bool = option(True, "a lost life ends the training episode, though not the game")
    clip_rewards: bool = option(True, "train on the sign of the rewards; logs keep raw scores")
    env_threads: int | None = option(None, "emulator threads per rank (default: as --threads)", low=1)


def convert(name: str, kind: Any, value: Any) -> Any:
    """`value` (a string or a Python value) as the type `kind`. Raises UserError naming the option `name`."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        inner = [k for k in typing.get_args(kind) if k is not type(None)]
        if value is None or (isinstance(value, str) and value.lower() == "none"):
            return None
        return convert(name, inner[0], value)
    if kind is Any:
        return value
    complaint = UserError(f"{name} must be {describe(kind)}, not {value!r}")
    if value is None:
        raise complaint
    if kind is bool:
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if isinstance(value, bool):
            return value
        if str(value).lower() not in words:
            raise complaint
        return words[str(value).lower()]
    if kind is str:
        return str(value)
    if kind is Schedule:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise complaint
        return Schedule(value)
    if kind in (Convs, Sizes):
        return kind(value)
    if isinstance(value, bool):
        raise complaint
    try:
        return whole_number(value) if kind is int else float(value)
    except (TypeError, ValueError, OverflowError):
        raise complaint from None


def whole_number(value: Any) -> int:
    """An int from 5, 5.0, "5", "1e6" or "1_000". Raises ValueError for anything with a fraction."""
    try:
        number = int(value)
    except ValueError:
        value = float(value)
        number = int(value)
    if not isinstance(value, str) and number != value:
        raise ValueError(value)
    return number


def describe(kind: Any) -> str:
    """A type in the user's words."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return " or ".join(describe(k) for k in typing.get_args(kind))
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "none",
             Schedule: "a number or a schedule such as linear:3e-4", Convs: "convolutions such as 32@8/4,64@4/2",
             Sizes: "layer sizes such as 400,300",
             Any: "a value"}
    return names.get(kind, str(kind))


def check(name: str, value: Any, rules: Mapping[str, Any]) -> None:
    """Raises UserError if a converted value is outside what the field's `rules` allow. None is always allowed."""
    if value is None:
        return
    if rules.get("choices") and value not in rules["choices"]:
        raise unknown(f"{name}", value, rules["choices"])
    number = value.value if isinstance(value, Schedule) else value
    if isinstance(number, float) and not math.isfinite(number):
        raise UserError(f"{name} must be finite, not {value}")
    if isinstance(number, int) and number > LARGEST:
        raise UserError(f"{name} must be at most {LARGEST:,}")
    if rules.get("low") is not None and number < rules["low"]:
        raise UserError(f"{name} must be at least {rules['low']}, not {value}")
    if rules.get("high") is not None and number > rules["high"]:
        raise UserError(f"{name} must be at most {rules['high']}, not {value}")
    if rules.get("above") is not None and number <= rules["above"]:
        raise UserError(f"{name} must be greater than {rules['above']}, not {value}")
    if rules.get("below") is not None and number >= rules["below"]:
        raise UserError(f"{name} must be less than {rules['below']}, not {value}")


def override(config: Any, values: Mapping[str, Any]) -> Any:
    """A copy of the dataclass instance `config` with `values` converted, checked and put in. Strict about names."""
    hints = typing.get_type_hints(type(config))
    fields = {f.name: f for f in dataclasses.fields(config)}
    converted = {}
    for name, value in values.items():
        if name not in fields:
            raise unknown("option", name, fields, list_all=False)
        converted[name] = convert(name, hints[name], value)
        check(name, converted[name], fields[name].metadata)
    return dataclasses.replace(config, **converted)


def preset_values(presets: Mapping[str, Mapping[str, Mapping[str, Any]]], preset: str, family: str) -> dict[str, Any]:
    """Values of a named preset for an environment family: the preset's "all" row, overridden by the family's row.

    Raises UserError for a preset that does not exist.
    """
    if preset not in presets:
        raise unknown("preset", preset, presets)
    rows = presets[preset]
    return {**rows.get("all", {}), **rows.get(family, {})}


def option_table(config: Any, prefix: str = "  ") -> str:
    """The help text of a config: one line per field with type, default (an instance's value) and meaning."""
    hints, rows = typing.get_type_hints(config if isinstance(config, type) else type(config)), []
    for f in dataclasses.fields(config):
        kind = hints[f.name]
        inner = [k for k in typing.get_args(kind) if k is not type(None)] or [kind]
        choices = f.metadata["choices"]
        extra = f" One of {', '.join(choices)}." if choices else ""
        default = str(getattr(config, f.name))
        rows.append((f"--{f.name}", inner[0].__name__.lower(), default, f"{f.metadata['help']}.{extra}"))
    widths = [max(column, *(len(row[i]) + 2 for row in rows)) for i, column in enumerate((26, 9, 13))]
    return "\n".join(prefix + "".join(map(str.ljust, row, widths)) + row[-1] for row in rows)


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass config as JSON-ready values."""
    return dataclasses.asdict(config)


@dataclasses.dataclass(frozen=True)
class Resolved:
    """Everything that a run was told: options around it, the algorithm's config, its network's and Atari's options."""

    run: RunOptions
    config: Any
    network_options: dict[str, Any]
    atari: AtariOptions


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
    atari_values = {k: v for k, v in values.items() if k in atari_names}
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
    total = config.num_env * config.nsteps * ranks
    if run.num_timesteps < total:
        raise UserError(f"num_timesteps={run.num_timesteps} is less than one update: {counted(ranks, 'rank')} x "
                        f"num_env={config.num_env} x nsteps={config.nsteps} = {total} steps")
    config.check_budget(run.num_timesteps // total * total, ranks)
    if run.schedule_timesteps is not None and run.schedule_timesteps < run.num_timesteps:
        raise UserError(f"schedule_timesteps={run.schedule_timesteps} is less than num_timesteps={run.num_timesteps}: "
                        "the schedules would end before the run")
    return Resolved(run, config, network_options, atari)


def with_budget(options: Mapping[str, Any], total_timesteps: float | None) -> dict[str, Any]:
    """`learn`'s options, the budget among them: total_timesteps, or num_timesteps. Raises UserError for both."""
    if total_timesteps is None:
        return dict(options)
    if "num_timesteps" in options:
        raise UserError(f"total_timesteps={total_timesteps} and num_timesteps={options['num_timesteps']} are two names "
                        "of one number: give one of them")
    return {**options, "num_timesteps": total_timesteps}


def check_network_options(network: str, values: Mapping[str, Any], other_names: set[str]) -> dict[str, Any]:
    """Options of a network, converted and checked; a built-in network's without loading TensorFlow."""
    known: set[str] = set()
    if network in BUILT_IN:
        known = {f.name for f in dataclasses.fields(BUILT_IN[network])}
    if network in BUILT_IN and values.keys() <= known:
        checked = override(BUILT_IN[network](), values)
        return {name: getattr(checked, name) for name in values}
    if network not in BUILT_IN:
        from baselines_lite.common import tf_setup  # a network of one's own: needs its code

        tf_setup.load()
        from baselines_lite.common.networks import options_of

        hints = options_of(network)
        known = set(hints)
        if values.keys() <= known:
            return {name: convert(name, hints[name], value) for name, value in values.items()}
    wrong = next(name for name in values if name not in known)
    raise unknown("option", wrong, known | other_names, list_all=False)
