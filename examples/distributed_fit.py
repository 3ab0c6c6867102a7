"""
One fit on several processes
============================

Each process calls `fit` with the whole recording. As it belongs to a process group, it computes its
share of every batch only, and all end with the same model. Start it with torchrun, on two cores

    torchrun --standalone --nproc_per_node 2 examples/distributed_fit.py

or with one process per GPU, on each of two machines,

    torchrun --nnodes 2 --nproc_per_node 4 --rdzv_backend c10d --rdzv_endpoint HOST:29400 \\
        examples/distributed_fit.py

where HOST is one of the two. Started with python alone, one process does everything.
"""

# sphinx_gallery_thumbnail_path = "static/processes.svg"

import argparse
import os
import time

import torch
from torch import distributed

from skdyn import DyNeMoEstimator, match_modes
from skdyn.metrics import alpha_correlation
from skdyn.simulation import MixedSineMVN


def join():
    """Become one of several processes, and choose the device: this is all that is needed."""
    local_rank = int(os.environ["LOCAL_RANK"])
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
        distributed.init_process_group("nccl")
        return f"cuda:{local_rank}"
    distributed.init_process_group("gloo")
    return "cpu"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="less data and fewer epochs")
    quick = parser.parse_args().quick
    # torchrun sets the rank of each process that it starts.
    shared = "LOCAL_RANK" in os.environ
    device = join() if shared else "cpu"

    simulation = MixedSineMVN(
        n_samples=2000 if quick else 25_600,
        n_modes=3,
        n_channels=20,
        relative_activation=[1, 1, 0.5],
        amplitudes=[4, 3, 3],
        frequencies=[1, 2, 3],
        sampling_frequency=250,
        random_state=0,
    ).standardize()
    X = simulation.time_series

    start = time.perf_counter()
    model = DyNeMoEstimator(
        n_modes=3, n_epochs=2 if quick else 20, random_state=0, device=device, verbose=1
    )
    model.fit(X)
    seconds = time.perf_counter() - start

    # All have the same model now; one is enough to use it.
    if not shared or distributed.get_rank() == 0:
        n_processes = distributed.get_world_size() if shared else 1
        true, inferred = match_modes(simulation.mode_time_course, model.transform(X))
        correlation = alpha_correlation(true, inferred)
        print(f"{n_processes} processes, {seconds:.1f} s, loss {model.history_['loss'][-1]:.4f}")
        print("correlation with the true modes:", correlation.round(2))
    if shared:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
