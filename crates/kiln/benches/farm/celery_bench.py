"""Passes empty tasks through Celery: `celery_bench.py N` queues them once a line comes on
its standard input, a worker of this module runs them. Each writes two rows of its own in
one transaction."""

import os
import sys

from celery import Celery

app = Celery("celery_bench", broker=os.environ["BROKER"])
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=64, worker_send_task_events=False)

connection = None


@app.task(name="null")
def null():
    global connection
    if connection is None:
        import psycopg

        connection = psycopg.connect(os.environ["DATABASE"], autocommit=True)
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute("INSERT INTO celery_jobs (status) VALUES ('running') RETURNING id")
        (job,) = cursor.fetchone()
        cursor.execute("INSERT INTO celery_ends (job) VALUES (%s)", (job,))


if __name__ == "__main__":
    with app.producer_or_acquire() as producer:
        # All that is there only once is made before the clock starts: a connection too.
        producer.connection.ensure_connection()
        null.apply_async(producer=producer)
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in range(int(sys.argv[1])):
            null.apply_async(producer=producer)
