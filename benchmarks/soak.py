"""A long run under mpirun, watched: does memory grow, are descriptors left open, do the ranks agree to the end?

    python benchmarks/soak.py --minutes=30 --ranks=4

Memory (resident, of each rank) and open descriptors are looked at every ten seconds. The slope of memory is that of a
line through all looks after the first minute. The run itself proves each hundred updates, and at its end, that the
ranks' parameters are the same. Result: results/soak.json; exit status 1 where memory grows by more than a MiB an hour
and rank beyond the scatter, a descriptor is leaked or the run fails.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from benchmarks.torture import BIN, ROOT, commit, ranks_of  # noqa: E402  (the path comes first)

FLAGS = ("--alg=ppo2", "--env=HalfCheetah-v5", "--num_env=2", "--nsteps=256", "--num_timesteps=1e10",
         "--checkpoint_interval=100")
WARM = 60  # seconds that do not count


def look(pid: int) -> tuple[float, int]:
    """(MiB resident, open descriptors) of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    return resident / 1024, len(list(Path(f"/proc/{pid}/fd").iterdir()))


def slope(seconds: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """(units an hour of a line through the points, its standard error)."""
    x = (seconds - seconds.mean()) / 3600
    rate = (x * values).sum() / np.square(x).sum()
    left = values - values.mean() - rate * x
    return float(rate), float(np.sqrt(np.square(left).sum() / max(1, len(x) - 2) / np.square(x).sum()))


def main() -> int:
    """Runs the command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--ranks", type=int, default=4)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        command = [str(BIN / "mpirun"), "-np", str(given.ranks), sys.executable, str(ROOT / "run.py"), *FLAGS,
                   f"--log_path={log}"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                   start_new_session=True)
        start, looks = time.monotonic(), []
        while time.monotonic() - start < 60 * given.minutes and process.poll() is None:
            time.sleep(10)
            pids = sorted(ranks_of(process))
            if len(pids) == given.ranks:
                looks.append((time.monotonic() - start, *zip(*map(look, pids))))
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate()
        rows = (log / "progress.csv").read_text().splitlines()
    seconds = np.array([at for at, *_ in looks])
    counts = seconds > WARM
    memory = np.array([m for _, m, _ in looks])[counts]
    descriptors = np.array([d for _, _, d in looks])[counts]
    rates = [slope(seconds[counts], column) for column in memory.T]
    found = {"command": " ".join(["mpirun", "-np", str(given.ranks), "python", "run.py", *FLAGS]),
             "commit": commit(), "minutes": given.minutes, "status": process.returncode, "updates": len(rows) - 1,
             "mib_at_first": memory[0].round(1).tolist(), "mib_at_last": memory[-1].round(1).tolist(),
             "mib_per_hour": [[round(x, 2) for x in pair] for pair in rates],
             "descriptors": [descriptors[0].tolist(), descriptors[-1].tolist()], "errors": errors[-500:]}
    (HERE / "results/soak.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    grows = any(rate - 2 * error > 1 for rate, error in rates)
    leaks = bool((descriptors[-1] > descriptors[0]).any())
    return int(grows or leaks or process.returncode != 128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
