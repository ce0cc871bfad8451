"""`python -m baselines_lite.plot RUNS...` is `baselines-lite plot RUNS...`."""

from baselines_lite.run import console

if __name__ == "__main__":
    console("plot")
