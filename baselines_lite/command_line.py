"""The command line: flags -> learn -> save, play. Or a file's policy -> evaluate, record, play.

    python run.py --alg=ppo2 --env=CartPole-v1 --num_timesteps=1e5
    python run.py --load_path=model.safetensors --play
    python run.py --load_path=model.safetensors --eval_episodes=100
    python run.py plot runs/
    python run.py sweep --env=CartPole-v1 --seeds=0-4 --out=results

`-` and `_` are interchangeable in flags. Flags are parsed by the types of the configuration, never evaluated.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from baselines_lite import __version__, load, registry
from baselines_lite.common.envs.atari_options import AtariOptions
from baselines_lite.common.experiment import resume
from baselines_lite.common.experiment.config import (
    Resolved,
    RolloutConfig,
    RunOptions,
    algorithm_name,
    from_config,
    preset_values,
    read_config,
    resolve,
)
from baselines_lite.common.networks.options import BUILT_IN
from baselines_lite.common.system.errors import UserError, unknown
from baselines_lite.common.system.folders import now, own_folder, remove_unused, unused
from baselines_lite.common.system.mpi import get_comm, launched_rank, launched_size
from baselines_lite.common.system.options import FilePath, convert, option, option_table, override, rules_of
from baselines_lite.from_file import check_model_file, check_writable, env_of, evaluate, trained_in, watch

# What a first argument without dashes asks for: a module with `main(arguments) -> exit status`, and what it does.
COMMANDS = {"plot": ("baselines_lite.runs.plot", "draws learning curves of runs: a picture, and a page"),
            "sweep": ("baselines_lite.runs.sweep", "runs algorithms, environments, options and seeds; makes a table"),
            "list": ("baselines_lite.tools.listing", "says which algorithms, networks, presets and ids there are"),
            "check": ("baselines_lite.tools.check", "says whether an environment keeps Gymnasium's rules"),
            "doctor": ("baselines_lite.tools.doctor", "says what is installed, what is missing and what mends it"),
            "stubs": ("baselines_lite.tools.stubs", "writes the options of `learn` for editors and type checkers")}


@dataclasses.dataclass(frozen=True)
class CommandOptions:
    """What only the command line knows."""

    alg: str = option("ppo2", f"algorithm: {', '.join(registry.ALGORITHMS)}, or the dotted path of one's own package")
    env: str = option(None, "Gymnasium id, or module:Id")
    config: FilePath | None = option(None, "JSON file with options by name, or the config.json of a run; flags "
                                     "override it")
    play: bool = option(False, "play with the policy, drawing actions: the one just trained, or the one of --load_path")
    record: FilePath | None = option(None, "play into this .mp4 or .gif file, one episode after the other, without a "
                                     "window")
    play_episodes: int = option(5, "episodes to play or record", low=1)
    deterministic: bool = option(False, "play the most probable action instead of drawing one")
    eval_json: FilePath | None = option(None, "file for what --eval_episodes of --load_path finds (default: the "
                                        "model's, with .eval.json in place of its suffix)")
    help: bool = option(False, "print this text; with --alg=NAME also that algorithm's flags, with --env=ID the "
                        "defaults of its preset")
    version: bool = option(False, "print the version")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status.

    That is 0, 2 after bad input (one sentence on stderr), or 128 + signal where a signal has stopped the training.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if arguments and arguments[0] in COMMANDS:
            return importlib.import_module(COMMANDS[arguments[0]][0]).main(arguments[1:])
        if arguments and re.fullmatch(r"[A-Za-z]\w*", arguments[0]):
            raise UserError(f"{unknown('command', arguments[0], COMMANDS, list_all=False)}; commands are "
                            f"{', '.join(COMMANDS)}; without one flags train: --alg=NAME --env=ID; --help says more")
        comm = get_comm()
        with comm.guarded():
            config = comm.broadcast(comm.together(lambda: config_of(parse(arguments)), root_only=True))
            flags, command = comm.together(lambda: understood(arguments, config))
            options = {k: v for k, v in flags.items() if k not in CommandOptions.__dataclass_fields__}
            asked = plays(command) or "eval_episodes" in flags
            from_file = asked and "load_path" in flags and "num_timesteps" not in flags
            if comm.broadcast(command.version or command.help or from_file):
                comm.together(lambda: answer(options, command, flags), root_only=True)
                return 0
            return train(options, command, flags)
    except UserError as error:
        # All ranks raise it: they were told of it (Comm.together), or started in a way that is no good. One speaks.
        if launched_rank() == 0:
            print(f"error: {error}", file=sys.stderr, flush=True)
        return 2


def config_of(flags: Mapping[str, str | None]) -> dict[str, str]:
    """The options in the file of --config, as flags. Raises UserError."""
    path = flags.get("config")
    if path is None:
        return {}
    whole = read_config(path)
    found = from_config(whole)
    names = {"alg": "algorithm", "env": "env"} if "config" in whole else {"alg": "alg", "env": "env"}
    found |= {name: whole[key] for name, key in names.items() if whole.get(key) is not None}
    for name in ("alg", "env", "network", "track"):  # may name modules, which a file does not import by itself
        value = found.get(name)
        if name not in flags and (":" in str(value) or (name == "alg" and value not in (None, *registry.ALGORITHMS))):
            raise UserError(f"the config file {path!r} has {name}={value}, which imports a module: if you trust it, "
                            f"give --{name}={value}")
    return {name: "none" if value is None else json.dumps(value) if isinstance(value, Mapping) else str(value)
            for name, value in found.items()}


def understood(arguments: Sequence[str], config: Mapping[str, str]) -> tuple[dict[str, str | None], CommandOptions]:
    """All flags, and those that only the command line knows as their types. Raises UserError."""
    flags = complete({**config, **parse(arguments)}, CommandOptions, RunOptions)
    command = override(CommandOptions(), {k: v for k, v in flags.items() if k in CommandOptions.__dataclass_fields__})
    if command.record and not command.record.lower().endswith((".mp4", ".gif")):
        raise UserError(f"record={command.record} must end with .mp4 or .gif")
    if convert("verbose", bool, flags.get("verbose", False)):
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0"
    return flags, command


def answer(options: dict[str, Any], command: CommandOptions, flags: dict[str, str]) -> None:
    """What one process does for all: print, or use the policy of a file."""
    if command.version:
        print(f"baselines_lite {__version__}")
    elif command.help:
        print(help_text(command, flags))
    else:
        use_file(options, command, flags)


def plays(command: CommandOptions) -> bool:
    """Whether episodes are to be seen, in a window or a file."""
    return command.play or command.record is not None


def parse(arguments: Sequence[str], others: list[str] | None = None) -> dict[str, str | None]:
    """`--name=value` and `--name value` as names and texts, a bare `--name` as a name and None.

    Arguments that are no flags are added to `others`. Raises UserError, also for these where nobody takes them.
    """
    flags: dict[str, str | None] = {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "-h":
            argument = "--help"
        if not re.match(r"--[A-Za-z]", argument):
            if others is None or argument.startswith("-"):
                raise UserError(f"unexpected argument {argument!r}: write --NAME=VALUE")
            others.append(argument)
            continue
        name, equals, value = argument[2:].partition("=")
        name = name.replace("-", "_")
        if not equals:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else None
        elif not value:
            raise UserError(f"the flag --{name} needs a value after '='")
        if name in flags:
            raise UserError(f"the flag --{name} is given twice")
        flags[name] = value
    return flags


def complete(flags: dict[str, str | None], *config_types: type) -> dict[str, str | None]:
    """Flags with the bare ones among these types' options made "true". Raises UserError for one that is no switch."""
    known = {f.name: f.type for t in config_types for f in dataclasses.fields(t)}
    for name, value in flags.items():
        if value is None and name in known and "bool" not in str(known[name]):
            raise UserError(f"the flag --{name} needs a value: --{name}=VALUE")
    return {name: "true" if value is None and name in known else value for name, value in flags.items()}


def train(options: dict[str, Any], command: CommandOptions, flags: Mapping[str, Any]) -> int:
    """Trains, and plays afterwards if asked to; the exit status."""
    comm = get_comm()
    found = comm.broadcast(comm.together(lambda: resume.asked(options), root_only=True))
    if found is not None:
        folder, facts = found
        command = comm.together(lambda: named_as(command, facts["settings"], flags))
        options["log_path"] = folder
    at = comm.broadcast(comm.together(lambda: place_of_file(options, command), root_only=True))
    if at is not None:
        command, options = dataclasses.replace(command, env=at["env"]), {**at, **options}
        del options["env"]
    algorithm, options, run = comm.together(lambda: checked(options, command, found and found[1]))
    budget = run.num_timesteps if found is None or "num_timesteps" in options else None  # None: as it was
    given = run.log_path or run.dry_run
    made = comm.together(lambda: None if given else own_folder(default_log_path(command)), root_only=True)
    made = comm.broadcast(made)
    if made is not None:
        options["log_path"] = made
        unused.append(made)  # on all ranks: the first that Ctrl-C ends may be the only one that still can remove it
    try:
        policy = algorithm.learn(command.env, total_timesteps=budget,
                                 **{k: v for k, v in options.items() if k != "num_timesteps"})
    finally:
        remove_unused()
    if run.dry_run:
        return 0
    stopped_by = getattr(policy, "stopped_by", None)  # a `learn` of one's own may return something else
    if stopped_by is not None:
        if comm.rank == 0:
            print(f"stopped by {stopped_by.name}: exit status {128 + stopped_by}"
                  f"{', nothing is played' if plays(command) else ''}", file=sys.stderr, flush=True)
        return 128 + stopped_by
    comm.together(lambda: plays(command) and watch(policy, command.env, command, made or run.log_path), root_only=True)
    return 0


def named_as(command: CommandOptions, settings: Mapping[str, Any], flags: Mapping[str, Any]) -> CommandOptions:
    """The command with algorithm and environment of a run that goes on, where the flags do not give them.

    Raises UserError for those that would import a module which nobody has named.
    """
    names = {"alg": settings["algorithm"], "env": settings["env"]}
    for name, value in names.items():
        if name not in flags and (":" in value or (name == "alg" and value not in registry.ALGORITHMS)):
            raise resume.trusted(name, value)
    return dataclasses.replace(command, **{k: v for k, v in names.items() if k not in flags})


def place_of_file(options: Mapping[str, Any], command: CommandOptions) -> dict[str, str] | None:
    """The environment where the policy that training starts from was trained, where none is given; says so.

    With its keywords, as options. Raises UserError.
    """
    path = options.get("load_path")
    if command.env is not None or path is None:
        return None
    found = trained_in(FilePath(path))
    print(f"the environment is {found['env']}, in which the policy of {path!r} was trained", flush=True)
    return found


def checked(options: dict[str, str | None], command: CommandOptions, facts: Mapping[str, Any] | None = None
            ) -> tuple[ModuleType, dict[str, Any], RunOptions]:
    """The algorithm, its options and those of the run. Raises UserError for what can be told before a run is set up.

    `facts`: what the checkpoints say of a run that goes on.
    """
    algorithm = registry.find(command.alg)
    options = known_options(algorithm, options)
    if command.env is None:
        raise UserError("which environment? Give --env=ID, for example --env=CartPole-v1; --help lists all flags")
    if command.eval_json is not None:
        raise UserError("--eval_json is for --eval_episodes with --load_path and without --num_timesteps; a run writes "
                        "its evaluations to evaluations.csv")
    whole = resume.with_given(options, facts) if facts else options
    run = check_before_loading(algorithm, command.env, whole, launched_size()).run
    if command.record is not None and launched_rank() == 0:
        check_writable(command.record)
    return algorithm, options, run


def option_types(algorithm: ModuleType) -> tuple[type, ...]:
    """The dataclasses whose fields are the flags of an algorithm."""
    return (CommandOptions, RunOptions, algorithm.Config, AtariOptions, *BUILT_IN.values())


def known_options(algorithm: ModuleType, options: dict[str, str | None]) -> dict[str, str]:
    """An algorithm's options, each with a value. Raises UserError for a flag that does not exist."""
    types = option_types(algorithm)
    known = {f.name for t in types for f in dataclasses.fields(t)}
    for name in options:
        if name not in known and ":" not in str(options.get("network", "")):
            raise unknown("flag", f"--{name}", [f"--{k}" for k in known], list_all=False)
    return {name: "true" if value is None else value for name, value in complete(options, *types).items()}


def check_before_loading(algorithm: ModuleType, env: str, options: dict[str, Any], ranks: int) -> Resolved:
    """Finds bad input before TensorFlow is loaded, which takes seconds."""
    for kind in (RunOptions, algorithm.Config):  # before environments are loaded
        with_known(kind(), options)
    found = resolve(algorithm.Config, algorithm.PRESETS, family_of_id(env), options, ranks)
    if found.run.load_path and launched_rank() == 0:  # which loads the file for all
        check_model_file(found.run.load_path)
    return found


def default_log_path(command: CommandOptions) -> str:
    """The name of a folder below runs/, after algorithm, environment and time."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{algorithm_name(command.alg)}-{command.env}")
    return os.path.join("runs", f"{name}-{now()}")


def use_file(options: dict[str, Any], command: CommandOptions, flags: dict[str, str]) -> None:
    """Evaluates, records or plays a file's policy, in the environment it was trained in unless --env says otherwise."""
    allowed = {"load_path", "env_kwargs", "seed", "log_path", "network", "verbose", "eval_episodes",
               "eval_deterministic"}
    for name in options:
        if name not in allowed:
            raise UserError(f"--{name} has no meaning where --load_path is played or evaluated, without "
                            "--num_timesteps; --alg, --env, --env_kwargs, --network, --seed, --log_path, --play, "
                            "--play_episodes, --deterministic, --record, --eval_episodes, --eval_deterministic and "
                            "--eval_json have")
    run = with_known(RunOptions(), complete(options, RolloutConfig))
    evaluates = "eval_episodes" in options
    for wanted, by, names in ((evaluates, "--eval_episodes", ("eval_deterministic", "eval_json")),
                              (plays(command), "--play or --record", ("play_episodes", "deterministic", "log_path"))):
        for name in names:
            if name in flags and not wanted:
                raise UserError(f"--{name} has no meaning without {by}")
    eval_json = command.eval_json or os.path.splitext(run.load_path)[0] + ".eval.json"
    for path in filter(None, (evaluates and eval_json, command.record)):
        check_writable(path)
    if "alg" in flags:
        registry.find(command.alg)  # the policy's class may be one of its own
    check_model_file(run.load_path)
    policy = load(run.load_path, options.get("network"))
    env = command.env or env_of(policy, run.load_path)
    if command.alg in registry.ALGORITHMS and "alg" in flags and command.alg != policy.info.get("algorithm"):
        raise UserError(f"the model file {run.load_path!r} is of the algorithm {policy.info.get('algorithm')}, "
                        f"not {command.alg}")
    if run.env_kwargs is not None:
        policy.info = {**policy.info, "env": env, "env_kwargs": run.env_kwargs}
    if evaluates:
        evaluate(policy, env, run, eval_json)
    if plays(command):
        watch(policy, env, command, run.log_path or os.path.dirname(run.load_path) or ".", run.seed)


def help_text(command: CommandOptions, flags: Mapping[str, Any]) -> str:
    """Every flag with type, default and meaning, generated from the configuration.

    With --alg or --env also those of the algorithm; with --env or --env_type defaults are as the preset has them.
    """
    run = with_known(RunOptions(), {k: v for k, v in flags.items() if k in ("preset", "env_type")})
    if "alg" in flags or command.env or run.env_type:
        algorithm, values = registry.find(command.alg), {}
        title = f"{command.alg} (defaults; with --env=ID those of its preset)"
        if command.env or run.env_type:
            family = run.env_type or family_of_id(command.env)
            values = preset_values(algorithm.PRESETS, run.preset, family)
            title = f"{command.alg} (defaults of the preset {run.preset} for {family})"
        run, config = with_known(run, values), with_known(algorithm.Config(), values)
        rest = ["", f"{title}:", option_table(config)]
        for name, options in networks_of(config).items():
            own = with_known(options(), values if name == config.network else {})
            rest += ["", f"network {name}:", option_table(own)]
        rest += ["", "Atari games:", option_table(AtariOptions)]
    else:
        rest = ["", "commands, in place of flags; --help after one lists its own:"]
        rest += [f"  {name:<10} {what}" for name, (_, what) in COMMANDS.items()]
        rest += ["", "--alg=NAME --help lists that algorithm's hyperparameters:"]
        rest += [f"  {name:<10} {row.paper}" for name, row in registry.ALGORITHMS.items()]
    usage = ["usage: [mpirun -np N] python run.py --alg=NAME --env=ID [--FLAG=VALUE ...]",
             "       python run.py --load_path=FILE --play | --record=FILE.mp4 | --eval_episodes=100",
             f"       python run.py {'|'.join(COMMANDS)} ...   (--help after it lists its flags)"]
    return "\n".join([*usage, "", "command line:", option_table(CommandOptions), "", "run:", option_table(run), *rest])


def networks_of(config: Any) -> dict[str, type]:
    """The options of each built-in network that a config, or its class, takes: its option `network` names them."""
    names = rules_of(config, "network")["help"]
    return {name: options for name, options in BUILT_IN.items() if re.search(rf"\b{name}\b", names)}


def with_known(config: Any, values: Mapping[str, Any]) -> Any:
    """A config with those of the values that are its options."""
    return override(config, {k: v for k, v in values.items() if k in config.__dataclass_fields__})


def family_of_id(env: str) -> str:
    """The family of the environment with that id."""
    from baselines_lite.common.envs.make import family_of, find_spec  # loads Gymnasium, which takes a second

    return family_of(find_spec(env))
