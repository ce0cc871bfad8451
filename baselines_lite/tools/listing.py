"""What there is to choose from: algorithms, networks, the values of presets, the environments of a family.

    baselines-lite list
    baselines-lite list --family=mujoco
    baselines-lite list --family=atari --alg=ppo2,acer
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from baselines_lite import registry
from baselines_lite.command_line import complete, parse
from baselines_lite.common.experiment.config import FAMILIES, preset_values
from baselines_lite.common.networks.options import BUILT_IN
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
    """The presets of a family, and the ids of its environments."""
    lines = []
    for alg in algorithms:
        presets = registry.find(alg).PRESETS
        for preset in presets:
            values = preset_values(presets, preset, name)
            flags = " ".join(f"--{k}={v}" for k, v in values.items())
            lines += [f"{alg}, preset {preset}:", f"  {flags or 'defaults'}"]
    return [*lines, "", f"environments of the family {name}:", *(f"  {line}" for line in wrapped(ids_of(name)))]


def ids_of(name: str) -> list[str]:
    """The registered ids of a family; of the other ones only those that are installed by others."""
    import gymnasium as gym

    from baselines_lite.common.envs.make import family_of

    if name == "atari":
        import ale_py

        gym.register_envs(ale_py)
    return sorted(env_id for env_id, spec in gym.registry.items() if family_of(spec) == name)


def wrapped(words: Sequence[str], width: int = 100) -> list[str]:
    """Words as lines of about that width."""
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += ("  " if lines[-1] else "") + word
    return lines if words else ["none"]
