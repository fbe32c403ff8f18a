"""Classes of whole signals on six sets of the UCR and UEA archives that the package aeon carries, with the archive's own split
into training and test. See `--help`.

Hebb learns the training set in one pass, signal by signal, in several orders; its figures are means over them. The peers have the whole
set at once.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from parts import measured, show, write_floats

ORDERS = 5


def sets():
    from aeon import datasets

    loads = {
        "GunPoint": datasets.load_gunpoint,
        "ItalyPowerDemand": datasets.load_italy_power_demand,
        "ArrowHead": datasets.load_arrow_head,
        "OSULeaf": datasets.load_osuleaf,
        "BasicMotions": datasets.load_basic_motions,
        "ACSF1": datasets.load_acsf1,
    }
    for name, load in loads.items():
        yield name, *load(split="train"), *load(split="test")


def nearest(**parameters):
    from aeon.classification.distance_based import KNeighborsTimeSeriesClassifier

    return KNeighborsTimeSeriesClassifier(n_neighbors=1, **parameters)


def mini_rocket():
    from aeon.classification.convolution_based import MiniRocketClassifier

    return MiniRocketClassifier(random_state=1)


PEERS = {
    "nearest by Euclidean distance": lambda: nearest(distance="euclidean"),
    "nearest by DTW, a window of 10 %": lambda: nearest(distance="dtw", distance_params={"window": 0.1}),
    "MiniRocket and ridge regression (aeon)": mini_rocket,
}


def own(tools, how, train, classes, test, truth):
    """Means over orders of what the engine's half reports."""
    names = sorted(set(classes))
    number = lambda labels: np.array([names.index(label) for label in labels], dtype=np.float32)
    reports = []
    for seed in range(ORDERS):
        order = np.random.default_rng(seed).permutation(len(train))
        signals = np.concatenate([train[order], test]).reshape(len(train) + len(test), -1)
        rows = np.column_stack([np.concatenate([number(classes[order]), number(truth)]), signals])
        with write_floats(rows) as file:
            reports.append(measured(tools, how, file.name, train.shape[1], train.shape[2], len(train)))
    means = {name: round(float(np.mean([report[name] for report in reports])), 4) for name in reports[0]}
    return {**means, "least": min(report["accuracy"] for report in reports)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=Path, required=True, help="the binary of the engine's half")
    parser.add_argument("--out", type=Path, required=True, help="the folder for patterns.json")
    tools = parser.parse_args()
    results = []
    for name, train, classes, test, truth in sets():
        for how, method in {"library": "hebb, patterns as features", "domain": "hebb, a domain of whole signals"}.items():
            results.append({"set": name, "method": method, **own(tools, how, train, classes, test, truth), "peer": False})
            show(results[-1])
        for method, make in PEERS.items():
            model = make()
            started = time.process_time()
            right = model.fit(train, classes).predict(test) == truth
            taken = round(time.process_time() - started, 2)
            results.append({"set": name, "method": method, "accuracy": round(float(np.mean(right)), 4), "seconds": taken, "peer": True})
            show(results[-1])
    for method in dict.fromkeys(row["method"] for row in results):
        mean = np.mean([row["accuracy"] for row in results if row["method"] == method])
        results.append({"set": "mean", "method": method, "accuracy": round(float(mean), 4)})
        show(results[-1])
    (tools.out / "patterns.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ImportError as error:
        print(f"NOT MEASURED: {error}", flush=True)
