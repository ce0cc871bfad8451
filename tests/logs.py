"""Reading what a run has logged."""

import csv
import re


def reproducible(path):
    """The rows of a progress.csv or monitor.csv, its header first, without the columns that the clock makes."""
    with open(path, newline="") as file:
        rows = list(csv.reader(line for line in file if not line.startswith("#")))
    clock = re.compile("sps|t|(time|share)_.*")
    keep = [i for i, name in enumerate(rows[0]) if not clock.fullmatch(name)]
    return [[row[i] for i in keep] for row in rows]
