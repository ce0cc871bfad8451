"""The algorithms by name. A dotted path to a module that has the same parts works in place of a name.

An algorithm's package has `config.py` with `Config` (a frozen dataclass) and `PRESETS`, and offers `learn`.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import re
from types import ModuleType

from baselines_lite.common.system.errors import UserError, unknown
from baselines_lite.common.system.tf_setup import imported

EVERY = ("Discrete", "MultiDiscrete", "MultiBinary", "Box")
NETWORKS = "mlp, cnn"
WITH_MEMORY = "mlp, cnn, lstm, cnn_lstm"


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """One row of the table: where the code is, and what it can do."""

    module: str
    paper: str
    actions: tuple[str, ...] = EVERY
    networks: str = WITH_MEMORY
    data_parallel: bool = True


ALGORITHMS: dict[str, Algorithm] = {
    "vpg": Algorithm("baselines_lite.vpg", "Sutton et al. 2000; Schulman et al. 2016, 1506.02438"),
    "npg": Algorithm("baselines_lite.npg", "Kakade 2001, A natural policy gradient", networks=NETWORKS),
    "trpo_mpi": Algorithm("baselines_lite.trpo_mpi", "Schulman et al. 2015, 1502.05477", networks=NETWORKS),
    "ppo1": Algorithm("baselines_lite.ppo1", "Schulman et al. 2017, 1707.06347"),
    "ppo2": Algorithm("baselines_lite.ppo2", "Schulman et al. 2017, 1707.06347"),
    "a2c": Algorithm("baselines_lite.a2c", "Mnih et al. 2016, 1602.01783"),
    "acktr": Algorithm("baselines_lite.acktr", "Wu et al. 2017, 1708.05144", networks=NETWORKS),
    "acer": Algorithm("baselines_lite.acer", "Wang et al. 2017, 1611.01224", ("Discrete",)),
    "deepq": Algorithm("baselines_lite.deepq", "Mnih et al. 2015, Nature 518", ("Discrete",), NETWORKS),
    "ddpg": Algorithm("baselines_lite.ddpg", "Lillicrap et al. 2016, 1509.02971", ("Box",), "mlp"),
}


def find(name: str) -> ModuleType:
    """The package of an algorithm: a name of the table, or the dotted path of a package of one's own.

    A package of one's own that lies beside those of the table or in no other is found by its folder's name alone.
    """
    if name in ALGORITHMS:
        return importlib.import_module(ALGORITHMS[name].module)
    if re.fullmatch(r"[\w-]+(\.[\w-]+)+", name):
        return one_of_ones_own(name)
    for path in (f"baselines_lite.{name}", name):
        if re.fullmatch(r"[\w-]+", name) and name != "__main__" and importlib.util.find_spec(path):
            return one_of_ones_own(path)
    raise UserError(f"{unknown('algorithm', name, ALGORITHMS)} (one of your own is named by the dotted path of its "
                    "package: my_lab.my_ppo)")


def one_of_ones_own(path: str) -> ModuleType:
    """The module at a dotted path, which must have an algorithm's parts. Raises UserError."""
    module = imported(path, f"the algorithm {path!r}")
    for part in ("learn", "Config", "PRESETS"):
        if not hasattr(module, part):
            raise UserError(f"the module {path} is no algorithm: it has no {part}")
    return module
