"""The task of `peers.py celery`."""

import celery

app = celery.Celery("celery_tasks")


@app.task(name="nothing")
def nothing(payload):
    return len(payload)
