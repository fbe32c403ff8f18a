"""Parts of the engine against libraries that do the same: nearest neighbours, drift, recurring shapes. See `--help`.

One thread on one core, processor time, seeded data. Every index is held against an exact search; of each that has a knob,
the smallest value that reaches the recall counts.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np

NEIGHBOURS = 10
RECALL_MIN = 0.95
QUERIES = 1_000


def measured(tools, *arguments):
    done = subprocess.run([str(tools.parts), *map(str, arguments)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def write_floats(values):
    file = tempfile.NamedTemporaryFile(suffix=".f32")
    np.asarray(values, dtype="<f4").tofile(file)
    file.flush()
    return file


def clustered(count, width, seed=1):
    """Rows around 200 centres, each a deviation of half the distance between centres away."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(200, width))
    rows = centres[random.integers(200, size=count)] + 0.5 * random.normal(size=(count, width))
    return rows.astype(np.float32)


def embedded(count):
    """Real sentences, embedded once and kept beside the peers; none where the model can't be had."""
    file = Path(sys.prefix).parent / f"embedded-{count}.npy"
    script = Path(__file__).parent / "embed.py"
    if not file.exists() and subprocess.run([sys.executable, script, "--count", str(count), "--out", file]).returncode:
        print("NOT MEASURED: embedded sentences", flush=True)
        return None
    return np.load(file)


def exact(stored, queries):
    squares = (stored**2).sum(axis=1)
    return np.argsort(squares - 2 * queries @ stored.T, axis=1)[:, :NEIGHBOURS]


def recall(found, truth):
    return float(np.mean([len(set(a) & set(b)) / NEIGHBOURS for a, b in zip(found, truth)]))


def hnswlib_index(stored):
    import hnswlib

    index = hnswlib.Index(space="l2", dim=stored.shape[1])
    index.init_index(max_elements=len(stored), ef_construction=100, M=16, random_seed=1)
    index.set_num_threads(1)
    add = lambda: index.add_items(stored, num_threads=1)
    search = lambda rows: index.knn_query(rows, k=NEIGHBOURS, num_threads=1)[0]
    return add, search, index.set_ef, None


def faiss_hnsw_index(stored):
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexHNSWFlat(stored.shape[1], 16)
    index.hnsw.efConstruction = 100

    def set_ef(ef):
        index.hnsw.efSearch = ef

    return lambda: index.add(stored), lambda rows: index.search(rows, NEIGHBOURS)[1], set_ef, None


def faiss_flat_index(stored):
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatL2(stored.shape[1])
    return lambda: index.add(stored), lambda rows: index.search(rows, NEIGHBOURS)[1], None, stored.nbytes


def usearch_index(stored):
    from usearch.index import Index

    index = Index(ndim=stored.shape[1], metric="l2sq", dtype="f32", connectivity=16, expansion_add=100)

    def set_ef(ef):
        index.expansion_search = ef

    add = lambda: index.add(np.arange(len(stored)), stored, threads=1)
    search = lambda rows: np.atleast_2d(index.search(rows, NEIGHBOURS, threads=1).keys).astype(np.int64)
    return add, search, set_ef, lambda: index.memory_usage


PEERS = {
    "hnswlib M16 efC100": hnswlib_index,
    "faiss HNSW M16 efC100": faiss_hnsw_index,
    "usearch f32 M16 efC100": usearch_index,
    "faiss flat": faiss_flat_index,
}


def measure_index(make, stored, queries, truth):
    add, search, set_ef, size = make(stored)
    started = time.process_time()
    add()
    inserted = time.process_time() - started
    reached, knob = 0.0, None
    for ef in (16, 32, 64, 128, 256, 512) if set_ef else (None,):
        if set_ef:
            set_ef(ef)
        reached, knob = recall(search(queries), truth), ef
        if RECALL_MIN <= reached:
            break
    # Repeated until a second is full, so that a coarse clock doesn't matter.
    rounds, started = 0, time.process_time()
    while rounds == 0 or time.process_time() - started < 1.0:
        search(queries)
        rounds += 1
    searched = (time.process_time() - started) / rounds
    times = []
    for row in queries:
        started = time.thread_time()
        search(row[np.newaxis])
        times.append((time.thread_time() - started) * 1e6)
    return {
        "held": len(stored),
        "inserts_per_second": round(len(stored) / inserted, 1),
        "queries_per_second": round(len(queries) / searched, 1),
        "recall": round(reached, 4),
        "ef": knob,
        "p50_us": round(float(np.percentile(times, 50)), 1),
        "p99_us": round(float(np.percentile(times, 99)), 1),
        "bytes": size() if callable(size) else size,
    }


def neighbours(tools):
    results = []
    # The memory of a classification holds what one search may cost: `held` tells how many.
    sizes = [(1_024, 64), (8_192, 8), (2_000 if tools.quick else 20_000, 384)]
    sets = {f"clustered {count}x{width}": clustered(count + QUERIES, width) for count, width in sizes}
    embeddings = None if tools.quick else embedded(20_000 + QUERIES)
    if embeddings is not None:
        sets["embedded sentences 20000x384"] = embeddings
    for name, rows in sets.items():
        count, width = len(rows) - QUERIES, rows.shape[1]
        stored, queries = rows[:count], rows[count:]
        truth = exact(stored, queries)
        with write_floats(rows) as file:
            own = measured(tools, "memory", file.name, width, count, NEIGHBOURS)
            own["recall"] = round(recall(np.array(own.pop("nearest")), truth), 4)
            results.append({"set": name, "index": "hebb experiences", **own, "peer": False})
            show(results[-1])
            if width == 384:
                results.append({"set": name, "index": "hebb governed memory", **measured(tools, "keep", file.name, width, count), "peer": False})
                show(results[-1])
        for index, make in PEERS.items():
            try:
                results.append({"set": name, "index": index, **measure_index(make, stored, queries, truth), "peer": True})
                show(results[-1])
            except ImportError as error:
                print(f"NOT MEASURED: {index}: {error}", flush=True)
    return results


def drift(tools):
    """Runs of 10,000 errors whose share goes from 0.2 to 0.4 in the middle."""
    run, change, runs = 10_000, 5_000, 40
    random = np.random.default_rng(1)
    shares = np.where(np.arange(run) < change, 0.2, 0.4)
    numbers = (random.random((runs, run)) < shares).astype(np.float32)
    with write_floats(numbers) as file:
        results = [{"what": "drift", "detector": "hebb adwin", **measured(tools, "drift", file.name, run, change), "peer": False}]
    show(results[-1])
    try:
        from river import drift as detectors
    except ImportError as error:
        print(f"NOT MEASURED: river: {error}", flush=True)
        return results
    for name, make in {"river adwin": detectors.ADWIN, "river page-hinkley": detectors.PageHinkley}.items():
        false_alarms, delays, missed, taken = 0, [], 0, 0.0
        for values in numbers.tolist():
            detector = make()
            alarms = []
            started = time.thread_time()
            for place, value in enumerate(values):
                detector.update(value)
                if detector.drift_detected:
                    alarms.append(place)
            taken += time.thread_time() - started
            false_alarms += sum(place < change for place in alarms)
            after = [place for place in alarms if change <= place]
            if after:
                delays.append(after[0] - change + 1)
            else:
                missed += 1
        results.append(
            {
                "what": "drift",
                "detector": name,
                "delay": round(float(np.mean(delays)), 1) if delays else None,
                "missed": missed,
                "false_alarms": false_alarms,
                "points_per_second": round(numbers.size / taken, 1),
                "peer": True,
            }
        )
        show(results[-1])
    return results


def perceive(tools):
    """Noise with a saw-tooth of 24 samples every 35 or so; a peer gets a window as long as the shape."""
    random = np.random.default_rng(1)
    shape = np.concatenate([np.arange(20) / 2, 10 - np.arange(4) * 2.5])
    pieces = []
    for _ in range(300 if tools.quick else 3_000):
        pieces += [random.random(random.integers(10, 20)) * 0.3, shape]
    signal = np.concatenate(pieces).astype(np.float32)
    with write_floats(signal) as file:
        results = [{"what": "perceive", "method": "hebb, events of 1,000 samples", "samples": len(signal), **measured(tools, "perceive", file.name, 1_000), "peer": False}]
    show(results[-1])
    try:
        import stumpy
    except ImportError as error:
        print(f"NOT MEASURED: stumpy: {error}", flush=True)
        return results
    held, appended = 2_000, 300
    stream = stumpy.stumpi(signal[:held].astype(float), m=24, egress=True)
    for sample in signal[held : held + 50]:
        stream.update(float(sample))
    started = time.process_time()
    for sample in signal[held + 50 : held + 50 + appended]:
        stream.update(float(sample))
    rate = appended / (time.process_time() - started)
    results.append({"what": "perceive", "method": "stumpy append, 2,000 samples held", "samples": appended, "samples_per_second": round(rate, 1), "peer": True})
    show(results[-1])
    part = signal[:10_000].astype(float)
    stumpy.stump(part[:500], m=24)
    started = time.process_time()
    stumpy.stump(part, m=24)
    results.append({"what": "perceive", "method": "stumpy batch of 10,000", "samples": len(part), "samples_per_second": round(len(part) / (time.process_time() - started), 1), "peer": True})
    show(results[-1])
    return results


def show(row):
    print("  " + ", ".join(f"{name} {value}" for name, value in row.items() if name != "peer" and value is not None), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=Path, required=True, help="the binary of the engine's half")
    parser.add_argument("--out", type=Path, required=True, help="the folder for knn.json and perceive.json")
    parser.add_argument("--quick", action="store_true", help="smaller sets")
    tools = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for name, what in {"knn": [neighbours], "perceive": [drift, perceive]}.items():
        results = [row for measure in what for row in measure(tools)]
        (tools.out / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
