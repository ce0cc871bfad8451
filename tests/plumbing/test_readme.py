"""The READMEs' tables are those that the registry and the results give."""

import subprocess
import sys

from tests.conftest import ROOT


def test_tables_are_up_to_date():
    done = subprocess.run([sys.executable, str(ROOT / "benchmarks/tables.py"), "--check"], capture_output=True,
                          text=True)
    assert done.returncode == 0, f"run python benchmarks/tables.py: {done.stdout}{done.stderr}"
