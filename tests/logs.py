"""Reading what a run has logged."""

import csv


def reproducible(path):
    """The rows of a progress.csv, its header first, without the columns that the clock makes."""
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    keep = [i for i, name in enumerate(rows[0]) if name != "sps" and not name.startswith(("time_", "share_"))]
    return [[row[i] for i in keep] for row in rows]
