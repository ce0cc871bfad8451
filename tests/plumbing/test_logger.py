"""What a run writes down."""

import json
from pathlib import PurePosixPath
from types import MappingProxyType

import pytest

from baselines_lite.common.experiment.logger import Logger


@pytest.mark.parametrize(("steps_left", "words"), [(62_000, "01:02 left"), (93_784_000, "26:03:04 left")])
def test_the_time_left_may_be_more_than_a_day(steps_left, words, capsys):
    logger = Logger(None, "a run", 10**9)
    logger.row({"total_timesteps": 10**9 - steps_left, "sps": 1000.0}, last=True)
    logger.close()
    assert f"1,000 steps/s, {words}\n" in capsys.readouterr().out


def test_a_mapping_that_is_no_dict_is_one_in_the_configuration(tmp_path):
    """tf.Module wraps dicts in such mappings; from Python 3.13 on json takes them for something unknown."""
    logger = Logger(tmp_path, "a run", 1)
    logger.config({"atari": MappingProxyType({"sticky": 0.25}), "folder": PurePosixPath("a/b")})
    logger.close()
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["atari"] == {"sticky": 0.25} and config["folder"] == "a/b"
