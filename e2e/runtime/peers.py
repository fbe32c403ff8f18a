"""What Ray and Celery do with tasks that do nothing, as `make bench-runtime` asks for it.

    peers.py ray|celery REDIS_PORT COUNT

Prints one line of JSON for each way of calling: {"system", "per_second", "p50_ms", "p99_ms"}. Throughput is that of COUNT tasks with an
argument of 128 bytes, 64 under way; the latencies are those of a tenth of them, one after the other. Two workers each.
"""

import json
import sys
import time

UNDER_WAY = 64
PAYLOAD = b"x" * 128


def quantile(times, share):
    return sorted(times)[min(int(len(times) * share), len(times) - 1)] * 1e3


def tell(system, count, call, wait):
    """Measures `wait(call())`: throughput with many under way, then the time of each alone."""
    for _ in range(UNDER_WAY):
        wait(call())
    began = time.perf_counter()
    under_way = []
    for _ in range(count):
        if len(under_way) == UNDER_WAY:
            wait(under_way.pop(0))
        under_way.append(call())
    for one in under_way:
        wait(one)
    seconds = time.perf_counter() - began
    times = []
    for _ in range(max(count // 10, 1)):
        began = time.perf_counter()
        wait(call())
        times.append(time.perf_counter() - began)
    figures = {"per_second": count / seconds, "p50_ms": quantile(times, 0.5), "p99_ms": quantile(times, 0.99)}
    print(json.dumps({"system": system, **figures}), flush=True)


def ray_peers(count):
    import ray

    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)

    @ray.remote
    def nothing(payload):
        return len(payload)

    @ray.remote
    class Actor:
        def nothing(self, payload):
            return len(payload)

    tell("Ray tasks", count, lambda: nothing.remote(PAYLOAD), ray.get)
    actors = [Actor.remote(), Actor.remote()]
    turn = iter(range(sys.maxsize))
    tell("Ray actors", count, lambda: actors[next(turn) % 2].nothing.remote(PAYLOAD), ray.get)
    ray.shutdown()


def celery_peers(redis_port, count):
    import subprocess

    url = f"redis://127.0.0.1:{redis_port}/1"
    worker = [sys.executable, "-m", "celery", "-A", "celery_tasks", "-b", url, "--result-backend", url, "worker"]
    worker += ["--concurrency", "2", "--loglevel", "ERROR", "--without-gossip", "--without-mingle"]
    process = subprocess.Popen(worker, cwd=__file__.rsplit("/", 1)[0], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        import celery

        app = celery.Celery("celery_tasks", broker=url, backend=url)
        payload = PAYLOAD.decode()
        call = lambda: app.send_task("nothing", (payload,))
        call().get(timeout=60)
        tell("Celery", count, call, lambda one: one.get(timeout=60))
    finally:
        process.terminate()
        process.wait(timeout=30)


if __name__ == "__main__":
    which, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    ray_peers(count) if which == "ray" else celery_peers(port, count)
