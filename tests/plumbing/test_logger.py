"""What a run writes down."""

import pytest

from baselines_lite.common.experiment.logger import Logger


@pytest.mark.parametrize(("steps_left", "words"), [(62_000, "01:02 left"), (93_784_000, "26:03:04 left")])
def test_the_time_left_may_be_more_than_a_day(steps_left, words, capsys):
    logger = Logger(None, "a run", 10**9)
    logger.row({"total_timesteps": 10**9 - steps_left, "sps": 1000.0}, last=True)
    logger.close()
    assert f"1,000 steps/s, {words}\n" in capsys.readouterr().out
