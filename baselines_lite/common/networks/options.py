"""The built-in networks' options: here, not beside the networks, so that --help needs no TensorFlow."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Sequence

from baselines_lite.common.system.errors import UserError
from baselines_lite.common.system.options import Text, option

SMALL = ("mlp", "lstm", "lnlstm")  # networks that more than one thread slows down, but for a large mlp

# What `--network` may be. `--help` lists the options of the networks named here.
FEED_FORWARD = "network: mlp, cnn, cnn_small, conv_only, or module:function of one's own"
WITH_MEMORY = ("network: mlp, cnn, cnn_small, conv_only, lstm, lnlstm, cnn_lstm, cnn_lnlstm, or module:function of "
               "one's own")


class Sizes(Text):
    """Layer sizes as a text, separated by commas: `400,300`, also from `[400, 300]`. UserError for anything else."""

    form = "layer sizes such as 400,300"
    layers: list[int]

    def __new__(cls, given: str | int | Sequence[int]) -> Sizes:
        text = str(given) if isinstance(given, str | int) else ",".join(map(str, given))
        text = re.sub(r"\s*[\[(](.*?),?\s*[\])]\s*", r"\1", text)
        if not re.fullmatch(r"\s*[1-9]\d*\s*(,\s*[1-9]\d*\s*)*", str(text)):
            raise UserError(f"{str(given)!r} are no layer sizes: write whole numbers separated by commas, such as "
                            "400,300")
        self = super().__new__(cls, text)
        self.layers = [int(size) for size in self.split(",")]
        return self


@dataclasses.dataclass(frozen=True)
class MlpOptions:
    """Options of the network `mlp`: fully connected layers; see builders.mlp."""

    num_layers: int = option(2, "hidden layers", low=1)
    num_hidden: int = option(64, "units per hidden layer", low=1)
    sizes: Sizes | None = option(None, "units of each hidden layer, such as 400,300, in place of the two above")
    activation: str = option("tanh", "activation of the hidden layers", choices=("tanh", "relu", "elu"))
    layer_norm: bool = option(False, "normalise each hidden layer before its activation")

    @property
    def most_weights(self) -> int:
        """Of a layer between two hidden ones; 0 if there is none."""
        if self.sizes is None:
            return self.num_hidden**2 if self.num_layers > 1 else 0
        return max((a * b for a, b in itertools.pairwise(self.sizes.layers)), default=0)


class Convs(Text):
    """The text of a stack of convolutions, `filters@kernel/stride` each: `32@8/4,64@4/2`.

    Raises UserError for anything else.
    """

    form = "convolutions such as 32@8/4,64@4/2"
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
    """Options of the network `cnn`: Mnih et al. 2015; see builders.cnn."""

    convs: Convs = option(Convs("32@8/4,64@4/2,64@3/1"), "filters@kernel/stride of each convolution")
    num_hidden: int = option(512, "units of the fully connected layer after them", low=1)
    activation: str = option("relu", "activation of every layer", choices=("tanh", "relu", "elu"))


@dataclasses.dataclass(frozen=True)
class CnnSmallOptions(CnnOptions):
    """Options of the network `cnn_small`, a quarter of `cnn`; see builders.cnn."""

    convs: Convs = option(Convs("8@8/4,16@4/2"), "filters@kernel/stride of each convolution")
    num_hidden: int = option(128, "units of the fully connected layer after them", low=1)


@dataclasses.dataclass(frozen=True)
class ConvOnlyOptions:
    """Options of the network `conv_only`: padded convolutions and no fully connected layer; see builders.conv_only."""

    convs: Convs = option(Convs("32@8/4,64@4/2,64@3/1"), "filters@kernel/stride of each convolution")
    activation: str = option("relu", "activation of every layer", choices=("tanh", "relu", "elu"))


@dataclasses.dataclass(frozen=True)
class LnLstmOptions:
    """Options of the network `lnlstm`: an LSTM with layer normalisation; see builders.lstm."""

    nlstm: int = option(128, "units of the LSTM", low=1)


@dataclasses.dataclass(frozen=True)
class LstmOptions(LnLstmOptions):
    """Options of the network `lstm`; see builders.lstm."""

    layer_norm: bool = option(False, "normalise what enters the LSTM's gates and its cell")


@dataclasses.dataclass(frozen=True)
class CnnLnLstmOptions(CnnOptions):
    """Options of the network `cnn_lnlstm`: `cnn_lstm` with layer normalisation."""

    nlstm: int = option(128, "units of the LSTM", low=1)


@dataclasses.dataclass(frozen=True)
class CnnLstmOptions(CnnLnLstmOptions):
    """Options of the network `cnn_lstm`: `cnn`, then an LSTM; see builders.cnn_lstm."""

    layer_norm: bool = option(False, "normalise what enters the LSTM's gates and its cell")


# The built-in networks' options stand here, not beside the networks, so that --help needs no TensorFlow.
BUILT_IN: dict[str, type] = {"mlp": MlpOptions, "cnn": CnnOptions, "cnn_small": CnnSmallOptions,
                             "conv_only": ConvOnlyOptions, "lstm": LstmOptions, "lnlstm": LnLstmOptions,
                             "cnn_lstm": CnnLstmOptions, "cnn_lnlstm": CnnLnLstmOptions}
