"""The settings of a fit, made once from the parameters of the estimator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from skdyn.core.recurrent import RecurrentSettings
from skdyn.dynemo.network import NetworkSettings
from skdyn.dynemo.objective import Annealing
from skdyn.sessions import naming

# Gradient steps in an epoch, and the range of batch sizes that use a CPU well.
STEPS_PER_EPOCH = 16
BATCH_SIZES = (4, 64)


@dataclass(frozen=True)
class FitSettings:
    """The settings of a fit; names and meanings are those of `DyNeMoEstimator`.

    Attributes
    ----------
    network : NetworkSettings
        The network.
    means, covariances : ndarray or None
        Modes that the caller has given, in units of the scaled data; None if there are none.
    """

    network: NetworkSettings
    means: np.ndarray | None
    covariances: np.ndarray | None
    sequence_length: int
    batch_size: int | str
    learning_rate: float
    lr_decay: float | str
    gradient_clip: float | None
    n_epochs: int
    annealing: Annealing
    loss_calc: str
    init_method: str
    n_init: int
    n_init_epochs: int
    init_take: float
    n_iter_no_change: int | None
    validation_fraction: float | None
    tol: float
    verbose: int

    @property
    def is_open(self) -> bool:
        """Whether modes that the caller has not given are learned."""
        network = self.network
        return (network.learn_means and self.means is None) or (
            network.learn_covariances and self.covariances is None
        )

    def windows_per_batch(self, n_windows: int) -> int:
        """Windows per gradient step.

        Parameters
        ----------
        n_windows : int
            Windows of the training data.

        Returns
        -------
        int
            For "auto" as many as give about `STEPS_PER_EPOCH` steps, within `BATCH_SIZES`.
        """
        if self.batch_size != "auto":
            return int(self.batch_size)
        return int(np.clip(n_windows // STEPS_PER_EPOCH, *BATCH_SIZES))


def make_settings(
    parameters: Mapping[str, Any], center: np.ndarray, scale: np.ndarray, epsilon: float
) -> FitSettings:
    """Settings from the parameters of an estimator and the scale of a recording.

    Parameters
    ----------
    parameters : mapping
        Parameters of a `DyNeMoEstimator`, by name.
    center, scale : ndarray of shape (n_channels,)
        Shift and scale of each channel.
    epsilon : float
        Number that is added to the diagonals of learned covariances.

    Returns
    -------
    FitSettings
        The settings.

    Raises
    ------
    ValueError
        If parameters contradict each other.
    sklearn.exceptions.NotFittedError
        If init_method is an estimator that is not fitted.
    """
    # torch takes Python's numbers alone, but a grid made with numpy.arange has NumPy's.
    parameters = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in parameters.items()
    }
    means, covariances = given_modes(parameters)
    network = _network_settings(parameters, len(scale), epsilon)
    learns = network.learn_means or network.learn_covariances
    if not learns and means is None and covariances is None:
        raise ValueError(
            "learn_means and learn_covariances are both False, and neither initial_means nor "
            "initial_covariances is given: all modes would stay equal. Learn one of them, or pass "
            "values."
        )
    shape = (network.n_modes, len(scale))
    if means is not None:
        name = "init_method" if parameters["initial_means"] is None else "initial_means"
        with naming(name):
            means = check_array(means, input_name=name)
        means = (_check_shape(means, (shape,), name) - center) / scale
    if covariances is not None:
        is_argument = parameters["initial_covariances"] is not None
        name = "initial_covariances" if is_argument else "init_method"
        diagonal = network.diagonal_covariances
        covariances = _check_covariances(covariances, shape, name, diagonal=diagonal)
        squared = scale**2 if covariances.ndim == 2 else np.outer(scale, scale)
        covariances = covariances / squared
    method = parameters["init_method"]
    same = set(FitSettings.__dataclass_fields__) & set(parameters) - {"init_method"}
    return FitSettings(
        network=network,
        means=means,
        covariances=covariances,
        annealing=_annealing(parameters),
        init_method=method if isinstance(method, str) else "auto",
        **{name: parameters[name] for name in same},
    )


def _network_settings(
    parameters: Mapping[str, Any], n_channels: int, epsilon: float
) -> NetworkSettings:
    def recurrent(role: str) -> RecurrentSettings:
        names = ("rnn", "n_layers", "n_units", "normalization", "activation", "dropout")
        return RecurrentSettings(*(parameters[f"{role}_{name}"] for name in names))

    names = (
        "n_modes learn_alpha_temperature initial_alpha_temperature learn_means learn_covariances "
        "diagonal_covariances"
    )
    return NetworkSettings(
        n_channels=n_channels,
        inference=recurrent("inference"),
        model=recurrent("model"),
        zero_means=not parameters["learn_means"] and parameters["initial_means"] is None,
        covariances_epsilon=epsilon,
        **{name: parameters[name] for name in names.split()},
    )


def _annealing(parameters: Mapping[str, Any]) -> Annealing:
    if not parameters["do_kl_annealing"]:
        return Annealing()
    n_epochs = parameters["n_kl_annealing_epochs"]
    if n_epochs is None:
        n_epochs = parameters["n_epochs"] // 4
    if n_epochs > parameters["n_epochs"]:
        raise ValueError(
            f"n_kl_annealing_epochs is {n_epochs}, but must be at most "
            f"n_epochs={parameters['n_epochs']}. Raise n_epochs, or leave n_kl_annealing_epochs "
            "out for a quarter of them."
        )
    curve, sharpness = parameters["kl_annealing_curve"], parameters["kl_annealing_sharpness"]
    return Annealing(curve, sharpness, n_epochs)


def given_modes(parameters: Mapping[str, Any]) -> tuple:
    """Means and covariances that the caller has given, in the caller's units.

    Parameters
    ----------
    parameters : mapping
        Parameters of a `DyNeMoEstimator`, by name.

    Returns
    -------
    means, covariances : array-like or None
        None if the caller has not given them.

    Raises
    ------
    ValueError
        If covariances are given twice.
    sklearn.exceptions.NotFittedError
        If init_method is an estimator that is not fitted.
    """
    method = parameters["init_method"]
    means, covariances = parameters["initial_means"], parameters["initial_covariances"]
    if isinstance(method, str):
        return means, covariances
    if covariances is not None:
        raise ValueError(
            "Both initial_covariances and init_method hold covariances. Leave initial_covariances "
            "out."
        )
    if not hasattr(method, "fit"):
        return means, method
    check_is_fitted(
        method,
        "covariances_",
        msg="init_method is a %(name)s that is not fitted, but a fitted one was expected. "
        "sklearn.clone unfits it: pass its covariances_, or wrap it in FrozenEstimator.",
    )
    if parameters["learn_means"] and means is None:
        means = method.means_
    return means, method.covariances_


def _check_shape(array: np.ndarray, shapes: tuple, name: str) -> np.ndarray:
    if array.shape not in shapes:
        wanted = " or ".join(map(str, shapes))
        raise ValueError(f"{name} has shape {array.shape}, but {wanted} was expected.")
    return array


def _check_covariances(given, shape: tuple[int, int], name: str, *, diagonal: bool) -> np.ndarray:
    """Positive definite matrices, or their diagonals if the model has only those."""
    with naming(name):
        array = check_array(given, allow_nd=True, dtype=np.float64, input_name=name)
    full = (*shape, shape[1])
    _check_shape(array, (full, shape) if diagonal else (full,), name)
    if array.ndim == 2:
        if array.min() <= 0:
            raise ValueError(f"{name} has the variance {array.min()}, but must be above 0.")
        return array
    if not np.allclose(array, array.swapaxes(1, 2), rtol=1e-5, atol=1e-8 * np.abs(array).max()):
        raise ValueError(f"{name} is not symmetric. Pass (D + D.T) / 2.")
    smallest = np.linalg.eigvalsh(array).min()
    if smallest <= 0:
        raise ValueError(
            f"{name} has an eigenvalue of {smallest:.3g}, but positive definite matrices were "
            "expected. Add a small multiple of the identity."
        )
    if not diagonal:
        return array
    variances = np.diagonal(array, axis1=1, axis2=2)
    if np.any(array != variances[:, :, None] * np.eye(shape[1])):
        raise ValueError(
            f"{name} has entries off the diagonal, but diagonal_covariances is True. Set "
            "diagonal_covariances=False, or pass the diagonals."
        )
    return variances
