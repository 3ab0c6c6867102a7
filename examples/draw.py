"""Run examples and save their figures: `python examples/draw.py [--figures FOLDER] [EXAMPLE ...]`.

Without names, all examples run. `SKDYN_EXAMPLES=quick` in the environment shortens them.
"""

import argparse
import runpy
import sys
import time
import traceback
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

HERE = Path(__file__).resolve().parent


def draw(example, folder):
    """Run one example and save the figures that it leaves open."""
    start = time.process_time()
    print(f"== {example.name}", flush=True)
    try:
        runpy.run_path(str(example), run_name="__main__")
        folder.mkdir(parents=True, exist_ok=True)
        name = example.stem.removeprefix("plot_")
        for number in plt.get_fignums():
            path = folder / f"{name}_{number}.png"
            plt.figure(number).savefig(path, dpi=150, bbox_inches="tight")
            print(f"wrote {path}")
    finally:
        plt.close("all")
    print(f"{time.process_time() - start:.1f} s of CPU", flush=True)


def main():
    """Run the examples that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figures", type=Path, default=Path("figures"), help="folder of figures")
    parser.add_argument("examples", nargs="*", type=Path, help="scripts; default: all plot_*.py")
    arguments = parser.parse_args()
    failed = []
    for example in arguments.examples or sorted(HERE.glob("plot_*.py")):
        try:
            draw(example, arguments.figures)
        except Exception:
            traceback.print_exc()
            failed.append(example.name)
    if failed:
        sys.exit(f"These examples failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
