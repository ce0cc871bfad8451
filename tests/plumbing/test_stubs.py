"""The stubs say what `learn` takes now. Those of copies: tests/plumbing/test_forks.py."""

from pathlib import Path

import pytest

from baselines_lite import registry
from baselines_lite.tools.stubs import stub


@pytest.mark.parametrize("name", registry.ALGORITHMS)
def test_stubs_are_up_to_date(name):
    module = registry.find(name)
    text = stub(module)
    compile(text, name, "exec")
    assert Path(module.__file__).with_suffix(".pyi").read_text() == text, "run python run.py stubs"


def test_their_command_says_what_it_does(main):
    assert "usage: baselines-lite stubs [PACKAGE...]" in main("stubs", "--help").stdout
    done = main("stubs", "my_lab.missing")
    assert done.returncode == 2 and "cannot import the algorithm" in done.stderr
