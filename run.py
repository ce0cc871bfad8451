"""Train or play from the command line; `python run.py --help` says how."""

import sys

from baselines_lite.run import main

if __name__ == "__main__":
    sys.exit(main())
