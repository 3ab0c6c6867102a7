"""
Population networks of NEMSRegressor against the same networks written by hand in torch.

60 neurons, 16 sounds of 500 rows and 34 bands, simulated. Both train with Adam on the same windows
and batches for as many epochs, in single precision, and compute the loss of all windows after each
epoch. An epoch is the difference between a long and a short training, divided by their difference
in epochs; "all" is the whole of a training of 100 epochs, with what comes before the first one.
Fits alternate on one thread.
"""

import argparse
import json
import time

import numpy as np
import torch
from processes import ask, markdown
from torch import nn

from skdyn import NEMSRegressor

N_SOUNDS, N_ROWS, N_BANDS, N_NEURONS = 16, 500, 34, 60
WINDOW, BATCH = 250, 4
SHORT, LONG = 5, 25
NETWORKS = {
    "100 filters": "fir.15x34x100-relu.100-wc.100x60-lvl-dexp.60",
    "1-D x 2": "wc.34x70-fir.15x1x70-relu.70-wc.70x80-fir.10x1x80-relu.80-wc.80x100-relu.100"
    "-wc.100x60-lvl-dexp.60",
}


def sounds(seed=0):
    """Stimuli of shape (sound, row, band), and responses of rectified filters with noise."""
    rng = np.random.default_rng(seed)
    X = rng.gamma(2, 0.5, (N_SOUNDS, N_ROWS, N_BANDS))
    filters = rng.standard_normal((8, 15, N_BANDS)) / 20
    padded = np.pad(X, ((0, 0), (14, 0), (0, 0)))
    lagged = np.lib.stride_tricks.sliding_window_view(padded, 15, axis=1)
    hidden = np.maximum(np.einsum("stbl,nlb->stn", lagged, filters), 0)
    y = hidden @ np.abs(rng.standard_normal((8, N_NEURONS)))
    return X, y + 0.3 * y.std() * rng.standard_normal(y.shape)


class Past(nn.Module):
    """A filter of the present row and those before it."""

    def __init__(self, n_in, n_out, n_lags, groups=1):
        super().__init__()
        self.n_lags = n_lags
        self.filter = nn.Conv1d(n_in, n_out, n_lags, groups=groups, bias=False)

    def forward(self, x):
        return self.filter(nn.functional.pad(x, (self.n_lags - 1, 0)))


class DoubleExponential(nn.Module):
    """base + amplitude exp(-exp(-exp(kappa) (x + shift))) of each neuron."""

    def __init__(self, n):
        super().__init__()
        # For responses of zero mean and unit variance.
        self.base, self.amplitude, self.shift, self.kappa = (
            nn.Parameter(torch.full((n, 1), value)) for value in (-1.5, 4.0, 0.0, 0.0)
        )

    def forward(self, x):
        inner = -self.kappa.exp() * (x + self.shift)
        return self.base + self.amplitude * torch.exp(-torch.exp(inner))


class Bias(nn.Module):
    """A number added to each channel."""

    def __init__(self, n):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(n, 1))

    def forward(self, x):
        return x + self.bias


def rectified(n):
    return [Bias(n), nn.ReLU()]


def by_hand(name):
    """The network as a torch module on (window, channel, row)."""
    if name == "100 filters":
        first = [Past(N_BANDS, 100, 15), *rectified(100)]
    else:
        first = [
            *(nn.Conv1d(N_BANDS, 70, 1, bias=False), Past(70, 70, 15, groups=70), *rectified(70)),
            *(nn.Conv1d(70, 80, 1, bias=False), Past(80, 80, 10, groups=80), *rectified(80)),
            *(nn.Conv1d(80, 100, 1, bias=False), *rectified(100)),
        ]
    last = [nn.Conv1d(100, N_NEURONS, 1, bias=False), Bias(N_NEURONS)]
    return nn.Sequential(*first, *last, DoubleExponential(N_NEURONS))


def drawn(network, generator):
    """The network with weights of unit gain."""
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim == 3:
                normal = torch.randn(weight.shape, generator=generator)
                weight.copy_(normal / np.sqrt(weight[0].numel()))
    return network


def train_by_hand(name, X, y, n_epochs):
    generator = torch.Generator().manual_seed(0)
    n_past = 14 if name == "100 filters" else 23
    stimuli, targets = [], []
    for stimulus, response in zip(X, y, strict=True):
        for start in range(0, N_ROWS, WINDOW):
            rows = slice(max(0, start - n_past), start + WINDOW)
            n_missing = WINDOW + n_past - (rows.stop - rows.start)
            pad = ((n_missing, 0), (0, 0))
            stimuli.append(np.pad(stimulus[rows], pad).T)
            targets.append(np.pad(response[rows], pad).T)
    stimuli, targets = (torch.tensor(np.array(a), dtype=torch.float32) for a in (stimuli, targets))
    counted = slice(n_past, None)
    network, counts = drawn(by_hand(name), generator), targets[:, :, counted]
    targets = (targets - counts.mean((0, 2), keepdim=True)) / counts.std((0, 2), keepdim=True)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01, fused=True)

    def loss_of(chosen):
        return ((network(stimuli[chosen]) - targets[chosen])[:, :, counted] ** 2).mean()

    for _ in range(n_epochs):
        for chosen in torch.randperm(len(stimuli), generator=generator).split(BATCH):
            optimizer.zero_grad()
            loss_of(chosen).backward()
            optimizer.step()
        with torch.no_grad():
            loss = loss_of(slice(None))
    return float(loss)


def train_here(name, X, y, n_epochs):
    model = NEMSRegressor(
        NETWORKS[name],
        solver="adam",
        max_iter=n_epochs,
        n_iter_no_change=n_epochs + 1,
        batch_size=BATCH,
        history="zeros",
        random_state=0,
    )
    return 1 - model.fit(X, y).score(X, y)


WAYS = {"here": train_here, "by hand": train_by_hand}


def one(name, rounds):
    """CPU seconds of epochs and of whole trainings, in turns."""
    import warnings

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    X, y = sounds()
    seconds = {(way, n): [] for way in WAYS for n in (SHORT, LONG)}
    losses = {}
    for train in WAYS.values():
        train(name, X, y, 1)  # what is loaded once
    for _ in range(rounds):
        for (way, n), spent in seconds.items():
            start = time.process_time()
            losses[way] = WAYS[way](name, X, y, n)
            spent.append(time.process_time() - start)
    epoch = {
        way: (np.array(seconds[way, LONG]) - np.array(seconds[way, SHORT])) / (LONG - SHORT)
        for way in WAYS
    }
    before = {way: np.median(seconds[way, SHORT] - SHORT * epoch[way]) for way in WAYS}
    return {
        "epoch": {way: list(epoch[way]) for way in WAYS},
        "all": {way: before[way] + 100 * float(np.median(epoch[way])) for way in WAYS},
        "loss": losses,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(one(**arguments.one)))
        return
    rows = []
    for name in NETWORKS:
        found = ask(__file__, name=name, rounds=arguments.rounds)
        ratios = np.divide(found["epoch"]["by hand"], found["epoch"]["here"])
        for way in WAYS:
            times = 1000 * np.array(found["epoch"][way])
            ratio = f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"
            rows.append(
                [
                    name,
                    way,
                    f"{np.median(times):.0f} ({times.min():.0f} to {times.max():.0f})",
                    "" if way == "here" else ratio,
                    f"{found['all'][way]:.1f}",
                    f"{found['loss'][way]:.3f}",
                ]
            )
    heads = [
        "network",
        "written",
        "CPU ms per epoch",
        "ratio",
        "all, CPU s",
        f"loss, {LONG} epochs",
    ]
    markdown(heads, rows)


if __name__ == "__main__":
    main()
