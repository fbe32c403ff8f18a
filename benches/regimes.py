"""Streams that alternate between two regimes, for `make streams DATA=FOLDER CYCLES=500`: `regimes.py FOLDER`.

In one the features tell the class, in the other the class before does; a regime lasts so many events as the name says.
"""

import gzip
import random
import sys
from pathlib import Path

EVENTS = 20_000

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
for lasts in (30, 80, 250):
    for seed in (1, 2):
        numbers, last = random.Random(seed * 1_000 + lasts), 0
        with gzip.open(folder / f"every{lasts}_{seed}.csv.gz", "wt") as out:
            out.write("x0,x1,x2,x3,y\n")
            for number in range(EVENTS):
                row = [numbers.random() for _ in range(4)]
                if number // lasts % 2 == 0:
                    last = int(row[0] + row[1] > 1)
                elif numbers.random() >= 0.95:
                    last = 1 - last
                out.write(",".join(f"{value:.5f}" for value in row) + f",{last}\n")
