"""The tests."""

import os

HANG = 600  # seconds after which what has not ended never will, however slow and busy the machine
MUTANTS = int(os.environ.get("MUTANTS", 0))  # how many damaged files a fuzz opens; 0: few, as `make test` does
