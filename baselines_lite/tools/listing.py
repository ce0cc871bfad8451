"""What there is to choose from: algorithms, networks, the values of presets, the environments of a family.

    baselines-lite list
    baselines-lite list --family=mujoco
    baselines-lite list --family=atari --alg=ppo2,acer
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

from baselines_lite import registry
from baselines_lite.command_line import complete, parse
from baselines_lite.common.experiment.config import FAMILIES, preset_values
from baselines_lite.common.networks.options import BUILT_IN
from baselines_lite.common.system.errors import UserError, counted
from baselines_lite.common.system.options import option, option_table, override


@dataclasses.dataclass(frozen=True)
class ListOptions:
    """What `list` knows."""

    family: str | None = option(None, "the presets of this family of environments, and its ids", choices=FAMILIES)
    alg: str | None = option(None, "of these algorithms only, separated by commas")
    help: bool = option(False, "print this text")


def main(arguments: Sequence[str]) -> int:
    """Runs the command `list`; the exit status. Raises UserError."""
    options = override(ListOptions(), complete(parse(arguments), ListOptions))
    if options.help:
        print(f"usage: baselines-lite list [--family=NAME] [--alg=NAME,NAME]\n\n{option_table(ListOptions())}")
        return 0
    names = options.alg.split(",") if options.alg else list(registry.ALGORITHMS)
    print("\n".join(everything(names) if options.family is None else family(options.family, names)))
    return 0


def everything(names: Sequence[str]) -> list[str]:
    """Algorithms, networks and families."""
    lines = ["algorithms (--alg):"]
    for name in names:
        module = registry.find(name)
        row = registry.ALGORITHMS.get(name)
        rest = (f"{row.paper}; actions {', '.join(row.actions)}; networks {row.networks}" if row is not None
                else (module.__doc__ or "").partition("\n")[0])
        lines.append(f"  {name:<10} {rest}")
    lines += ["", "networks (--network), and their options; one of your own is module:function:"]
    lines += [f"  {name:<10}  " + " ".join(f"--{f.name}={f.default}" for f in dataclasses.fields(kind))
              for name, kind in BUILT_IN.items()]
    lines += ["", "families of environments (list --family=NAME shows presets and ids): " + ", ".join(FAMILIES),
              "presets (--preset): default; baselines, where the original's choices are another"]
    return lines


def family(name: str, algorithms: Sequence[str]) -> list[str]:
    """The presets of a family for those algorithms that have environments in it, and the ids of these."""
    ids, refused = ids_of(name)
    takes = {alg: registry.ALGORITHMS[alg].actions if alg in registry.ALGORITHMS else registry.EVERY
             for alg in algorithms}
    lines = []
    for alg in algorithms:
        presets = registry.find(alg).PRESETS
        if ids and not ids.keys() & set(takes[alg]):
            lines.append(f"{alg} takes actions {', '.join(takes[alg])}, which no environment here has")
            continue
        for preset in presets:
            values = preset_values(presets, preset, name)
            flags = " ".join(f"--{k}={v}" for k, v in values.items())
            lines += [f"{alg}, preset {preset}:", f"  {flags or 'defaults'}"]
    for kind, found in ids.items():
        if users := [alg for alg in algorithms if kind in takes[alg]]:
            lines += ["", f"environments of the family {name} with actions {kind}, for {', '.join(users)}:",
                      *(f"  {line}" for line in wrapped(sorted(found)))]
    if not ids:
        lines += ["", f"environments of the family {name}:", "  none"]
    if refused:
        env_id, error = next(iter(refused.items()))
        lines += ["", f"not here: {counted(len(refused), 'id')} that no run could use, such as {env_id}: {error}"]
    return lines


def ids_of(name: str) -> tuple[dict[str, list[str]], dict[str, UserError]]:
    """The registered ids of a family that runs can use, by the kind of their actions; why they cannot use the others.

    Of the other ones only those that are installed by others.
    """
    import gymnasium as gym

    from baselines_lite.common.envs.atari_options import AtariOptions
    from baselines_lite.common.envs.make import family_of, make_raw

    if name == "atari":
        import ale_py

        from baselines_lite.common.envs.atari import settle

        gym.register_envs(ale_py)
    ids: dict[str, list[str]] = {}
    refused: dict[str, UserError] = {}
    for env_id, spec in gym.registry.items():
        if family_of(spec) == name:
            try:
                if name == "atari":  # their spaces are known, and there are hundreds
                    settle(spec, AtariOptions())
                    kind = "Discrete"
                else:
                    with warnings.catch_warnings(action="ignore"):  # that it is an old release of an environment
                        env = make_raw(spec)
                    kind = type(env.action_space).__name__
                    env.close()
                ids.setdefault(kind, []).append(env_id)
            except UserError as error:
                refused[env_id] = error
    return ids, refused


def wrapped(words: Sequence[str], width: int = 100) -> list[str]:
    """Words as lines of about that width."""
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += ("  " if lines[-1] else "") + word
    return lines
