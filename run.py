"""Train or play from the command line; `python run.py --help` says how."""

from baselines_lite.run import console

if __name__ == "__main__":
    console()
