"""Data larger than memory: memory-mapped sessions, under a limit on the memory of the process.

Sessions of noise are written to a folder, once, and mapped. The limit is RLIMIT_DATA, which counts
allocated memory but not memory maps. Each step prints its time and its peak of anonymous memory
(RssAnon), imports included.
"""

import argparse
import contextlib
import resource
import threading
import time
import warnings
from pathlib import Path

import numpy as np

GB = 2**30


class Peak:
    """The largest anonymous memory of the process during a block, in MB."""

    def __enter__(self):
        self.megabytes, self.is_over = 0.0, False
        self.start, self.cpu = time.perf_counter(), time.process_time()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.is_over = True
        self.thread.join()
        self.seconds = time.perf_counter() - self.start
        self.cpu = time.process_time() - self.cpu

    def _watch(self):
        while not self.is_over:
            self.megabytes = max(self.megabytes, anonymous_memory())
            time.sleep(0.005)


def anonymous_memory():
    with open("/proc/self/status") as file:
        lines = dict(line.split(":", 1) for line in file if ":" in line)
    return int(lines["RssAnon"].split()[0]) / 1024


def make_sessions(folder, gigabytes, n_sessions, n_channels):
    """Write sessions of float32, if they are not there, and map them."""
    n_rows = int(gigabytes * GB / 4 / n_channels / n_sessions)
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((2, n_channels, n_channels)).astype(np.float32) / n_channels**0.5
    paths = [folder / f"{n_rows}x{n_channels}.{number}.npy" for number in range(n_sessions)]
    for path in paths:
        if path.exists():
            continue
        session = np.lib.format.open_memmap(path, "w+", np.float32, (n_rows, n_channels))
        for start in range(0, n_rows, 2**14):
            rows = session[start : start + 2**14]
            noise = rng.standard_normal(rows.shape, dtype=np.float32)
            rows[:] = noise @ mixing[(start // 2**14) % 2]
        session.flush()
    return [np.load(path, mmap_mode="r") for path in paths]


def outputs(folder, sessions, n_columns):
    """Maps to write results to."""
    return [
        np.lib.format.open_memmap(folder / f"out.{n}.npy", "w+", np.float32, (len(one), n_columns))
        for n, one in enumerate(sessions)
    ]


def report(name, peak, extra=""):
    print(f"{name:32} {peak.seconds:7.1f} s {peak.megabytes:7.0f} MB {extra}", flush=True)


def run_dynemo(sessions, folder, steps):
    from skdyn import DyNeMoEstimator

    model = DyNeMoEstimator(
        2,
        sequence_length=200,
        n_epochs=1,
        init_method="random",
        inference_n_units=4,
        model_n_units=4,
        diagonal_covariances=True,
        n_refinement_steps=1,
        batch_size=64,
        random_state=0,
        checkpoint=folder / "checkpoints",
    )
    with Peak() as peak:
        model.fit(sessions)
    report("DyNeMo, one epoch", peak, "" if "fit" in steps else "(or its checkpoint)")
    if "transform" in steps:
        out = outputs(folder, sessions, 2)
        with Peak() as peak:
            assert model.transform(sessions, out=out)[0] is out[0]
        total = float(np.mean([one[:1000].sum(axis=1).mean() for one in out]))
        report("DyNeMo, transform to out=", peak, f"rows sum to {total:.6f}")
    if "score" in steps:
        with Peak() as peak:
            score = model.score(sessions, n_draws=1)
        report("DyNeMo, score", peak, f"{score:.4f}")


def run_nems(sessions, folder, steps):
    from skdyn import NEMSRegressor

    responses = [np.maximum(one[:, 0] - one[:, 1], 0) for one in sessions]
    model = NEMSRegressor(
        "wc.x1-fir.4-lvl-relu", solver="adam", max_iter=1, batch_size=256, random_state=0
    )
    if "fit" in steps:
        with Peak() as peak:
            model.fit(sessions, responses)
        report("NEMS adam, one epoch", peak)
    else:
        model.fit(sessions[:1], responses[:1])
    if "transform" in steps:
        out = [np.empty(len(one), np.float32) for one in sessions]
        with Peak() as peak:
            model.predict(sessions, out=out)
        report("NEMS, predict to out=", peak)
    if "score" in steps:
        with Peak() as peak:
            score = model.score(sessions, responses)
        report("NEMS, score", peak, f"{score:.4f}")


def run_preprocessing(sessions, folder, steps):
    from skdyn.preprocessing import BandpassFilter, SessionScaler, TimeDelayPCA

    n_channels = sessions[0].shape[1]
    for name, step, width in [
        ("SessionScaler", SessionScaler(), n_channels),
        ("BandpassFilter", BandpassFilter(0.1, 0.3), n_channels),
        ("TimeDelayPCA", TimeDelayPCA(3, 4), 4),
    ]:
        with Peak() as peak:
            step.fit(sessions)
        report(f"{name}, fit", peak)
        some = sessions if width < n_channels else sessions[: max(1, len(sessions) // 4)]
        out = outputs(folder, some, width)
        with Peak() as peak:
            step.transform(some, out=out)
        report(f"{name}, transform to out=", peak, f"{sum(x.nbytes for x in some) / GB:.2f} GB")
        for one in out:
            Path(one.filename).unlink()


RUNS = {"dynemo": run_dynemo, "nems": run_nems, "preprocessing": run_preprocessing}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where sessions are written")
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--limit", type=float, default=1.5, help="gigabytes of RLIMIT_DATA")
    parser.add_argument("--sessions", type=int, default=16)
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--steps", nargs="+", default=["fit", "transform", "score"])
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    sessions = make_sessions(
        arguments.folder, arguments.gigabytes, arguments.sessions, arguments.channels
    )
    warnings.simplefilter("ignore")
    import skdyn.dynemo.estimator
    import skdyn.nems  # noqa: F401

    limit = int(arguments.limit * GB)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    size = sum(one.nbytes for one in sessions) / GB
    print(
        f"{size:.2f} GB in {len(sessions)} sessions of {sessions[0].shape}, limit "
        f"{arguments.limit} GB, after imports {anonymous_memory():.0f} MB"
    )
    for name in arguments.runs:
        with contextlib.suppress(BrokenPipeError):
            RUNS[name](sessions, arguments.folder, arguments.steps)


if __name__ == "__main__":
    main()
