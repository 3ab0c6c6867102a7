"""Fits that are killed, interrupted or run out of disk, at random moments."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from skdyn.core.checkpoint import describe
from skdyn.persistence import load, save
from tests.torture.models import dynemo, nems, recording

X, Y = recording(400, 4)
FITS = {
    "dynemo": lambda **p: dynemo(n_epochs=12, init_method="moments", **p).fit(X),
    "lbfgs": lambda **p: nems("wc.x2-fir.4-lvl-dexp", max_iter=300, tol=0.0, **p).fit(X, Y),
    "adam": lambda **p: nems("wc.x2-fir.4-lvl-dexp", solver="adam", max_iter=60, **p).fit(X, Y),
}


def bits(model):
    """All results of a fit, except its duration."""
    found = {n: v for n, v in vars(model).items() if n.endswith("_") and n != "history_"}
    history = {n: v for n, v in model.history_.items() if n != "seconds"}
    if "model_" in found:  # layers note how they were called last, which is no result
        fitted = found.pop("model_")
        found |= {"values": fitted.get_parameter_vector(), "results": vars(fitted.results)}
    return describe([found, history])


def _quietly(function, *arguments, **named):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments, **named)


def _fork(function, *arguments):
    """Start a function in a child; it ends with status 0 if it returns."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            _quietly(function, *arguments)
            code = 0
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt):
                os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    return pid


def _fit(name, folder):
    FITS[name](checkpoint=folder, checkpoint_every=1)


def duration(name):
    """Seconds of a fit with checkpoints."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        _quietly(_fit, name, folder)
        return time.perf_counter() - start


def run_kills(n_kills, *, seed=0):
    """Kill fits at random moments, and call them again; return how many ended with the same bits.

    Returns
    -------
    same, unfinished, resumed : int
        Fits with the same bits, those that the kill had met, and those that had a checkpoint then.
    """
    rng = np.random.default_rng(seed)
    expected = {name: bits(_quietly(fit)) for name, fit in FITS.items()}
    seconds = {name: duration(name) for name in FITS}
    same = unfinished = resumed = 0
    for number in range(n_kills):
        name = list(FITS)[number % len(FITS)]
        with tempfile.TemporaryDirectory() as folder:
            pid = _fork(_fit, name, folder)
            time.sleep(rng.uniform(0.02, 1.0) * seconds[name])
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            unfinished += status != 0
            resumed += status != 0 and any(Path(folder).glob("*.checkpoint"))
            model = _quietly(FITS[name], checkpoint=folder, checkpoint_every=1)
            same += bits(model) == expected[name]
    return same, unfinished, resumed


def run_interrupts(n_interrupts, *, seed=0):
    """Send SIGINT to fits at random moments; return how many left the old fit whole, or none."""
    rng = np.random.default_rng(seed)
    seconds = {name: duration(name) for name in FITS}
    fitted = {name: _quietly(fit) for name, fit in FITS.items()}
    good = met = 0
    for number in range(n_interrupts):
        name = list(FITS)[number % len(FITS)]
        old = number % 2 == 1
        before = bits(fitted[name]) if old else None
        pid = _fork(_interrupted, fitted[name] if old else None, name, before)
        time.sleep(rng.uniform(0.1, 1.0) * seconds[name])
        os.kill(pid, signal.SIGINT)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        good += code in (0, 3)
        met += code == 3
    return good, met


def _interrupted(model, name, before):
    from sklearn.exceptions import NotFittedError

    # Background jobs of a shell ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    fresh = model is None
    if fresh:
        model = _unfitted(name)
    data = (X,) if name == "dynemo" else (X, Y)
    other = tuple(one[::-1].copy() for one in data)
    try:
        model.fit(*other)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if fresh:
            try:
                (model.transform if name == "dynemo" else model.predict)(X)
            except NotFittedError:
                os._exit(3)
            os._exit(4)
        os._exit(3 if bits(model) == before else 4)
    os._exit(0)


def _unfitted(name):
    if name == "dynemo":
        return dynemo(n_epochs=12, init_method="moments")
    if name == "lbfgs":
        return nems("wc.x2-fir.4-lvl-dexp", max_iter=300, tol=0.0)
    return nems("wc.x2-fir.4-lvl-dexp", solver="adam", max_iter=60)


def _save_and_fit(name, model, folder):
    for _ in range(20):
        save(model, folder / "model.skops")
    FITS[name](checkpoint=folder / "checkpoints", checkpoint_every=1)


def run_full_disk(n_times, folder, *, seed=0):
    """Fill a small disk at random moments of saves and of checkpointed fits; nothing may be lost.

    `folder` is a small file system of its own, see `small_disk`.
    """
    rng = np.random.default_rng(seed)
    models = {name: _quietly(fit) for name, fit in FITS.items()}
    expected = {name: bits(model) for name, model in models.items()}
    good = full = 0
    for number in range(n_times):
        name = list(FITS)[number % len(FITS)]
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        save(models[name], folder / "model.skops")
        pid = _fork(_save_and_fit, name, models[name], folder)
        time.sleep(rng.uniform(0.0, 1.0))
        filler = folder / "filler"
        _fill(filler)
        _, status = os.waitpid(pid, 0)
        full += status != 0
        kept = bits(load(folder / "model.skops")) == expected[name]
        filler.unlink()
        again = _quietly(FITS[name], checkpoint=folder / "checkpoints", checkpoint_every=1)
        good += kept and bits(again) == expected[name]
        for path in folder.glob("**/*.tmp"):
            good -= 1000  # nothing temporary may stay
            path.unlink()
    return good, full


def _fill(path):
    with open(path, "wb", buffering=0) as file:
        for size in (2**16, 2**12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


class small_disk:
    """A file system of a few MB in memory, where the process may mount one; else None."""

    def __init__(self, megabytes=2):
        self.megabytes = megabytes

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp())
        options = f"size={self.megabytes}m"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)]
        done = subprocess.run(command, capture_output=True, check=False)
        self.is_mounted = done.returncode == 0
        return self.folder if self.is_mounted else None

    def __exit__(self, *_):
        if self.is_mounted:
            subprocess.run(["umount", str(self.folder)], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
