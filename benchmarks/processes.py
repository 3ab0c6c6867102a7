"""
Measurements in separate processes on one thread, for separate CPU seconds and peak memory.

A script that is called with `--one` and a request in JSON prints its answer as one line of JSON.
"""

import json
import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
}


def alone(command):
    """Run a command on one thread; the JSON of the last line that it prints."""
    command = [str(word) for word in command]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | ONE_THREAD)
    if done.returncode:
        raise RuntimeError(f"exit status {done.returncode}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def ask(script, **request):
    """Run one request of a script of this folder in a separate process."""
    return alone([sys.executable, script, "--one", json.dumps(request)])


def ask_all(script, requests, jobs=1):
    """Yield each answer as soon as it is available; report failures and skip them."""
    executor = ThreadPoolExecutor(jobs)
    try:
        asked = {executor.submit(ask, script, **request): request for request in requests}
        for future in as_completed(asked):
            try:
                yield future.result()
            except RuntimeError as error:
                print(f"failed: {json.dumps(asked[future])}\n{error}", file=sys.stderr, flush=True)
    finally:
        executor.shutdown(cancel_futures=True)


def measured(function):
    """Call a function; return its value, CPU and wall seconds, and the peak memory so far.

    The peak is that of the whole process, libraries and data included. A process inherits the
    peak of its parent, which therefore must not hold data.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    value = function()
    return value, {
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - wall,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def markdown(heads, rows):
    """Print a table."""
    print("| " + " | ".join(heads) + " |")
    print("|" + " --- |" * len(heads))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
