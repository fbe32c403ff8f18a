"""Anomaly scores against their peers: the Numenta Anomaly Benchmark, and the rows of a stream. See `--help`.

NAB is scored as its paper and code do (Lavin and Ahmad, "Evaluating Real-time Anomaly Detection Algorithms", ICMLA 2015):
one threshold for the whole corpus, chosen in hindsight for each profile. `halves` says what becomes of that: the threshold
that is best on every other file, on the files between. Of rows the area under the ROC curve counts. Every detector has one
configuration for everything, and speed is points per second of processor time.
"""

import argparse
import csv
import gzip
import io
import json
import math
import os
import sys
import tarfile
import tempfile
import time
from collections import deque
from datetime import datetime
from pathlib import Path

from parts import measured, show, write_floats

import numpy as np

# What a false positive and a missed window cost; a window that is found brings 1 at most.
PROFILES = {"standard": (0.11, 1.0), "reward_low_fp": (0.22, 1.0), "reward_low_fn": (0.11, 2.0)}
PROBATION, PROBATION_ROWS_MAX = 0.15, 750


class Series:
    """One file of NAB: values, windows of anomalies, and what a detection at each place is worth."""

    def __init__(self, name, text, windows):
        rows = list(csv.reader(io.StringIO(text)))[1:]
        first = {}
        for place, (timestamp, _) in enumerate(rows):
            first.setdefault(datetime.fromisoformat(timestamp), place)
        at = lambda text: first[datetime.fromisoformat(text).replace(microsecond=0)]
        self.name = name
        self.values = np.array([float(value) for _, value in rows])
        self.windows = [(at(start), at(end)) for start, end in windows]
        self.begins = int(min(PROBATION * len(rows), PROBATION_ROWS_MAX))
        # Of each place: the window that it is in, or -1, and its weight before the profile's.
        self.window = np.full(len(rows), -1)
        self.weight = np.full(len(rows), -1.0)
        for number, (start, end) in enumerate(self.windows):
            inside = np.arange(start, end + 1)
            self.window[inside] = number
            self.weight[inside] = sigmoid(-(end - inside + 1) / len(inside)) / sigmoid(-1.0)
            behind = np.arange(end + 1, self.windows[number + 1][0] if number + 1 < len(self.windows) else len(rows))
            self.weight[behind] = sigmoid((behind - end) / (len(inside) - 1))


def sigmoid(place):
    """NAB's scaled sigmoid; beyond three widths of a window it is the full cost."""
    place = np.asarray(place, dtype=float)
    return np.where(place > 3.0, -1.0, 2.0 / (1.0 + np.exp(5.0 * np.minimum(place, 3.0))) - 1.0)


def nab_score(corpus, scores, profile, threshold=None):
    """The normalised score, 0 of a detector that never fires to 100, and the threshold: the best one if none is given."""
    fp_cost, fn_cost = PROFILES[profile]
    points, base = [], 0
    for series, given in zip(corpus, scores):
        live = slice(series.begins, None)
        window = np.where(series.window[live] >= 0, series.window[live] + base, -1)
        points.append(np.stack([given[live], window, series.weight[live]]))
        base += len(series.windows)
    score, window, weight = np.concatenate(points, axis=1)
    scorable = len(set(window[window >= 0]))
    order = np.argsort(-score, kind="stable")
    found, raw, best = {}, -fn_cost * scorable, (-fn_cost * scorable, math.inf)
    for place, point in enumerate(order):
        if threshold is not None and score[point] < threshold:
            break
        if window[point] < 0:
            raw += fp_cost * weight[point]
        else:
            before = found.get(window[point], -fn_cost)
            found[window[point]] = max(before, weight[point])
            raw += found[window[point]] - before
        ends = place + 1 == len(order) or score[order[place + 1]] < score[point]
        if ends and threshold is None and raw > best[0]:
            best = (raw, score[point])
    if threshold is not None:
        best = (raw, threshold)
    null = -fn_cost * scorable
    return 100 * (best[0] - null) / (base - null), float(best[1])


def windowed_gaussian(values, window=6_400, step=100):
    """NAB's windowedGaussian: the tail of a normal distribution over a window that moves on by steps, to 12 digits."""
    held, waiting, scores = [], [], []
    mean, deviation = 0.0, 1.0
    for value in values:
        tail = 0.5 * math.erfc(abs(value - mean) / deviation / math.sqrt(2)) if held else 1.0
        scores.append(round(1 - tail, 12))
        if len(held) < window:
            held.append(value)
            mean, deviation = np.mean(held), np.std(held) or 1e-6
        else:
            waiting.append(value)
            if len(waiting) == step:
                held, waiting = held[step:] + waiting, []
                mean, deviation = np.mean(held), np.std(held) or 1e-6
    return scores


def rolling_z_score(values, window=1_000):
    held, total, squares, scores = deque(), 0.0, 0.0, []
    for value in values:
        count = len(held)
        variance = squares / count - (total / count) ** 2 if count else 0.0
        scores.append(abs(value - total / count) / math.sqrt(variance) if variance > 1e-12 else 0.0)
        held.append(value)
        total, squares = total + value, squares + value * value
        if count == window:
            gone = held.popleft()
            total, squares = total - gone, squares - gone * gone
    return scores


def knn_cad(values, dimension=19, neighbours=27):
    """KNN-CAD (Burnaev and Ishimtsev, arXiv 1608.04585): conformal ranks of distances between the newest points, then a hold."""
    period = int(min(PROBATION * len(values), PROBATION_ROWS_MAX))
    shapes = np.lib.stride_tricks.sliding_window_view(values, dimension)
    training, calibration, ranks, scores = deque(), deque(), deque(), []
    metric, hold = np.eye(dimension), 0

    def distance(shape, known, beside):
        off = known - shape
        all_of_them = np.einsum("ij,jk,ik->i", off, metric, off)
        count = neighbours + beside
        return np.partition(all_of_them, count)[:count].sum()

    for seen in range(1, len(values) + 1):
        if seen < dimension:
            scores.append(0.0)
            continue
        shape = shapes[seen - dimension]
        if seen < period:
            training.append(shape)
            scores.append(0.0)
            continue
        if seen % period in (0, period // 2):
            known = np.array(training)
            try:
                metric = np.linalg.inv(known.T @ known)
            except np.linalg.LinAlgError:
                pass
        known = np.array(training)
        if not ranks:
            ranks.extend(distance(one, known, True) for one in known)
        new = distance(shape, known, False)
        rank = float(np.mean(np.array(ranks) < new))
        if seen >= 2 * period:
            training.popleft()
            training.append(calibration.popleft())
        ranks.popleft()
        calibration.append(shape)
        ranks.append(new)
        if hold > 0:
            hold -= 1
            scores.append(0.5)
            continue
        if rank >= 0.9965:
            hold = period // 5
        scores.append(rank)
    return scores


def half_space_trees(rows):
    from river import anomaly, compose, preprocessing

    model = compose.Pipeline(preprocessing.MinMaxScaler(), anomaly.HalfSpaceTrees(seed=42))
    scores = []
    for row in rows:
        features = dict(enumerate(row))
        scores.append(model.score_one(features))
        model.learn_one(features)
    return scores


NAB_PEERS = {
    "windowedGaussian": windowed_gaussian,
    "rolling z-score, 1,000": rolling_z_score,
    "KNN-CAD": knn_cad,
    "river HalfSpaceTrees": lambda values: half_space_trees([[value] for value in values.tolist()]),
}
# They take minutes.
SLOW = {"KNN-CAD", "river HalfSpaceTrees"}


def load_nab(where):
    """The corpus of a clone of numenta/NAB, or of a .tar.gz with its folders data and labels."""
    if where.is_dir():
        read = lambda path: (where / path).read_text()
    else:
        archive = tarfile.open(where)
        files = {member.name.removeprefix("./"): member for member in archive.getmembers()}
        read = lambda path: archive.extractfile(files[path]).read().decode()
    windows = json.loads(read("labels/combined_windows.json"))
    return [Series(name, read(f"data/{name}"), windows[name]) for name in sorted(windows)]


def nab_row(detector, corpus, scores, rate, peer):
    halves = [(corpus[part::2], scores[part::2]) for part in (0, 1)]
    thresholds = [nab_score(*half, "standard")[1] for half in halves]
    rounded = lambda *given: round(float(nab_score(*given)[0]), 2)
    return {
        "what": "nab",
        "detector": detector,
        **{profile: rounded(corpus, scores, profile) for profile in PROFILES},
        "threshold": nab_score(corpus, scores, "standard")[1],
        # The score of each half with the threshold of the other.
        "halves": [rounded(*halves[part], "standard", thresholds[1 - part]) for part in (0, 1)],
        "points_per_second": round(rate, 1),
        "peer": peer,
    }


def scored(tools, *arguments):
    with tempfile.NamedTemporaryFile(suffix=".f32") as out:
        rate = measured(tools, *arguments, out.name)["points_per_second"]
        return np.fromfile(out.name, dtype="<f4").astype(float), rate


def nab(tools):
    corpus = load_nab(tools.nab)
    parts = [part for series in corpus for part in ([np.nan], series.values)]
    with write_floats(np.concatenate(parts)) as file:
        scores, rate = scored(tools, "series", file.name)
    ends = np.cumsum([len(series.values) for series in corpus])[:-1]
    results = [nab_row("hebb series detector", corpus, np.split(scores, ends), rate, False)]
    show(results[-1])
    for name, detect in NAB_PEERS.items():
        if tools.quick and name in SLOW:
            continue
        try:
            started = time.process_time()
            scores = [np.array(detect(series.values)) for series in corpus]
            taken = time.process_time() - started
        except ImportError as error:
            print(f"NOT MEASURED: {name}: {error}", flush=True)
            continue
        rate = sum(len(series.values) for series in corpus) / taken
        results.append(nab_row(name, corpus, scores, rate, True))
        show(results[-1])
    return results


def roc_area(scores, anomalous):
    """The probability that an anomalous row has a higher score than a usual one; of equals, half."""
    _, ranks, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[ranks]
    many = anomalous.sum()
    return (ranks[anomalous].sum() - many * (many + 1) / 2) / (many * (~anomalous).sum())


def rows(tools):
    with gzip.open(tools.rows, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", skiprows=1)
    features, anomalous = table[:, :-1], table[:, -1] == 1
    with write_floats(features) as file:
        scores, rate = scored(tools, "rows", file.name, features.shape[1])
    about = {"what": "rows", "stream": tools.rows.name.removesuffix(".csv.gz")}
    figures = lambda scores, rate: {"auc": round(float(roc_area(scores, anomalous)), 4), "points_per_second": round(rate, 1)}
    results = [{**about, "detector": "hebb row detector", **figures(scores, rate), "peer": False}]
    show(results[-1])
    try:
        started = time.process_time()
        scores = np.array(half_space_trees(features.tolist()))
        rate = len(features) / (time.process_time() - started)
    except ImportError as error:
        print(f"NOT MEASURED: river: {error}", flush=True)
        return results
    results.append({**about, "detector": "river HalfSpaceTrees", **figures(scores, rate), "peer": True})
    show(results[-1])
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=Path, required=True, help="the binary of the engine's half")
    parser.add_argument("--rows", type=Path, help="a *.csv.gz stream whose last column is 1 of an anomaly and 0 else")
    parser.add_argument("--nab", type=Path, help="a clone of numenta/NAB, or a .tar.gz with its data and labels")
    parser.add_argument("--out", type=Path, required=True, help="the folder for nab.json")
    parser.add_argument("--quick", action="store_true", help="without the slowest peers")
    tools = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    results = (rows(tools) if tools.rows else []) + (nab(tools) if tools.nab else [])
    if not tools.nab:
        print("NOT MEASURED: NAB: give NAB=folder, a clone of github.com/numenta/NAB", flush=True)
    (tools.out / "nab.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
