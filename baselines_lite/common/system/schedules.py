"""Hyperparameters that change during training, written as a number or as `name:value`.

A schedule is a function of the fraction of the training budget that remains, from 1 at the start to 0 at the end.
Shapes of the piecewise ones: OpenAI Baselines, a2c/utils.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from baselines_lite.common.system.errors import UserError, unknown

SHAPES: dict[str, Callable[[float], float]] = {
    "constant": lambda remaining: 1.0,
    "linear": lambda remaining: remaining,
    "middle_drop": lambda remaining: remaining if remaining >= 0.75 else 0.075,
    "double_linear_con": lambda remaining: max(2 * remaining - 1, 0.125),
    "double_middle_drop": lambda remaining: remaining if remaining >= 0.75 else 0.075 if remaining >= 0.25 else 0.125,
}


class Schedule(str):
    """The text of a schedule: `3e-4` (constant), `linear:3e-4`, or another name of SHAPES before the colon.

    Calling it with the remaining fraction in [0, 1] gives the value: `Schedule("linear:1e-3")(0.5) == 5e-4`. A function
    of one's own in place of the text is what it says itself; its name is the text then. `value` is that at the start.
    Raises UserError for a shape that is unknown or a value that is no number.
    """

    value: float

    def __new__(cls, text: str | float | Callable[[float], float]) -> Schedule:
        if callable(text) and not isinstance(text, str):
            name = f"{text.__module__}.{getattr(text, '__qualname__', type(text).__qualname__)}"
            self = super().__new__(cls, name)
            try:
                self.value, self._shape = float(text(1.0)), text
            except (TypeError, ValueError) as error:
                raise UserError(f"the schedule {name} must make a number of the fraction that remains: {error}"
                                ) from None
            return self
        shape, colon, number = str(text).partition(":")
        if not colon:
            shape, number = "constant", shape
        if shape not in SHAPES:
            raise unknown("schedule", shape, SHAPES)
        try:
            value = float(number)
        except ValueError:
            raise UserError(
                f"{str(text)!r} is not a schedule: write a number or NAME:NUMBER with NAME one of {', '.join(SHAPES)}"
            ) from None
        self = super().__new__(cls, str(text))
        self.value, self._shape = value, SHAPES[shape]
        return self

    def __reduce__(self) -> tuple[type, tuple[Any]]:
        """What a copy of it is made of, in another process too."""
        return Schedule, (self._shape if self.is_own else str(self),)

    @property
    def is_own(self) -> bool:
        """Whether it is a function of one's own."""
        return self._shape not in SHAPES.values()

    @property
    def falls(self) -> bool:
        """Whether its value depends on how much of the budget remains."""
        return self._shape is not SHAPES["constant"]

    def __call__(self, remaining: float) -> float:
        return float(self._shape(remaining)) * (1.0 if self.is_own else self.value)
