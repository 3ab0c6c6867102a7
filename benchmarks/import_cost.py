"""CPU seconds and peak memory of `import skdyn.preprocessing` and others, against scikit-learn's.

Each import runs in a separate process, alternately; the cost of Python itself is included.
"""

import argparse
import statistics
import sys

from processes import alone

IMPORTS = (
    "sklearn.base",
    "skdyn",
    "skdyn.preprocessing",
    "skdyn.metrics",
    "skdyn.datasets",
    "skdyn.simulation",
    "skdyn.dynemo.estimator",
    "skdyn.nems.regressor",
)
PROGRAM = """
import {module}
import json, resource, sys
usage = resource.getrusage(resource.RUSAGE_SELF)
seconds = usage.ru_utime + usage.ru_stime
megabytes = usage.ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)
print(json.dumps([seconds, megabytes, "torch" in sys.modules]))
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=9, help="processes for each import")
    runs = parser.parse_args().runs
    found = {module: [] for module in IMPORTS}
    for _ in range(runs):
        for module, answers in found.items():
            answers.append(alone([sys.executable, "-c", PROGRAM.format(module=module)]))
    print("| import | CPU s, median (range) | MB | times scikit-learn, CPU | MB | torch |")
    print("| --- | --- | --- | --- | --- | --- |")
    middles = {}
    for module, answers in found.items():
        seconds, megabytes, torch = zip(*answers, strict=True)
        middles[module] = statistics.median(seconds), statistics.median(megabytes)
        cpu, memory = middles[module]
        ratios = [
            one / base for one, base in zip(middles[module], middles[IMPORTS[0]], strict=True)
        ]
        print(
            f"| `{module}` | {cpu:.2f} ({min(seconds):.2f} to {max(seconds):.2f}) | {memory:.0f} "
            f"| {ratios[0]:.2f} | {ratios[1]:.2f} | {'yes' if any(torch) else ''} |"
        )


if __name__ == "__main__":
    main()
