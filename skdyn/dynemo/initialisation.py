"""Where training starts: the weights of the networks, and the modes.

A method is a function of a `Start` that leaves `start.network` ready for training. New methods are
added to `METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.sparse.linalg import ArpackError
from scipy.stats import truncnorm
from torch import Tensor

from skdyn.core.distributed import by_first
from skdyn.core.training import FitDivergedError
from skdyn.core.windows import WindowLoader
from skdyn.dynemo.moments import Moments, mixing_from_moments, modes_from_moments, stretches
from skdyn.dynemo.network import DyNeMoNetwork, NetworkSettings

# Spread of the starting values, from osl-dynamics: normal, cut off at two standard deviations.
VARIANCE_SPREAD = 0.1
DIAGONAL_VARIANCE_SPREAD = 0.05
MEAN_SPREAD = 0.02

# Fewer rows than that do not show where modes lie.
MIN_ROWS_PER_MODE = 10


@dataclass(frozen=True)
class Start:
    """What a method has to work with.

    Attributes
    ----------
    network : DyNeMoNetwork
        To be given its starting weights.
    means, covariances : ndarray or None
        Modes that the caller has set, scaled as the data are; None where they are open.
    random_state : numpy.random.RandomState
        Where the modes are drawn from.
    generator : torch.Generator
        Where the weights of the networks are drawn from.
    loader : WindowLoader
        The recording.
    short_training : callable
        Trains the network for a few epochs on a random part of the windows, and gives the last
        training loss.
    n_init : int
        How many starts are compared.
    teach : callable
        Trains the inference network on stretches of rows and the mixing coefficients that belong
        to them.
    """

    network: DyNeMoNetwork
    means: np.ndarray | None
    covariances: np.ndarray | None
    random_state: np.random.RandomState
    generator: torch.Generator
    loader: WindowLoader
    short_training: Callable[[], float]
    n_init: int
    teach: Callable[[list[np.ndarray], list[np.ndarray]], None]

    @property
    def is_open(self) -> bool:
        """Whether modes are to be learned that the caller has not set."""
        settings = self.network.settings
        return (settings.learn_means and self.means is None) or (
            settings.learn_covariances and self.covariances is None
        )


def random(start: Start) -> None:
    """One random draw of all weights.

    Parameters
    ----------
    start : Start
        What there is to work with.
    """
    settings = start.network.settings
    means, covariances = _random_modes(settings, start.random_state)
    start.network.initialise(
        start.generator,
        _tensor(means if start.means is None else start.means, start.network),
        _tensor(covariances if start.covariances is None else start.covariances, start.network),
    )


def random_subset(start: Start) -> None:
    """The best of several random draws, each trained briefly on a random part of the data.

    The draw with the lowest last training loss is kept, with what it has learned.

    Parameters
    ----------
    start : Start
        What there is to work with.
    """
    best_loss, best_weights, divergence = np.inf, None, None
    for _ in range(start.n_init):
        random(start)
        try:
            loss = start.short_training()
        except FitDivergedError as error:
            divergence = error
            continue
        if best_weights is None or loss < best_loss:
            best_loss = loss
            best_weights = {k: v.clone() for k, v in start.network.state_dict().items()}
    if best_weights is None:
        assert divergence is not None
        raise divergence
    start.network.load_state_dict(best_weights)


def simplex(start: Start) -> None:
    """Modes at the corners of the simplex in which the moments of short windows lie.

    Modes that are given are taken as they are. Then the inference network is taught the mixing
    that the moments show. Where the recording has fewer than ten rows per mode, or its moments
    never change, this is `random`.

    Parameters
    ----------
    start : Start
        What there is to work with.
    """
    n_rows = sum(map(len, start.loader.sessions))
    if n_rows < MIN_ROWS_PER_MODE * start.network.settings.n_modes:
        random(start)
        return
    rows = stretches(start.loader)
    # Elsewhere rounding could put the modes in another order.
    found = by_first(lambda: _from_moments(start, rows), start.loader.device)
    if found is None:
        random(start)
        return
    means, covariances, mixing = found
    random(replace(start, means=means, covariances=covariances))
    start.teach(rows, mixing)


def _from_moments(start: Start, rows: list[np.ndarray]) -> tuple | None:
    """Means, covariances, and mixing of these rows, or None where the moments show none."""
    # No eigenvectors, or points that are all equal: there is nothing to start from.
    with suppress(ArpackError, np.linalg.LinAlgError):
        return _modes_and_mixing(start, rows)
    return None


def _modes_and_mixing(start: Start, rows: list[np.ndarray]) -> tuple:
    settings, means, covariances = start.network.settings, start.means, start.covariances
    moments = Moments(
        rows,
        means=not settings.zero_means,
        covariances=settings.learn_covariances or covariances is not None,
        diagonal=settings.diagonal_covariances,
    )
    if start.is_open:
        given = means, covariances
        means, covariances = modes_from_moments(moments, settings.n_modes, given)
    return means, covariances, mixing_from_moments(moments, means, covariances)


METHODS: dict[str, Callable[[Start], None]] = {
    "simplex": simplex,
    "random": random,
    "random_subset": random_subset,
}


def _random_modes(
    settings: NetworkSettings, random_state: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Means near zero and diagonal covariances near one where they are learned, else 0 and I."""
    shape = (settings.n_modes, settings.n_channels)
    means, variances = np.zeros(shape), np.ones(shape)
    if settings.learn_means:
        means = _truncated_normal(0.0, MEAN_SPREAD, shape, random_state)
    if settings.learn_covariances:
        diagonal = settings.diagonal_covariances
        spread = DIAGONAL_VARIANCE_SPREAD if diagonal else VARIANCE_SPREAD
        variances = _truncated_normal(1.0, spread, shape, random_state)
    if settings.diagonal_covariances:
        return means, variances
    return means, variances[:, :, None] * np.eye(settings.n_channels)


def _truncated_normal(mean, spread, shape, random_state) -> np.ndarray:
    return truncnorm.rvs(-2, 2, loc=mean, scale=spread, size=shape, random_state=random_state)


def _tensor(values: np.ndarray, network: DyNeMoNetwork) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64, device=network.means.device)
