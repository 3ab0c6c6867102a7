"""From the parameters of a `DyNeMoEstimator` and a recording to a trained network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from skdyn.core.distributed import n_processes, start_together
from skdyn.core.recurrent import RecurrentSettings
from skdyn.core.runtime import check_device, is_host, make_generator
from skdyn.core.training import (
    NOBODY,
    Training,
    TrainingSettings,
    Watcher,
    exponential_decay,
    linear_decay,
    train,
)
from skdyn.core.windows import (
    WindowLoader,
    Windows,
    batches,
    cut_windows,
    disjoint,
    gaps,
    jitter,
)
from skdyn.dynemo.initialisation import METHODS, Start
from skdyn.dynemo.network import DyNeMoNetwork, NetworkSettings, empty_network
from skdyn.dynemo.objective import Annealing, FreeEnergy, MixingLoss

# Gradient steps in an epoch that are worth their time, and the batches that make good use of a CPU.
STEPS_PER_EPOCH = 16
BATCH_SIZES = (4, 64)

# Epochs of training for one epoch of lessons before it.
EPOCHS_PER_LESSON = 4

ADVICE = (
    "Try a smaller learning_rate, a smaller gradient_clip, a larger covariances_epsilon, or look "
    "for duplicated channels."
)


def fit_network(
    estimator,
    loader: WindowLoader,
    random_state: np.random.RandomState,
    watcher: Watcher = NOBODY,
) -> tuple[DyNeMoNetwork, Training]:
    """Train a network on a recording, alone or together with other processes.

    Parameters
    ----------
    estimator : DyNeMoEstimator
        Whose parameters say how; with warm_start, whose network is trained on.
    loader : WindowLoader
        The recording.
    random_state : numpy.random.RandomState
        Where all randomness comes from.
    watcher : Watcher, default=NOBODY
        Who is told of each epoch of the training proper.

    Returns
    -------
    network : DyNeMoNetwork
        On the CPU, in evaluation mode.
    training : Training
        What came of it.
    """
    settings = network_settings(estimator, len(loader.scale))
    _start_together(estimator, settings, loader, random_state)
    modes = starting_modes(estimator, loader.scale)
    generator = make_generator(random_state, loader.device)
    training_loader, held_out = _hold_out(loader, estimator, random_state)
    n_rows = [len(session) for session in training_loader.sessions]
    windows = cut_windows(n_rows, estimator.sequence_length, estimator.sequence_length)
    network = empty_network(settings, loader.device)
    objective = FreeEnergy(
        network,
        estimator.loss_calc,
        annealing(estimator),
        generator,
        loader,
        held_out,
        rescue=is_host(loader.device),
    )
    size = batch_size(estimator, len(windows))

    def epoch_batches(some: Windows, loader: WindowLoader = training_loader):
        moved = jitter(some, [len(session) for session in loader.sessions], generator)
        return loader.read(moved, batches(moved, size, generator))

    def short_training() -> float:
        n_taken = max(1, round(estimator.init_take * len(windows)))
        taken = windows[np.sort(random_state.permutation(len(windows))[:n_taken])]
        short = _training_settings(estimator, n_epochs=estimator.n_init_epochs, label="start")
        run = train(network, objective, lambda: epoch_batches(taken), short)
        return run.history["loss"][-1]

    def teach(rows: list[np.ndarray], mixing: list[np.ndarray]) -> None:
        lessons = [np.hstack(pair) for pair in zip(rows, mixing, strict=True)]
        lesson_loader = replace(loader, sessions=lessons, scale=np.ones(lessons[0].shape[1]))
        length = estimator.sequence_length
        parts = cut_windows([len(lesson) for lesson in lessons], length, length)
        n_epochs = max(1, estimator.n_epochs // EPOCHS_PER_LESSON)
        train(
            network,
            MixingLoss(network, generator, lesson_loader, parts),
            lambda: epoch_batches(parts, lesson_loader),
            _training_settings(estimator, n_epochs=n_epochs, label="start"),
        )

    if _continues(estimator):
        _take_over(network, estimator.network_, settings)
    else:
        start = Start(
            network,
            *modes,
            random_state,
            generator,
            training_loader,
            short_training,
            estimator.n_init,
            teach,
        )
        method = estimator.init_method if isinstance(estimator.init_method, str) else "simplex"
        METHODS[method](start)
    long = replace(_training_settings(estimator), watcher=watcher)
    training = train(network, objective, lambda: epoch_batches(windows), long)
    return network.cpu(), training


def _start_together(
    estimator, settings: NetworkSettings, loader: WindowLoader, random_state: np.random.RandomState
) -> None:
    """See to it that all processes that share the training begin the same one."""
    networks = settings.inference, settings.model
    if n_processes() > 1 and "batch" in [network.normalization for network in networks]:
        raise ValueError(
            "Got a normalization 'batch' and a training that several processes share, each of "
            "which sees a part of a batch only, expected one that does not depend on the others; "
            "use 'layer' or None."
        )
    data = [*loader.scale, *(len(session) for session in loader.sessions)]
    start_together(estimator.get_params(deep=False), data, random_state, loader.device)


def batch_size(estimator, n_windows: int) -> int:
    """Windows per gradient step.

    Parameters
    ----------
    estimator : DyNeMoEstimator
        Whose batch_size is taken.
    n_windows : int
        Windows that are trained on.

    Returns
    -------
    int
        For "auto" as many as give about `STEPS_PER_EPOCH` steps, within `BATCH_SIZES`.
    """
    if estimator.batch_size != "auto":
        return estimator.batch_size
    return int(np.clip(n_windows // STEPS_PER_EPOCH, *BATCH_SIZES))


def network_settings(estimator, n_channels: int) -> NetworkSettings:
    """What the network is made of.

    Parameters
    ----------
    estimator : DyNeMoEstimator
        Whose parameters say it.
    n_channels : int
        Channels of the recording.

    Returns
    -------
    NetworkSettings
        The same facts for the network.
    """

    def recurrent(role: str) -> RecurrentSettings:
        names = ("rnn", "n_layers", "n_units", "normalization", "activation", "dropout")
        return RecurrentSettings(*(getattr(estimator, f"{role}_{name}") for name in names))

    return NetworkSettings(
        n_modes=estimator.n_modes,
        n_channels=n_channels,
        inference=recurrent("inference"),
        model=recurrent("model"),
        learn_alpha_temperature=estimator.learn_alpha_temperature,
        initial_alpha_temperature=estimator.initial_alpha_temperature,
        learn_means=estimator.learn_means,
        zero_means=not estimator.learn_means and estimator.initial_means is None,
        learn_covariances=estimator.learn_covariances,
        diagonal_covariances=estimator.diagonal_covariances,
        covariances_epsilon=estimator.covariances_epsilon,
    )


def annealing(estimator) -> Annealing:
    """How the weight of the KL term rises.

    Parameters
    ----------
    estimator : DyNeMoEstimator
        Whose parameters say it. A warm start does not anneal again.

    Returns
    -------
    Annealing
        The schedule.

    Raises
    ------
    ValueError
        If the rise would be longer than the training.
    """
    if not estimator.do_kl_annealing or _continues(estimator):
        return Annealing()
    n_epochs = estimator.n_kl_annealing_epochs
    if n_epochs is None:
        n_epochs = estimator.n_epochs // 4
    if n_epochs > estimator.n_epochs:
        raise ValueError(
            f"Got n_kl_annealing_epochs={n_epochs} and n_epochs={estimator.n_epochs}, expected at "
            "most as many; raise n_epochs, or leave it out for a quarter of them."
        )
    return Annealing(estimator.kl_annealing_curve, estimator.kl_annealing_sharpness, n_epochs)


def given_modes(estimator) -> tuple:
    """The means and covariances that the caller has set, in the caller's units.

    Parameters
    ----------
    estimator : DyNeMoEstimator
        Whose init_method, initial_means and initial_covariances are taken.

    Returns
    -------
    means, covariances : array-like or None
        None where the caller left them open.

    Raises
    ------
    ValueError
        If covariances are given twice.
    sklearn.exceptions.NotFittedError
        If init_method is an estimator that is not fitted.
    """
    method = estimator.init_method
    means, covariances = estimator.initial_means, estimator.initial_covariances
    if isinstance(method, str):
        return means, covariances
    if covariances is not None:
        raise ValueError(
            "Got initial_covariances and an init_method that holds covariances, expected one of "
            "them; leave initial_covariances out."
        )
    if not hasattr(method, "fit"):
        return means, method
    check_is_fitted(
        method,
        "covariances_",
        msg="Got an init_method of class %(name)s that is not fitted, expected a fitted one. "
        "sklearn.clone unfits it: give its covariances_, or wrap it in FrozenEstimator.",
    )
    if estimator.learn_means and means is None:
        means = method.means_
    return means, method.covariances_


def starting_modes(estimator, scale: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The means and covariances that the caller has set, checked and scaled.

    Parameters
    ----------
    estimator : DyNeMoEstimator
        Whose initial_means and initial_covariances are taken.
    scale : ndarray of shape (n_channels,)
        What each channel is divided by.

    Returns
    -------
    means : ndarray of shape (n_modes, n_channels) or None
        None where the caller left them open.
    covariances : ndarray of shape (n_modes, n_channels, n_channels) or (n_modes, n_channels), \
            or None
        Diagonals with diagonal_covariances.

    Raises
    ------
    ValueError
        If shapes are wrong, a covariance is not symmetric positive definite, or nothing is left
        that could tell the modes apart.
    """
    means, covariances = given_modes(estimator)
    learns = estimator.learn_means or estimator.learn_covariances
    if not learns and means is None and covariances is None:
        raise ValueError(
            "Got learn_means=False and learn_covariances=False without initial_means or "
            "initial_covariances: all modes would stay equal. Learn one of them, or give values."
        )
    shape = (estimator.n_modes, len(scale))
    if means is not None:
        means = _check_shape(check_array(means), (shape,), "initial_means") / scale
    if covariances is not None:
        diagonal = estimator.diagonal_covariances
        name = "init_method" if estimator.initial_covariances is None else "initial_covariances"
        covariances = _check_covariances(covariances, shape, name, diagonal=diagonal)
        squared = scale**2 if covariances.ndim == 2 else np.outer(scale, scale)
        covariances = covariances / squared
    return means, covariances


def _check_shape(array: np.ndarray, shapes: tuple, name: str) -> np.ndarray:
    if array.shape not in shapes:
        wanted = " or ".join(map(str, shapes))
        raise ValueError(f"Got {name} of shape {array.shape}, expected {wanted}.")
    return array


def _check_covariances(given, shape: tuple[int, int], name: str, *, diagonal: bool) -> np.ndarray:
    """Positive definite matrices, or their diagonals where the model has only those."""
    array = check_array(given, allow_nd=True, dtype=np.float64)
    full = (*shape, shape[1])
    _check_shape(array, (full, shape) if diagonal else (full,), name)
    if array.ndim == 2:
        if array.min() <= 0:
            raise ValueError(f"Got {name} with {array.min()} in them, expected variances above 0.")
        return array
    if not np.allclose(array, array.swapaxes(1, 2), rtol=1e-5, atol=1e-8 * np.abs(array).max()):
        raise ValueError(f"Got {name} that are not symmetric, expected (D + D.T) / 2.")
    smallest = np.linalg.eigvalsh(array).min()
    if smallest <= 0:
        raise ValueError(
            f"Got {name} with an eigenvalue of {smallest:.3g}, expected positive definite "
            "matrices; add a small multiple of the identity."
        )
    if not diagonal:
        return array
    variances = np.diagonal(array, axis1=1, axis2=2)
    if np.any(array != variances[:, :, None] * np.eye(shape[1])):
        raise ValueError(
            f"Got diagonal_covariances=True and {name} with entries off the diagonal, expected "
            "diagonal matrices; set diagonal_covariances=False or give the diagonals."
        )
    return variances


def _training_settings(estimator, n_epochs: int | None = None, label="DyNeMo") -> TrainingSettings:
    """For the training itself or, with `n_epochs`, for the short one of a candidate start."""
    n_constant = annealing(estimator).n_epochs
    rate, decay = estimator.learning_rate, estimator.lr_decay

    def learning_rate(epoch: int) -> float:
        if n_epochs is not None:
            return rate
        if decay == "linear":
            return linear_decay(epoch, rate, estimator.n_epochs, n_constant)
        return exponential_decay(epoch, rate, decay, n_constant)

    return TrainingSettings(
        advice=ADVICE,
        n_epochs=n_epochs or estimator.n_epochs,
        learning_rate=learning_rate,
        gradient_clip=estimator.gradient_clip,
        n_iter_no_change=None if n_epochs else estimator.n_iter_no_change,
        tol=estimator.tol,
        first_watched_epoch=n_constant,
        verbose=estimator.verbose if n_epochs is None else max(0, estimator.verbose - 1),
        label=label,
    )


def _hold_out(
    loader: WindowLoader, estimator, random_state: np.random.RandomState
) -> tuple[WindowLoader, Windows]:
    """What to train on, and the windows for early stopping to watch.

    Where there are no windows to spare, or none are asked for, those of training are watched.
    """
    n_rows = [len(session) for session in loader.sessions]
    windows = cut_windows(n_rows, estimator.sequence_length, estimator.sequence_length)
    fraction, n_held_out = estimator.validation_fraction, 0
    # A window that overlaps another one would leave a scrap of a session behind.
    candidates = np.flatnonzero(disjoint(windows))
    if estimator.n_iter_no_change is not None and fraction is not None:
        n_held_out = min(round(fraction * len(windows)), len(candidates), len(windows) - 1)
    if n_held_out == 0:
        return loader, windows
    held_out = windows[np.sort(random_state.choice(candidates, n_held_out, replace=False))]
    rest = gaps(held_out, n_rows)
    sessions = [
        loader.sessions[session][start : start + length]
        for session, start, length in zip(rest.session, rest.start, rest.length, strict=True)
    ]
    return replace(loader, sessions=sessions), held_out


def _continues(estimator) -> bool:
    return bool(estimator.warm_start and hasattr(estimator, "network_"))


def _take_over(network: DyNeMoNetwork, fitted: DyNeMoNetwork, settings: NetworkSettings) -> None:
    if fitted.settings != settings:
        raise ValueError(
            "Got warm_start=True with a network that differs from the fitted one: expected "
            f"{fitted.settings}, got {settings}. Set warm_start=False or use a new estimator."
        )
    with torch.no_grad():
        network.load_state_dict(fitted.state_dict())


def check_scale(sessions: list[np.ndarray]) -> np.ndarray:
    """Root mean square of each channel, over all sessions.

    Parameters
    ----------
    sessions : list of ndarray of shape (n_samples, n_channels)
        The recording.

    Returns
    -------
    ndarray of shape (n_channels,)
        What each channel is divided by before it enters the network.

    Raises
    ------
    ValueError
        If a channel does not vary.
    """
    low = np.min([session.min(axis=0) for session in sessions], axis=0)
    high = np.max([session.max(axis=0) for session in sessions], axis=0)
    constant = np.flatnonzero(low == high)
    if len(constant):
        raise ValueError(
            f"Got X whose channels {constant.tolist()} do not vary, expected channels with some "
            "variance; remove them, for example with sklearn.feature_selection.VarianceThreshold."
        )
    largest = np.maximum(np.abs(low.astype(np.float64)), np.abs(high.astype(np.float64)))
    # Dividing by the largest value first keeps squares within the range of the number type.
    squares = sum(_sum_of_squares(session, largest) for session in sessions)
    return largest * np.sqrt(squares / sum(map(len, sessions)))


def _sum_of_squares(session: np.ndarray, largest: np.ndarray, n_rows: int = 2**16) -> np.ndarray:
    blocks = (session[i : i + n_rows] / largest for i in range(0, len(session), n_rows))
    return sum(np.einsum("tc,tc->c", block, block, dtype=np.float64) for block in blocks)


def make_loader(estimator, sessions: list[np.ndarray], scale: np.ndarray) -> WindowLoader:
    """What reads windows of these sessions onto the estimator's device.

    Parameters
    ----------
    estimator : DyNeMoEstimator
        Whose device is used.
    sessions : list of ndarray of shape (n_samples, n_channels)
        The recording.
    scale : ndarray of shape (n_channels,)
        What each channel is divided by.

    Returns
    -------
    WindowLoader
        The loader.
    """
    return WindowLoader(sessions, scale, check_device(estimator.device))
