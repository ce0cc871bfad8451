"""A network's options by name, as its types. TensorFlow is loaded for a network of one's own only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from baselines_lite.common.networks.options import BUILT_IN
from baselines_lite.common.system.errors import unknown
from baselines_lite.common.system.options import convert, override


def check_network_options(network: str, values: Mapping[str, Any], other_names: set[str]) -> dict[str, Any]:
    """Options of a network, converted and checked; a built-in network's without loading TensorFlow."""
    known: set[str] = set()
    if network in BUILT_IN:
        known = {f.name for f in dataclasses.fields(BUILT_IN[network])}
    if network in BUILT_IN and values.keys() <= known:
        checked = override(BUILT_IN[network](), values)
        return {name: getattr(checked, name) for name in values}
    if network not in BUILT_IN:
        from baselines_lite.common.networks.builders import options_of  # a network of one's own: needs its code

        hints = options_of(network)
        known = set(hints)
        if values.keys() <= known:
            return {name: convert(name, hints[name], value) for name, value in values.items()}
    wrong = next(name for name in values if name not in known)
    raise unknown("option", wrong, known | other_names, list_all=False)
