"""The one exception for mistakes that the user can mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input, told in one sentence. The command line prints it without a traceback and exits with status 2."""


def unknown(kind: str, name: str, known: Iterable[str], *, list_all: bool = True) -> UserError:
    """A UserError for an unknown name, with the nearest known names (and the whole list where it is short)."""
    known = sorted(known)
    by_lower = {k.lower(): k for k in known}
    near = [by_lower[k] for k in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.6)]
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    if list_all and not near:
        hint = f"; known: {', '.join(known)}" if known else "; none is known"
    return UserError(f"unknown {kind} {name!r}{hint}")
