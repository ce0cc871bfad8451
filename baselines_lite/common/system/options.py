"""Options: frozen dataclasses whose fields say their meaning and range, and strict overrides of them.

A config is a frozen dataclass of `option(...)` fields; a subclass gives one another default by `name: type = default`.
Values come from strings (the command line) or Python (keywords of `learn`), are converted by the field's type, never
evaluated as code, and checked against the field's range. An unknown name is an error that suggests the nearest one. No
TensorFlow here: `--help` must be fast.
"""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
import os
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from baselines_lite.common.system.errors import UserError, unknown
from baselines_lite.common.system.schedules import Schedule

LARGEST = 2**63 - 1  # of whole numbers: what arrays and files can count


def option(default: Any, help: str, *, low: float | None = None, high: float | None = None,
           above: float | None = None, below: float | None = None, choices: tuple[str, ...] | None = None) -> Any:
    """A dataclass field with its meaning and allowed values: low <= it <= high, above < it < below, one of choices."""
    rules = dict(help=help, low=low, high=high, above=above, below=below, choices=choices)
    return dataclasses.field(default=default, metadata=rules)


class Config:
    """Base of an algorithm's config, a dataclass: `given` has the names of the fields that it was made with.

    So that `learn(env, config=Config(nsteps=32))` leaves the others to the preset. dataclasses.replace gives all.
    """

    given: ClassVar[frozenset[str]]  # no field of the dataclass, although each has its own

    def __new__(cls, *values: Any, **by_name: Any) -> Config:
        self = super().__new__(cls)
        names = [field.name for field in dataclasses.fields(cls)]
        object.__setattr__(self, "given", frozenset(names[:len(values)]).union(by_name))
        return self


def rules_of(config: Any, name: str) -> Mapping[str, Any]:
    """What `option` said of a field of a config or its class, or of the base whose default the field only changes."""
    kind = config if isinstance(config, type) else type(config)
    fields = (getattr(each, "__dataclass_fields__", {}).get(name) for each in kind.__mro__)
    return next((field.metadata for field in fields if field is not None and field.metadata), option(None, "").metadata)


class Text(str):
    """A text of a certain form: a subclass raises UserError for any other, and says in `form` what it should be."""

    form: ClassVar[str]


class FilePath(Text):
    """The path of a file or folder. A `~` that begins it is the user's home, which no shell puts in behind a `=`."""

    form = "a path"

    def __new__(cls, given: str | Path) -> FilePath:
        return super().__new__(cls, os.path.expanduser(str(given)))


class Json(Text):
    """The text of a JSON object, from that or from a dict; `value` is the dict. Raises UserError for anything else."""

    form = 'a JSON object such as {"frame_skip": 2}'
    value: dict[str, Any]

    def __new__(cls, given: str | Mapping[str, Any]) -> Json:
        try:
            found = dict(given) if isinstance(given, Mapping) else json.loads(given)
            text = json.dumps(found, sort_keys=True, allow_nan=False)
            found = json.loads(text)
        except (TypeError, ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise UserError(f"{str(given)!r} is not {cls.form}")
        self = super().__new__(cls, text)
        self.value = found
        return self

    @property
    def has_text(self) -> bool:
        """Whether any of its values is a text, or has one in it: a path, say."""
        def texts(value: Any) -> bool:
            inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
            return isinstance(value, str) or any(map(texts, inner))

        return texts(self.value)


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
        if isinstance(value, bool) or not (isinstance(value, str | numbers.Real) or callable(value)):
            raise complaint
        return Schedule(value)
    if isinstance(kind, type) and issubclass(kind, Text):
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
             Schedule: "a number or a schedule such as linear:3e-4", Any: "a value"}
    return getattr(kind, "form", names.get(kind, str(kind)))


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
    fields = [f.name for f in dataclasses.fields(config)]
    converted = {}
    for name, value in values.items():
        if name not in fields:
            raise unknown("option", name, fields, list_all=False)
        converted[name] = convert(name, hints[name], value)
        check(name, converted[name], rules_of(config, name))
    return dataclasses.replace(config, **converted)


def option_table(config: Any, prefix: str = "  ") -> str:
    """The help text of a config: one line per field with type, default (an instance's value) and meaning."""
    hints, rows = typing.get_type_hints(config if isinstance(config, type) else type(config)), []
    for f in dataclasses.fields(config):
        kind, rules = hints[f.name], rules_of(config, f.name)
        inner = [k for k in typing.get_args(kind) if k is not type(None)] or [kind]
        choices = rules["choices"]
        extra = f" One of {', '.join(choices)}." if choices else ""
        default = str(getattr(config, f.name))
        rows.append((f"--{f.name}", inner[0].__name__.lower(), default, f"{rules['help']}.{extra}"))
    widths = [max(column, *(len(row[i]) + 2 for row in rows)) for i, column in enumerate((26, 9, 13))]
    return "\n".join(prefix + "".join(map(str.ljust, row, widths)) + row[-1] for row in rows)


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass config as JSON-ready values."""
    return dataclasses.asdict(config)
