"""
Session-specific modes: errors against known truth, with and without shrinkage, and cost.

Twenty sessions whose modes differ from a group's: each covariance is L exp(E) L', with L L' the
group's and E a symmetric matrix of normal numbers. They are mixed by a softmax of sines of 0.4, 0.6
and 0.9 Hz, at 100 Hz. A DyNeMo is fitted to all sessions; the error is the Riemannian distance of
covariances from the truth, mean over sessions and modes. With the true mixing, only the
estimation noise remains.
"""

import argparse
from functools import partial

import numpy as np
from processes import markdown, measured

from skdyn import DyNeMoEstimator, match_modes
from skdyn.analysis import modes_from_mixing, session_modes
from skdyn.metrics import riemannian_distance

RATE, FREQUENCIES, AMPLITUDE = 100, (0.4, 0.6, 0.9), 3.0


def simulate(n_sessions, n_rows, n_channels, spread, seed):
    """Recordings, their mixing, and the modes of each session."""
    rng = np.random.default_rng(seed)
    n_modes = len(FREQUENCIES)
    group = np.empty((n_modes, n_channels, n_channels))
    for mode in range(n_modes):
        axes, _ = np.linalg.qr(rng.standard_normal((n_channels, n_channels)))
        group[mode] = (axes * np.exp(rng.uniform(-1.5, 1.5, n_channels))) @ axes.T
    own = np.empty((n_sessions, *group.shape))
    X, mixing = [], []
    for session in range(n_sessions):
        for mode in range(n_modes):
            step = spread * rng.standard_normal((n_channels, n_channels))
            values, axes = np.linalg.eigh((step + step.T) / 2)
            half = np.linalg.cholesky(group[mode])
            own[session, mode] = half @ (axes * np.exp(values)) @ axes.T @ half.T
        phases = np.outer(np.arange(n_rows) / RATE, FREQUENCIES) + rng.random(n_modes)
        weights = np.exp(AMPLITUDE * np.sin(2 * np.pi * phases))
        alpha = weights / weights.sum(axis=1, keepdims=True)
        mixed = np.einsum("tj,jcd->tcd", alpha, own[session])
        noise = rng.standard_normal((n_rows, n_channels))
        X.append(np.einsum("tcd,td->tc", np.linalg.cholesky(mixed), noise))
        mixing.append(alpha)
    return X, mixing, own


def error(found, truth):
    """Mean Riemannian distance; `found` may lack the axis of sessions."""
    pairs = zip(
        np.broadcast_to(found, truth.shape).reshape(-1, *truth.shape[-2:]),
        truth.reshape(-1, *truth.shape[-2:]),
        strict=True,
    )
    return np.mean([riemannian_distance(*pair) for pair in pairs])


def compare(n_sessions, n_rows, n_channels, spread, seed):
    """Rows of the table for one simulation."""
    X, mixing, own = simulate(n_sessions, n_rows, n_channels, spread, seed)
    n_epochs = 24 if n_rows * n_sessions < 50_000 else 8
    model = DyNeMoEstimator(len(FREQUENCIES), n_epochs=n_epochs, random_state=seed).fit(X)
    alpha = np.concatenate(model.transform(X))
    order = match_modes(np.concatenate(mixing), alpha, return_order=True)[1]
    group = model.covariances_[order]
    true_mixing = [one[:, np.argsort(order)] for one in mixing]
    cases = {
        "inferred mixing": lambda shrinkage: session_modes(model, X, shrinkage=shrinkage),
        "true mixing": lambda shrinkage: modes_from_mixing(
            X, true_mixing, covariances=model.covariances_, shrinkage=shrinkage
        ),
    }
    of_group = error(group, own)
    for name, estimate in cases.items():
        row = [f"{n_rows}", name, f"{of_group:.2f}"]
        for shrinkage in ("auto", 0.0):
            modes, cost = measured(partial(estimate, shrinkage))
            distance = error(modes.covariances[:, order], own)
            row.append(f"{distance:.2f}")
            if shrinkage == "auto":
                row += [f"{distance / of_group:.2f}", f"{modes.shrinkage:.0f}"]
                row.append(f"{cost['cpu_s']:.0f}")
        print(row, flush=True)
        yield row


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--channels", type=int, default=10)
    parser.add_argument("--spread", type=float, default=0.35, help="standard deviation of E")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    given = arguments.channels, arguments.spread, arguments.seed
    rows = [row for n in arguments.rows for row in compare(arguments.sessions, n, *given)]
    header = [
        "rows",
        "mixing",
        "group's modes",
        "shrunk",
        "share",
        "shrinkage",
        "CPU s",
        "not shrunk",
    ]
    markdown(header, rows)


if __name__ == "__main__":
    main()
