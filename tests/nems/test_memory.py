"""Memory of fits, measured in processes of their own."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

CNN = (
    "wc.34x70-fir.15x1x70-relu.70-wc.70x80-fir.10x1x80-relu.80"
    "-wc.80x100-relu.100-wc.100x60-lvl-dexp"
)
POPULATION = """
import resource, sys, warnings
import numpy as np
from skdyn import NEMSRegressor

warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
X, Y = rng.standard_normal((16, 500, 34)), rng.standard_normal((16, 500, 60))
model = NEMSRegressor({words!r}, solver={solver!r}, max_iter=1, random_state=0).fit(X, Y)
assert sum(one["total"] for one in model.model_.parameter_info.values()) > 2 * 24_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
MEMORY_MAP = """
import re, sys, threading, time, warnings
from pathlib import Path
import numpy as np
from skdyn import NEMSRegressor

def own():  # pages of the map itself belong to the system, which may drop them
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

def watch():
    while True:
        peak[0] = max(peak[0], own())
        time.sleep(0.002)

warnings.simplefilter("ignore")
X = np.load(sys.argv[1], mmap_mode="r")
y = np.random.default_rng(0).standard_normal(len(X))
NEMSRegressor("wc.x1-fir.10-lvl", solver="adam", max_iter=1, random_state=0).fit(X[:500], y[:500])
before = own()
peak = [before]
threading.Thread(target=watch, daemon=True).start()
NEMSRegressor("wc.x1-fir.10-lvl-dexp", solver="adam", max_iter=1, random_state=0).fit(X, y)
print(peak[0] - before)
"""


def megabytes(code, *arguments):
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return float(run.stdout.split()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["lbfgs", "adam"])
def test_population_of_many_parameters_fits_into_memory(solver):
    assert megabytes(POPULATION.format(words=CNN, solver=solver)) < 1500


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own account")
def test_memory_map_is_not_copied_by_adam(tmp_path):
    X = np.lib.format.open_memmap(
        tmp_path / "X.npy", mode="w+", dtype=np.float32, shape=(1_500_000, 32)
    )
    rng = np.random.default_rng(0)
    for rows in np.array_split(np.arange(len(X)), 20):
        X[rows] = rng.random((len(rows), 32), dtype=np.float32)
    X.flush()
    assert X.nbytes > 190e6
    assert megabytes(MEMORY_MAP, str(tmp_path / "X.npy")) < 300
