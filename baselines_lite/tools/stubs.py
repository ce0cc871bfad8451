"""What editors and type checkers see of an algorithm: its `learn` with all options, in a stub beside `__init__.py`.

    baselines-lite stubs                    # of the built-in ones
    baselines-lite stubs my_lab.my_ppo      # of one's own

Names, types, defaults and meanings are those of the dataclasses that `learn` reads. The package's name is not in it, so
that a copied folder's is right until the copy's options change.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import textwrap
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from baselines_lite import registry
from baselines_lite.command_line import networks_of, parse
from baselines_lite.common.envs.atari_options import AtariOptions
from baselines_lite.common.experiment.config import RunOptions
from baselines_lite.common.system.options import rules_of

USAGE = """usage: baselines-lite stubs [PACKAGE...]

Writes PACKAGE/__init__.pyi, where editors and type checkers find the options of its `learn`: of an algorithm of one's
own, named by its dotted path, whenever its options have changed; of all built-in ones where none is named."""

STUB = '''"""What editors and type checkers see of this package; when it runs, this file is not read.

`baselines-lite stubs PACKAGE` writes it from the options in config.py. When they change, do that again or delete it.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

{absolute}

{relative}

__all__ = ["PRESETS", "Config", "learn"]

def learn(
    env: EnvLike,
    total_timesteps: float | None = None,
    *,
    callback: Callable[[AfterUpdate], Any] | None = None,
    config: Config | Mapping[str, Any] | str | Path | None = None,
{parameters}
) -> {policy}:
    """{doc}

    Defaults are those before the preset's for a family of environments. A network of one's own has its options in
    `config`.

    callback: called after each update; where it returns True, the run ends.
    config: options by name, or a JSON file with them, which the other keywords override.
{meanings}
    """
'''


def main(arguments: Sequence[str]) -> int:
    """Runs the command `stubs`; the exit status. Raises UserError."""
    names: list[str] = []
    if parse(arguments, names):
        print(USAGE)
        return 0
    for name in names or registry.ALGORITHMS:
        module = registry.find(name)
        path = Path(module.__file__).with_suffix(".pyi")
        path.write_text(stub(module), encoding="utf-8")
        print(path)
    return 0


def stub(module: ModuleType) -> str:
    """The stub of an algorithm's package."""
    options: dict[str, list[str]] = {}
    for name, *rest in options_of(module):
        options.setdefault(name, rest)
    policy = typing.get_type_hints(module.learn).get("return", Any)
    imports = {".config": "PRESETS, Config", "baselines_lite.common.envs.vec_env": "EnvLike",
               "baselines_lite.common.experiment.report": "AfterUpdate"}
    if policy is not Any:
        imports[policy.__module__.removeprefix(module.__name__)] = policy.__name__
    lines = [f"from {place} import {names}" for place, names in sorted(imports.items())]
    return STUB.format(
        absolute="\n".join(line for line in lines if not line.startswith("from .")),
        relative="\n".join(line for line in lines if line.startswith("from .")),
        parameters="\n".join(f"    {name}: {hint} = {default}," for name, (hint, default, _) in options.items()),
        policy=policy.__name__,
        doc=textwrap.indent(inspect.getdoc(module.learn) or "Trains a policy.", "    ").strip(),
        meanings="\n".join(wrapped(f"{name}: {meaning}") for name, (_, _, meaning) in options.items()))


def options_of(module: ModuleType) -> Iterator[tuple[str, str, str, str]]:
    """Name, type, default and meaning of all options, those that `config.resolve` looks for first before the others."""
    for kind in (module.Config, RunOptions, AtariOptions):
        for field in dataclasses.fields(kind):
            default = json.dumps(field.default) if isinstance(field.default, str) else repr(field.default)
            yield field.name, hint_of(kind, field.name), default, rules_of(kind, field.name)["help"]
    kinds: dict[str, dict[str, type]] = {}  # an option's name -> the networks that have it
    for network, kind in networks_of(module.Config).items():
        for field in dataclasses.fields(kind):
            kinds.setdefault(field.name, {})[network] = kind
    for name, networks in kinds.items():
        kind = next(iter(networks.values()))
        defaults = ", ".join(f"{network}: {getattr(each, name)}" for network, each in networks.items())
        yield name, hint_of(kind, name), "...", f"{rules_of(kind, name)['help']} ({defaults})"


def hint_of(kind: type, name: str) -> str:
    """What `options.convert` is given for an option: one of its choices, or what the constructor of its type takes."""
    hint, choices = typing.get_type_hints(kind)[name], rules_of(kind, name)["choices"]
    inner = next((each for each in typing.get_args(hint) if each is not type(None)), hint)
    if choices:
        text = f"Literal[{', '.join(map(json.dumps, choices))}]"
    else:
        text = next(iter(getattr(inner.__new__, "__annotations__", {}).values()), inner.__name__)
    return f"{text} | None" if inner is not hint else text


def wrapped(text: str) -> str:
    """A line of the docstring, or several."""
    return textwrap.fill(text, 120, initial_indent=" " * 4, subsequent_indent=" " * 8, break_long_words=False,
                         break_on_hyphens=False)
