"""Torture: prints the number of trials and all failures. `python -m tests.torture --help`."""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

from skdyn.persistence import save
from tests.torture import files, inputs, kills, models
from tests.torture.children import Died, in_child


def report(name, text, wrong):
    print(f"{name:12} {text}{'' if not wrong else '  BROKEN'}", flush=True)
    for one in wrong[:20]:
        print(f"             {one}", flush=True)
    return bool(wrong)


def kill(count, seed):
    same, unfinished, resumed = kills.run_kills(count, seed=seed)
    text = (
        f"kill -9: {same} of {count} with the same bits; the kill met {unfinished}: {resumed} "
        f"after a checkpoint, {unfinished - resumed} before the first one"
    )
    return report("kills", text, [] if same == count else [same])


def interrupt(count, seed):
    good, met = kills.run_interrupts(count, seed=seed)
    text = f"SIGINT: {good} of {count} left the old fit whole or none; {met} met the fit"
    return report("interrupts", text, [] if good == count else [good])


def disk(count, seed):
    with kills.small_disk() as folder:
        if folder is None:
            print("disk         no small file system can be mounted here; left out")
            return False
        good, full = kills.run_full_disk(count, folder, seed=seed)
    text = f"full disk: {good} of {count} lost nothing; {full} met a full disk"
    return report("disk", text, [] if good == count else [good])


def file(count, seed):
    originals, X = models.fitted()
    with tempfile.TemporaryDirectory() as folder:
        contents = {}
        for name, model in originals.items():
            save(model, Path(folder, "model"))
            contents[name] = Path(folder, "model").read_bytes()
        found = files.run(originals, contents, X, count, folder, seed=seed)
    counts, slowest, largest, events = found
    by_group = {}
    for group, kinds in (("damage", files.DAMAGE), ("intent", files.INTENT)):
        some = Counter()
        for (kind, outcome), n in counts.items():
            some[outcome] += n * (kind in kinds)
        by_group[group] = {outcome: n for outcome, n in sorted(some.items()) if n}
    text = f"{count} mutated files: {by_group}; executed {len(events)}, slowest {slowest:.1f} s, "
    return report("files", f"{text}largest {largest:.0f} MB", files.broken(*found))


def bad_input(count, seed):
    counts, wrong = inputs.run(count, seed=seed)
    return report("inputs", f"{count} bad inputs: {dict(counts)}", [str(one) for one in wrong])


def fork(count, seed):
    torch.set_num_threads(2)
    matrix = torch.ones(800, 800)
    matrix @ matrix  # on threads, which a child does not have
    fits = list(kills.FITS)
    expected = {name: kills.bits(kills.FITS[name]()) for name in fits}
    good = 0
    for number in range(count):
        name = fits[number % len(fits)]
        try:
            good += in_child(_bits_of, name, seconds=60) == expected[name]
        except Died as error:
            print(f"             {error}")
    return report(
        "forks", f"fork: {good} of {count} end with the same bits", [good] * (good < count)
    )


def _bits_of(name):
    return kills.bits(kills.FITS[name]())


PARTS = {
    "kills": (kill, 50),
    "disk": (disk, 20),
    "interrupts": (interrupt, 50),
    "forks": (fork, 8),
    "files": (file, 5000),
    "inputs": (bad_input, 10_000),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--count", type=int, help="how many of each; by default those of the guide")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    is_broken = False
    for name in arguments.parts:
        run, count = PARTS[name]
        start = time.perf_counter()
        is_broken |= run(arguments.count or count, arguments.seed)
        print(f"             {time.perf_counter() - start:.0f} s", flush=True)
    sys.exit(is_broken)


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")
    main()
