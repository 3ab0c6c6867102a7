"""Runs of one model from several seeds: agreement of their modes, and choice of a run."""

from __future__ import annotations

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_random_state

from skdyn._fitted import fitted_steps, transform_through
from skdyn.matching import match_modes
from skdyn.metrics import alpha_correlation
from skdyn.sessions import in_sessions, join_sessions, naming

__all__ = ["select_run"]


def select_run(runs, X=None, *, sessions=None, return_agreement=False):
    """Choose the run whose modes agree best with those of the other runs.

    Parameters
    ----------
    runs : sequence of estimator, of array-like of shape (n_samples, n_modes), or of lists of such
        Fitted estimators, such as `DyNeMoEstimator`, or pipelines or searches that end in one,
        fitted to the same data from several seeds; or their mixing coefficients of the same rows:
        for each run an array, a list of sessions, or an array (n_sessions, n_samples, n_modes). At
        least two.
    X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
            (n_sessions, n_samples, n_channels), default=None
        The recording that estimators are to transform; none for mixing coefficients.
    sessions : array-like of shape (n_samples,), default=None
        Label of each row of a 2-D X.
    return_agreement : bool, default=False
        Whether to return the agreement of all pairs, too.

    Returns
    -------
    index : int
        Number of the run, the first of equal ones.
    agreement : ndarray of shape (n_runs, n_runs)
        With `return_agreement`: the agreement of each run with each.

    Raises
    ------
    ValueError
        If there are fewer than two runs, X is given for coefficients or not given for estimators,
        or the coefficients do not go together.

    See Also
    --------
    compare_models : Fits models from several seeds, with `repeat`.
    skdyn.match_modes : The matching of modes.

    Notes
    -----
    The agreement of two runs is the mean Pearson correlation of mixing coefficients of matched
    modes: 1 for the same modes in any order. A mode that is constant, or has no partner, counts 0.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.model_selection import select_run
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.dirichlet([1, 1, 1], size=200)
    >>> runs = [rng.dirichlet([1, 1, 1], size=200), truth, truth[:, [2, 0, 1]]]
    >>> index, agreement = select_run(runs, return_agreement=True)
    >>> index
    1
    >>> agreement[1].round(1)
    array([0.1, 1. , 1. ])
    """
    with naming("runs"):
        runs = list(runs)
    if len(runs) < 2:
        raise ValueError(f"runs must be at least two, but there are {len(runs)}. Fit more seeds.")
    fitted = hasattr(runs[0], "fit")
    if fitted != (X is not None):
        raise ValueError(
            f"runs and X are {'estimators and no X' if fitted else 'mixing coefficients and X'}, "
            "but fitted estimators and X, or mixing coefficients alone, were expected."
        )
    if sessions is not None and not fitted:
        raise ValueError(
            "sessions was given with mixing coefficients, but is for X only. Leave it out."
        )
    if not fitted:
        with naming("runs"):
            _check_sessions(runs)
    with naming("X" if fitted else "runs"):
        alphas = [mixing_of(run, X, sessions) if fitted else _rows_of(run) for run in runs]
        agreement = agreement_of(alphas)
    others = (agreement.sum(axis=1) - np.diagonal(agreement)) / (len(runs) - 1)
    index = int(np.argmax(others))
    return (index, agreement) if return_agreement else index


def agreement_of(alphas) -> np.ndarray:
    """Agreement of each run with each, see `select_run`.

    Parameters
    ----------
    alphas : sequence of array-like of shape (n_samples, n_modes)
        Mixing coefficients of each run.

    Returns
    -------
    ndarray of shape (n_runs, n_runs)
        Symmetric.
    """
    agreement = np.empty((len(alphas), len(alphas)))
    for one in range(len(alphas)):
        for other in range(one, len(alphas)):
            value = _matched_correlation(alphas[one], alphas[other])
            agreement[one, other] = agreement[other, one] = value
    return agreement


def _matched_correlation(alpha, other) -> float:
    # Partners of the fewer modes come first among the more.
    fewer, more = match_modes(*sorted((alpha, other), key=lambda modes: np.shape(modes)[-1]))
    correlation = alpha_correlation(fewer, more[:, : fewer.shape[1]])
    return float(np.nansum(correlation) / more.shape[1])


def mean_agreement(alphas) -> float:
    """Mean agreement over pairs of runs.

    Parameters
    ----------
    alphas : sequence of ndarray of shape (n_samples, n_modes)
        Mixing coefficients of each run.

    Returns
    -------
    float
        NaN for fewer than two runs.
    """
    if len(alphas) < 2:
        return np.nan
    return float(agreement_of(alphas)[np.triu_indices(len(alphas), 1)].mean())


def mixing_of(estimator, X, sessions) -> np.ndarray:
    """Compute the mixing coefficients of all sessions by a fitted estimator, concatenated.

    Parameters
    ----------
    estimator : estimator
        A fitted one with `transform`.
    X : array-like or list of array-like
        The recording.
    sessions : array-like of shape (n_samples,) or None
        Labels of rows; they reach the steps that take them.

    Returns
    -------
    ndarray of shape (n_samples, n_modes)
        The coefficients.
    """
    return _rows_of(transform_through(fitted_steps(estimator), X, sessions))


def _check_sessions(runs) -> None:
    lengths = [[len(one) for one in in_sessions(run).arrays] for run in runs]
    several = [own for own in lengths if len(own) > 1]
    if any(own != several[0] for own in several):
        raise ValueError(
            f"runs have sessions of {lengths} samples, but the same sessions were expected in each."
        )


def _rows_of(alpha) -> np.ndarray:
    return join_sessions(in_sessions(alpha).arrays)


def has_modes(estimator) -> bool:
    """Whether a fitted estimator, or the last step of a pipeline or search, has modes to compare.

    Parameters
    ----------
    estimator : estimator
        A fitted one.

    Returns
    -------
    bool
        Whether it has `covariances_` and transforms.
    """
    try:
        last = fitted_steps(estimator)[-1]
    except NotFittedError:  # nothing in it is learned, such as modes
        return False
    return hasattr(last, "covariances_") and hasattr(last, "transform")


def draw_seeds(repeat: int, random_state) -> list[int | None]:
    """Seeds of the repeats.

    Parameters
    ----------
    repeat : int
        Number of repeats.
    random_state : int, RandomState instance or None
        Source of the seeds.

    Returns
    -------
    list of int or None
        A single None if estimators keep their own: for one repeat without random_state.
    """
    if repeat == 1 and random_state is None:
        return [None]
    given = np.random.RandomState() if random_state is None else random_state
    return check_random_state(given).randint(np.iinfo(np.int32).max, size=repeat).tolist()


def seeded(estimator, seed: int | None):
    """A clone, with every `random_state` in it set.

    Parameters
    ----------
    estimator : estimator
        Not changed.
    seed : int or None
        None for the estimator's own.

    Returns
    -------
    estimator
        The clone.
    """
    copy = clone(estimator)
    if seed is not None:
        names = [name for name in copy.get_params() if name.split("__")[-1] == "random_state"]
        copy.set_params(**dict.fromkeys(names, seed))
    return copy
