"""What a run writes down."""

import json
import os
import sys
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


def test_a_run_goes_on_where_nobody_reads_what_it_says(monkeypatch, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        logger = Logger(tmp_path, "a run", 10)
        for steps in (1, 2):
            logger.row({"total_timesteps": steps, "sps": 1.0}, last=True)
        logger.close()
    assert len((tmp_path / "progress.csv").read_text().splitlines()) == 3
