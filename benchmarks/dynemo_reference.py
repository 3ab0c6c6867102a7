"""
CPU time of DyNeMoEstimator and of the reference implementation, measured in one run.

Measured in separate processes on one thread, alternately:

1. The CPU seconds of an epoch with the same settings (windows of 200 rows, one LSTM of 64 units in
   each network, random initialisation, no held-out rows), as the difference of a longer and a
   shorter fit, which cancels imports, compilation and initialisation; for the given recording, with
   batches of 16 windows, and for a simulated mixture of 80 channels, with batches of 32.
2. With `--whole`, a whole fit of the recording: the reference for 200 epochs, skdyn by default.
3. The shares of the likelihood and of the recurrent networks in a training step of skdyn: the
   forward and backward pass of each part is timed separately on a batch of the same size.

The reference is called as `python script recording.npz --seed S --epochs E --batch-size B
--sequence-length L --modes J` and prints one line of JSON with fit_cpu_s.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from dynemo_recovery import mixture
from processes import alone, ask, markdown, measured

from skdyn import DyNeMoEstimator
from skdyn.core.gaussian import mixture_log_likelihood
from skdyn.core.windows import WindowLoader, cut_windows
from skdyn.dynemo.objective import FreeEnergy

WINDOW = 200


def draw_data(path, n_modes, n_channels, seed):
    """Write a recording; in a separate process, so that a fit does not include its memory."""
    X, truth = mixture(n_modes, n_channels, seed)
    np.savez(path, time_series=X, mode_time_course=truth)
    return {}


def same_model(n_modes, batch_size, n_epochs):
    """The estimator with the settings of the reference."""
    return DyNeMoEstimator(
        n_modes=n_modes,
        sequence_length=WINDOW,
        batch_size=batch_size,
        init_method="random",
        gradient_clip=None,
        n_epochs=n_epochs,
        n_kl_annealing_epochs=max(1, n_epochs // 2),
        random_state=0,
    )


def fit(recording, n_modes, batch_size, n_epochs):
    """Fit once and return the cost."""
    X = np.load(recording)["time_series"]
    # Exclude the parts of torch that are loaded on first use.
    same_model(n_modes, batch_size, 1).fit(X[: 2 * WINDOW])
    _, cost = measured(lambda: same_model(n_modes, batch_size, n_epochs).fit(X))
    return {"fit_cpu_s": cost["cpu_s"]}


def seconds_of(function, n_times=20):
    """Median CPU seconds of a call."""
    seconds = []
    for _ in range(n_times + 3):
        start = time.process_time()
        function()
        seconds.append(time.process_time() - start)
    return float(np.median(seconds[3:]))


def parts(recording, n_modes, batch_size):
    """CPU seconds of a training step and of its two costly parts, forwards and backwards."""
    torch.set_num_threads(1)
    X = np.load(recording)["time_series"]
    model = same_model(n_modes, batch_size, 1).fit(X[: WINDOW * batch_size])
    network = model.network_.train()
    rows = X[: WINDOW * batch_size]
    loader = WindowLoader([rows], model.channel_scale_, torch.device("cpu"))
    windows = cut_windows(loader.n_rows, WINDOW, WINDOW)
    batch = loader(windows)
    generator = torch.Generator().manual_seed(0)
    objective = FreeEnergy(network, generator, loader, windows, rows_per_window=WINDOW)
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(weights, eps=1e-7, fused=True)

    def step():
        optimizer.zero_grad()
        objective.training_terms(batch, epoch=0)["loss"].backward()
        optimizer.step()

    theta = torch.randn(batch_size, WINDOW, n_modes, generator=generator).requires_grad_()

    def likelihood():
        alpha, covariances = network.mixing(theta), network.mode_covariances()
        mixture_log_likelihood(
            batch.rows.flatten(0, 1), alpha.flatten(0, 1), network.mode_means(), covariances
        ).backward()

    def recurrent():
        (network.inference_rnn(batch.rows).sum() + network.model_rnn(theta).sum()).backward()

    timed = {"step": step, "likelihood": likelihood, "recurrent": recurrent}
    return {name: seconds_of(function) for name, function in timed.items()}


def reference(arguments, recording, n_epochs, batch_size=16, seed=0):
    """Fit the reference once."""
    command = [arguments.reference_python, arguments.reference_script, recording]
    command += ["--seed", seed, "--epochs", n_epochs, "--batch-size", batch_size]
    command += ["--sequence-length", WINDOW, "--modes", arguments.modes]
    return alone(command)


def compare_epochs(arguments, recording, batch_size):
    """CPU seconds of an epoch of both, measured alternately: a pair for each repeat."""
    few, many = sorted(arguments.epochs)
    request = {"recording": recording, "n_modes": arguments.modes, "batch_size": batch_size}

    def theirs(n_epochs):
        return reference(arguments, recording, n_epochs, batch_size)["fit_cpu_s"]

    def ours(n_epochs):
        return ask(__file__, n_epochs=n_epochs, **request)["fit_cpu_s"]

    pairs = []
    for _ in range(arguments.repeats):
        costs = [(theirs(n_epochs), ours(n_epochs)) for n_epochs in (few, many)]
        pairs.append((np.array(costs[1]) - costs[0]) / (many - few))
    return np.array(pairs)


def report_epochs(arguments, folder):
    drawn = str(Path(folder) / "drawn.npz")
    ask(__file__, path=drawn, n_modes=arguments.modes, n_channels=80, seed=4)
    table, shares = [], []
    for recording, batch_size in [(arguments.recording, 16), (drawn, 32)]:
        n_channels = np.load(recording)["time_series"].shape[1]
        pairs = compare_epochs(arguments, recording, batch_size)
        theirs, ours = np.median(pairs, axis=0)
        ratios = pairs[:, 0] / pairs[:, 1]
        spread = f"{ratios.min():.2f} to {ratios.max():.2f}"
        row = [n_channels, batch_size, f"{theirs:.3f}", f"{ours:.3f}", f"{theirs / ours:.2f}"]
        table.append([*row, spread])
        cost = ask(__file__, recording=recording, n_modes=arguments.modes, batch_size=batch_size)
        share = [f"{cost[name] / cost['step']:.0%}" for name in ("likelihood", "recurrent")]
        shares.append([n_channels, batch_size, f"{1000 * cost['step']:.1f}", *share])
    heads = ["channels", "batch", "reference, CPU s per epoch", "skdyn", "ratio", "over repeats"]
    markdown(heads, table)
    print()
    markdown(["channels", "batch", "step of skdyn, CPU ms", "likelihood", "recurrent"], shares)


def report_whole(arguments):
    theirs = reference(arguments, arguments.recording, n_epochs=200)
    script = Path(__file__).with_name("dynemo_recovery.py")
    ours = ask(script, case="tutorial", seed=0, recording=arguments.recording)
    matched = theirs.get("mean_correlation", np.nan), np.mean(ours["correlations"])
    energies = theirs.get("free_energy", np.nan), ours["windows"]
    heads = ["whole fit", "epochs", "CPU s", "free energy of windows", "mean correlation"]
    rows = zip(
        ("reference", "skdyn, default"),
        (200, ours["epochs"]),
        (f"{value:.1f}" for value in (theirs["fit_cpu_s"], ours["cpu_s"])),
        (f"{value:.3f}" for value in energies),
        (f"{value:.3f}" for value in matched),
        strict=True,
    )
    markdown(heads, rows)
    print(f"\nratio {theirs['fit_cpu_s'] / ours['cpu_s']:.1f}\n")


def answer(request):
    """Call the function that a request names."""
    if "path" in request:
        return draw_data(**request)
    return fit(**request) if "n_epochs" in request else parts(**request)


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--reference-python", help="python that can import the reference")
    parser.add_argument("--reference-script", help="script that fits the reference once")
    parser.add_argument("--recording", help=".npz with time_series and mode_time_course")
    parser.add_argument("--modes", type=int, default=6)
    parser.add_argument("--epochs", type=int, nargs=2, default=[2, 8], help="of the two fits")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--whole", action="store_true", help="compare a whole fit, too")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(answer(arguments.one)))
        return
    for name in ("reference_python", "reference_script", "recording"):
        if not getattr(arguments, name):
            parser.error(f"--{name.replace('_', '-')} is needed")
    with tempfile.TemporaryDirectory() as folder:
        report_epochs(arguments, folder)
    if arguments.whole:
        print()
        report_whole(arguments)


if __name__ == "__main__":
    main()
