"""The engine against its peers: test, then train, one pass over each stream of a folder. See `--help`.

Every learner runs in a process of its own on the same core, gets the features as they are and its library's defaults, and
is judged here by what it predicted. Speed is events per second of processor time. Hebb runs first and last on each
stream, and the mean of both counts: on a busy machine the speed of a core changes on the way.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Fastest first, so that a run that is ended early has most.
PEERS = {
    "vw linear": ["peers.py", "vw-linear"],
    "vw -q": ["peers.py", "vw-quadratic"],
    "vw boost": ["peers.py", "vw-boost"],
    "river lr": ["peers.py", "river-lr"],
    "moa arf10": ["Moa", "meta.AdaptiveRandomForest -s 10"],
    "moa hat": ["Moa", "trees.HoeffdingAdaptiveTree"],
    "moa samknn": ["Moa", "lazy.SAMkNN"],
    "moa levbag": ["Moa", "meta.LeveragingBag"],
    "moa srp10": ["Moa", "meta.StreamingRandomPatches -s 10"],
    "irithyll sgbt": ["learner", "irithyll"],
    "river hat": ["peers.py", "river-hat"],
    "river knn": ["peers.py", "river-knn"],
    "river arf": ["peers.py", "river-arf"],
    "river amf": ["peers.py", "river-amf"],
}
# Hebb with fewer updates, and two of its members by themselves.
OWN = {
    "hebb gate 0.9": ["learner", "uncertain-0.9"],
    "hebb forest": ["learner", "forest"],
    "hebb linear": ["learner", "linear"],
}
SLOW = {"river arf", "river amf", "moa srp10", "irithyll sgbt"}
HEBB = "hebb"
RIVAL = "moa arf10"


def command(kind, learner, tools):
    if kind == "Moa":
        return ["java", "-XX:+UseSerialGC", "-Xmx4g", "-cp", f"{tools.jar}:{tools.classes}", "Moa", learner]
    if kind == "learner":
        return [str(tools.learner), learner]
    return [sys.executable, str(HERE / kind), learner]


def score(predictions, labels):
    """Accuracy and Cohen's kappa."""
    total = len(labels)
    right = sum(predicted == label for predicted, label in zip(predictions, labels)) / total
    classes = set(labels)
    chance = sum(predictions.count(name) * labels.count(name) for name in classes) / total**2
    return right, (right - chance) / (1 - chance) if chance < 1 else 0.0


def run(argv, stream, labels, seconds_max, core):
    """Predictions, events learned and processor seconds of one learner, or why there are none."""
    with tempfile.NamedTemporaryFile("r") as out:
        try:
            done = subprocess.run(
                [*argv, stream, out.name],
                capture_output=True,
                text=True,
                timeout=seconds_max,
                preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            )
        except subprocess.TimeoutExpired:
            return None, f"not done after {seconds_max} s"
        except OSError as error:
            return None, str(error)
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("\tat ")]
            return None, (lines or ["it failed"])[-1]
        predictions = [int(line) for line in out.read().split()]
        if len(predictions) != len(labels):
            return None, f"{len(predictions)} predictions for {len(labels)} events"
        *learned, taken = done.stdout.split()
        return (predictions, int(learned[0]) if learned else len(labels), float(taken)), None


def table(results, streams, learners):
    found = {(row["stream"], row["learner"]): row for row in results}
    for title, figure, form in [("accuracy, %", "accuracy", "{:.2f}"), ("events per CPU-second", "events_per_second", "{:,.0f}")]:
        print(f"\n{title:<22}" + "".join(f"{name:>16}" for name in learners))
        for stream in streams:
            cells = []
            for name in learners:
                row = found.get((stream, name))
                scale = 100 if figure == "accuracy" else 1
                cells.append(form.format(row[figure] * scale) if row else "-")
            print(f"{stream:<22}" + "".join(f"{cell:>16}" for cell in cells))
    print(f"\n{'':<22}{'hebb, %':>10}{'best peer, %':>14}{'':>16}{'ahead':>8}{'speed / ' + RIVAL:>20}{'speed / best':>14}")
    means = []
    for stream in streams:
        own = found.get((stream, HEBB))
        others = [row for (of, _), row in found.items() if of == stream and row["peer"]]
        if not own or not others:
            continue
        best = max(others, key=lambda row: row["accuracy"])
        rival = found.get((stream, RIVAL))
        ratio = f"{own['events_per_second'] / rival['events_per_second']:.1f}×" if rival else "-"
        means.append((own["accuracy"], best["accuracy"]))
        print(
            f"{stream:<22}{own['accuracy'] * 100:>10.2f}{best['accuracy'] * 100:>14.2f} {best['learner']:<15}"
            f"{(own['accuracy'] - best['accuracy']) * 100:>+8.2f}{ratio:>20}"
            f"{own['events_per_second'] / best['events_per_second']:>13.1f}×"
        )
    if means:
        own, best = (sum(column) / len(means) * 100 for column in zip(*means))
        print(f"{'mean':<22}{own:>10.2f}{best:>14.2f}{'':>16}{own - best:>+8.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a *.csv.gz stream (last column the class), or a folder of them")
    parser.add_argument("--learner", type=Path, required=True, help="the binary of the engine's half")
    parser.add_argument("--jar", type=Path, required=True)
    parser.add_argument("--classes", type=Path, required=True, help="a folder with the compiled Moa.java")
    parser.add_argument("--out", type=Path, required=True, help="where to write engine.json")
    parser.add_argument("--quick", action="store_true", help="5,000 events of each stream, without the slowest peers")
    parser.add_argument("--events", type=int, help="at most so many events of each stream")
    parser.add_argument("--peers", help=f"names, separated by commas, of: {', '.join(PEERS)}")
    parser.add_argument("--streams", help="names of streams, separated by commas")
    parser.add_argument("--seconds-max", type=int, default=900, help="wall time of one learner on one stream")
    tools = parser.parse_args()
    limit = tools.events or (5_000 if tools.quick else None)
    peers = tools.peers.split(",") if tools.peers else [name for name in PEERS if not (tools.quick and name in SLOW)]
    files = sorted(tools.data.glob("*.csv.gz")) if tools.data.is_dir() else [tools.data]
    wanted = tools.streams.split(",") if tools.streams else None
    core = max(os.sched_getaffinity(0))
    results, streams, skipped = [], [], []
    for file in files:
        stream = file.name.removesuffix(".csv.gz")
        if wanted and stream not in wanted:
            continue
        with gzip.open(file, "rt") as lines:
            next(lines)
            rows = [line.strip() for line, _ in zip(lines, range(limit or sys.maxsize))]
        labels = [int(row.rsplit(",", 1)[1]) for row in rows]
        streams.append(stream)
        with tempfile.NamedTemporaryFile("w", suffix=".csv") as plain:
            plain.write("\n".join(rows) + "\n")
            plain.flush()
            seconds = []
            for name in [HEBB, *OWN, *peers, HEBB]:
                argv = command(*({HEBB: ["learner", "hebb"]} | OWN | PEERS)[name], tools)
                done, why = run(argv, plain.name, labels, tools.seconds_max, core)
                if done is None:
                    skipped.append(f"{name} on {stream}: {why}")
                    print(f"  {skipped[-1]}", flush=True)
                    continue
                predictions, learned, taken = done
                if name == HEBB:
                    seconds.append(taken)
                    taken = sum(seconds) / len(seconds)
                    results = [row for row in results if (row["stream"], row["learner"]) != (stream, HEBB)]
                accuracy, kappa = score(predictions, labels)
                row = {
                    "stream": stream,
                    "learner": name,
                    "accuracy": round(accuracy, 6),
                    "kappa": round(kappa, 6),
                    "events_per_second": round(len(labels) / taken, 1),
                    "learned": learned,
                    "peer": name in PEERS,
                }
                results.append(row)
                tools.out.write_text(json.dumps(results, indent=1) + "\n")
                print(f"  {stream:<14} {name:<14} {accuracy * 100:6.2f} %  kappa {kappa:.3f}  {row['events_per_second']:>12,.0f} events/s", flush=True)
    table(results, streams, [HEBB, *OWN, *peers])
    if skipped:
        print("\nnot measured:\n  " + "\n  ".join(skipped))


main()
