"""DyNeMo as a scikit-learn estimator."""

from __future__ import annotations

import copy
import warnings
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from skdyn._sklearn import (
    CallbackSupportMixin,
    FitTask,
    HasMethods,
    Interval,
    StepWatcher,
    StrOptions,
    _fit_context,
    one_blas_thread,
)
from skdyn.core.recurrent import ACTIVATIONS, CELLS, NORMALIZATIONS
from skdyn.core.runtime import one_thread
from skdyn.core.training import Training
from skdyn.dynemo.fitting import (
    check_scale,
    fit_network,
    given_modes,
    make_loader,
    network_settings,
)
from skdyn.dynemo.inference import FittedDyNeMo
from skdyn.dynemo.initialisation import METHODS
from skdyn.dynemo.network import DyNeMoNetwork, empty_network
from skdyn.sessions import check_sessions

_COUNT = [Interval(Integral, 1, None, closed="left")]
_NOT_NEGATIVE = [Interval(Real, 0, None, closed="left")]
_POSITIVE = [Interval(Real, 0, None, closed="neither")]
_RECURRENT = {
    "rnn": [StrOptions(set(CELLS))],
    "n_layers": _COUNT,
    "n_units": _COUNT,
    "normalization": [StrOptions(set(NORMALIZATIONS)), None],
    "activation": [StrOptions(set(ACTIVATIONS)), None],
    "dropout": [Interval(Real, 0, 1, closed="left")],
}


class DyNeMoEstimator(CallbackSupportMixin, FittedDyNeMo):
    """Dynamic Network Modes: a recording as a soft mixture of modes that changes in time.

    Each row of the data is Gaussian, its mean and covariance mixtures of those of a few modes
    [1]_, eq. 1 to 3::

        x_t ~ N(sum_j alpha_tj mu_j, sum_j alpha_tj D_j),    alpha_t = softmax(theta_t / tau)

    The logits theta have a recurrent prior and are inferred by a bidirectional recurrent network.
    Both networks and the modes are trained together on the variational free energy.

    Parameters
    ----------
    n_modes : int, default=6
        Number of modes, at least 2.
    sequence_length : int, default=200
        Rows of the windows on which the recurrent networks are unrolled, at least 2. A session
        that is shorter is one window.
    inference_rnn : {"lstm", "gru"}, default="lstm"
        Recurrent layers of the inference network, which is bidirectional.
    inference_n_layers : int, default=1
        How many of them are stacked.
    inference_n_units : int, default=64
        Units of a layer, per direction.
    inference_normalization : {"layer", "batch"} or None, default="layer"
        Normalisation after each recurrent layer.
    inference_activation : {"elu", "gelu", "relu", "selu", "sigmoid", "softplus", "swish", \
            "tanh"} or None, default=None
        Activation after each normalisation.
    inference_dropout : float in [0, 1), default=0.0
        Share of the inputs and of each layer's outputs that is dropped in training.
    model_rnn : {"lstm", "gru"}, default="lstm"
        Recurrent layers of the prior.
    model_n_layers : int, default=1
        How many of them are stacked.
    model_n_units : int, default=64
        Units of a layer.
    model_normalization : {"layer", "batch"} or None, default="layer"
        As inference_normalization.
    model_activation : {"elu", "gelu", "relu", "selu", "sigmoid", "softplus", "swish", \
            "tanh"} or None, default=None
        As inference_activation.
    model_dropout : float in [0, 1), default=0.0
        As inference_dropout.
    learn_alpha_temperature : bool, default=True
        Whether tau is trained.
    initial_alpha_temperature : float, default=1.0
        Starting value of tau, positive.
    learn_means : bool, default=False
        Whether the modes' means are trained, or stay as they start.
    learn_covariances : bool, default=True
        Whether the modes' covariances are trained, or stay as they start.
    initial_means : array-like of shape (n_modes, n_channels), default=None
        Starting means, in units of X. None leaves them to init_method, or zero if not learned.
    initial_covariances : array-like of shape (n_modes, n_channels, n_channels), default=None
        Starting covariances, in squared units of X; (n_modes, n_channels) will do with
        diagonal_covariances. None leaves them to init_method.
    diagonal_covariances : bool, default=False
        Whether the modes' covariances are diagonal.
    covariances_epsilon : float, default=1e-6
        Added to the diagonal of each learned covariance, in units of the channel's mean square.
    do_kl_annealing : bool, default=True
        Whether the weight of the KL term rises from 0 to 1.
    kl_annealing_curve : {"tanh", "linear"}, default="tanh"
        Shape of the rise.
    kl_annealing_sharpness : float, default=10.0
        Steepness of the tanh.
    n_kl_annealing_epochs : int, default=None
        Epochs of the rise; None for a quarter of n_epochs.
    batch_size : int or "auto", default="auto"
        Windows per gradient step. "auto" is one 16th of the windows, but from 4 to 64.
    learning_rate : float, default=0.01
        Step size of Adam, held during KL annealing.
    lr_decay : float or "linear", default="linear"
        How the rate falls after that: "linear" to zero at the end of `n_epochs`; with a number, in
        its k-th epoch it is learning_rate * exp(-lr_decay * k).
    gradient_clip : float or None, default=0.1
        Largest norm of the gradient of each weight tensor; None for no limit.
    n_epochs : int, default=40
        Most passes over the data.
    loss_calc : {"mean", "sum"}, default="mean"
        Whether the loss of a window is the mean or the sum over its rows.
    init_method : {"simplex", "random_subset", "random"}, array-like of shape (n_modes, \
            n_channels, n_channels) or fitted DyNeMoEstimator, default="simplex"
        Where the modes start. "simplex": at the vertices of the simplex of least volume that holds
        the second moments of short windows, found by linear algebra from the windows that are
        trained on, so the same for every random_state if none are held out; where means are
        learned, those of the same vertices. "random": one draw. "random_subset": the best of
        several draws, each trained briefly. An array holds the covariances, in squared units of X,
        as does a fitted estimator, which gives its means, too, if they are learned. See Notes.
    n_init : int, default=5
        Draws that "random_subset" compares.
    n_init_epochs : int, default=2
        Epochs of each.
    init_take : float in (0, 1], default=1.0
        Share of the windows, chosen at random, on which each is trained.
    random_state : int, RandomState instance or None, default=None
        Source of all randomness. With an int, fits are identical to the bit. None takes fresh
        entropy; NumPy's global generator is not read.
    verbose : int, default=0
        0 is silent. 1 shows a progress bar with epochs, the losses of `history_` and the time that
        is left; 2 also one for what comes before the training proper.
    warm_start : bool, default=False
        Whether `fit` goes on from the fitted network, without annealing again.
    tol : float, default=1e-3
        Smallest decrease of the held-out free energy, in nats per row, that counts as progress.
    n_iter_no_change : int, default=None
        Once the KL term has its full weight, training stops after that many epochs without
        progress on held-out windows, and keeps the best weights seen. None trains for all
        `n_epochs` and holds nothing out.
    validation_fraction : float in (0, 1), default=0.1
        Share of the windows that is held out to be watched. None watches the training windows;
        so it is, too, where there are too few windows to spare one.
    device : str, default="cpu"
        Torch device that trains and infers, such as "cuda". The fitted network rests on the CPU.

    Attributes
    ----------
    means_ : ndarray of shape (n_modes, n_channels)
        Means of the modes, in units of X.
    covariances_ : ndarray of shape (n_modes, n_channels, n_channels)
        Covariances of the modes, in squared units of X.
    alpha_temperature_ : float
        Temperature tau of the softmax.
    history_ : dict of list
        Per epoch: loss, ll_loss (negative log-likelihood), kl_loss, kl_factor, learning_rate,
        seconds, and validation_loss where one is watched. In nats per row, or per window with
        loss_calc="sum", of data whose channels are divided by `channel_scale_`.
    n_iter_ : int
        Epochs that were run.
    converged_ : bool
        Whether training stopped by itself before its budget of epochs ended.
    channel_scale_ : ndarray of shape (n_channels,)
        Root mean square of each channel, by which the data are divided before they enter the
        network, so that their unit does not matter. Nothing is subtracted.
    network_ : torch.nn.Module
        The trained network, on the CPU.
    n_features_in_ : int
        Number of channels.
    feature_names_in_ : ndarray of str
        Names of the channels, where X had any.

    See Also
    --------
    skdyn.match_modes : Put the modes of several fits in one order.

    Notes
    -----
    Training cuts the sessions into windows at places that move from epoch to epoch; cut at the
    same places throughout, the networks learn the pieces by heart. Inference lets windows overlap
    by half, so that a row is inferred from at least a quarter of a window on either side of it,
    wherever the session reaches that far.

    Every `init_method` but "random" and "random_subset" also teaches the inference network,
    before the training proper, the mixing that short-window moments show with the modes that are
    found or given, for a quarter of `n_epochs`. How both are found is told in
    `skdyn.dynemo.moments`; a recording of fewer than ten rows per mode starts as by "random". Note
    that `sklearn.clone` unfits a fitted estimator given as init_method: inside a search or a
    pipeline give its `covariances_`, or wrap it in `sklearn.frozen.FrozenEstimator`.

    X has rows of time: (n_samples, n_channels), one recording. Several sessions come as labels
    per row in `sessions`, as a list of 2-D arrays, or as (n_sessions, n_samples, n_channels); the
    results have the same form. Means are zero unless they are learned: centre the channels first.

    With scikit-learn's metadata routing, `sessions` flows through pipelines, searches and
    cross-validation without being requested; only `cross_val_predict`, and before scikit-learn 1.8
    a search over a pipeline, give it to `fit` alone. So does everything without routing, where a
    pipeline takes ``dynemoestimator__sessions=``: what is then transformed, predicted or scored
    counts as one session. A halving search may have `n_epochs` as its resource; rows, drawn at
    random, would lose their order in time.

    Callbacks of scikit-learn >= 1.9 see a task "fit" with a task "epoch" per epoch, and the
    estimator as it would be if it stopped there, `history_` included. A callback that asks to stop
    after an epoch ends the training: the weights of that epoch stay, or the best ones with
    `n_iter_no_change`. Metadata of callbacks hold `sessions` where routing is enabled.

    Several processes share a fit if each calls `fit`, with the same recording and parameters, after
    `torch.distributed.init_process_group`: "gloo", or "nccl" with a GPU per process, in a script
    that torchrun starts, see examples/distributed_fit.py. Each computes its share of every batch;
    `batch_size` stays that of the whole, and more is gained if it is large. All take the random
    numbers of rank 0, and end with the same network and `history_`, but for its seconds: those of a
    single process, up to rounding. Rank 0 shows the progress; a callback of any of them ends the
    training of all. Only training is shared, and without batch normalisation; without a process
    group, or in the worker processes of a search, a fit is one process' own. Within a group a
    search must not run fits in threads: what they send would get mixed up.

    References
    ----------
    .. [1] Gohil, C., et al. (2022). Mixtures of large-scale dynamic functional brain network
       modes. NeuroImage, 263, 119595.

    Examples
    --------
    >>> from skdyn import DyNeMoEstimator
    >>> from skdyn.simulation import MixedSineMVN
    >>> simulation = MixedSineMVN(
    ...     n_samples=1000, n_modes=2, n_channels=5, relative_activation=[1, 1],
    ...     amplitudes=[3, 3], frequencies=[1, 2], sampling_frequency=250, random_state=0)
    >>> X = simulation.time_series
    >>> model = DyNeMoEstimator(
    ...     n_modes=2, n_epochs=4, random_state=0)
    >>> alpha = model.fit(X).transform(X)
    >>> alpha.shape
    (1000, 2)
    >>> model.covariances_.shape
    (2, 5, 5)
    """

    __metadata_request__fit = {"sessions": True}  # noqa: RUF012

    _parameter_constraints: dict = {  # noqa: RUF012
        "n_modes": [Interval(Integral, 2, None, closed="left")],
        "sequence_length": [Interval(Integral, 2, None, closed="left")],
        **{f"inference_{name}": allowed for name, allowed in _RECURRENT.items()},
        **{f"model_{name}": allowed for name, allowed in _RECURRENT.items()},
        "learn_alpha_temperature": ["boolean"],
        "initial_alpha_temperature": _POSITIVE,
        "learn_means": ["boolean"],
        "learn_covariances": ["boolean"],
        "initial_means": ["array-like", None],
        "initial_covariances": ["array-like", None],
        "diagonal_covariances": ["boolean"],
        "covariances_epsilon": _NOT_NEGATIVE,
        "do_kl_annealing": ["boolean"],
        "kl_annealing_curve": [StrOptions({"tanh", "linear"})],
        "kl_annealing_sharpness": _POSITIVE,
        "n_kl_annealing_epochs": [Interval(Integral, 0, None, closed="left"), None],
        "batch_size": [*_COUNT, StrOptions({"auto"})],
        "learning_rate": _POSITIVE,
        "lr_decay": [*_NOT_NEGATIVE, StrOptions({"linear"})],
        "gradient_clip": [*_POSITIVE, None],
        "n_epochs": _COUNT,
        "loss_calc": [StrOptions({"mean", "sum"})],
        "init_method": [StrOptions(set(METHODS)), "array-like", HasMethods(["fit", "transform"])],
        "n_init": _COUNT,
        "n_init_epochs": _COUNT,
        "init_take": [Interval(Real, 0, 1, closed="right")],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "tol": _NOT_NEGATIVE,
        "n_iter_no_change": [*_COUNT, None],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither"), None],
        "device": [str],
    }

    def __init__(
        self,
        n_modes=6,
        *,
        sequence_length=200,
        inference_rnn="lstm",
        inference_n_layers=1,
        inference_n_units=64,
        inference_normalization="layer",
        inference_activation=None,
        inference_dropout=0.0,
        model_rnn="lstm",
        model_n_layers=1,
        model_n_units=64,
        model_normalization="layer",
        model_activation=None,
        model_dropout=0.0,
        learn_alpha_temperature=True,
        initial_alpha_temperature=1.0,
        learn_means=False,
        learn_covariances=True,
        initial_means=None,
        initial_covariances=None,
        diagonal_covariances=False,
        covariances_epsilon=1e-6,
        do_kl_annealing=True,
        kl_annealing_curve="tanh",
        kl_annealing_sharpness=10.0,
        n_kl_annealing_epochs=None,
        batch_size="auto",
        learning_rate=0.01,
        lr_decay="linear",
        gradient_clip=0.1,
        n_epochs=40,
        loss_calc="mean",
        init_method="simplex",
        n_init=5,
        n_init_epochs=2,
        init_take=1.0,
        random_state=None,
        verbose=0,
        warm_start=False,
        tol=1e-3,
        n_iter_no_change=None,
        validation_fraction=0.1,
        device="cpu",
    ):
        self.n_modes = n_modes
        self.sequence_length = sequence_length
        self.inference_rnn = inference_rnn
        self.inference_n_layers = inference_n_layers
        self.inference_n_units = inference_n_units
        self.inference_normalization = inference_normalization
        self.inference_activation = inference_activation
        self.inference_dropout = inference_dropout
        self.model_rnn = model_rnn
        self.model_n_layers = model_n_layers
        self.model_n_units = model_n_units
        self.model_normalization = model_normalization
        self.model_activation = model_activation
        self.model_dropout = model_dropout
        self.learn_alpha_temperature = learn_alpha_temperature
        self.initial_alpha_temperature = initial_alpha_temperature
        self.learn_means = learn_means
        self.learn_covariances = learn_covariances
        self.initial_means = initial_means
        self.initial_covariances = initial_covariances
        self.diagonal_covariances = diagonal_covariances
        self.covariances_epsilon = covariances_epsilon
        self.do_kl_annealing = do_kl_annealing
        self.kl_annealing_curve = kl_annealing_curve
        self.kl_annealing_sharpness = kl_annealing_sharpness
        self.n_kl_annealing_epochs = n_kl_annealing_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.lr_decay = lr_decay
        self.gradient_clip = gradient_clip
        self.n_epochs = n_epochs
        self.loss_calc = loss_calc
        self.init_method = init_method
        self.n_init = n_init
        self.n_init_epochs = n_init_epochs
        self.init_take = init_take
        self.random_state = random_state
        self.verbose = verbose
        self.warm_start = warm_start
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.validation_fraction = validation_fraction
        self.device = device

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, *, sessions=None):
        """Learn the modes and the networks from a recording.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            The recording; rows are time.
        y : None
            Ignored.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X: a contiguous run of one label is one session.

        Returns
        -------
        DyNeMoEstimator
            The fitted estimator.

        Raises
        ------
        ValueError
            If X is not a finite, varying recording of at least n_modes rows, or parameters
            contradict each other.
        FitDivergedError
            If training gives non-finite numbers at any learning rate.
        """
        recording = check_sessions(self, X, sessions, reset=True, min_samples=max(2, self.n_modes))
        scale = check_scale(recording.arrays)
        loader = make_loader(self, recording.arrays, scale)
        task = FitTask.of(self, self.n_epochs, X, y, sessions=sessions)
        watcher = StepWatcher(task, "epoch", lambda *found: self._restored(scale, *found))
        with one_thread(), one_blas_thread():
            network, training = fit_network(self, loader, self._random_state(), watcher)
        self.__dict__.update(self._fitted(network, scale, training))
        task.end({})
        if self.n_iter_no_change is not None and not (training.converged or training.stopped):
            warnings.warn(
                f"The free energy still moved when n_epochs={self.n_epochs} ended; raise n_epochs "
                f"or tol={self.tol}, or lower n_iter_no_change={self.n_iter_no_change}.",
                ConvergenceWarning,
                stacklevel=3,  # past scikit-learn's wrapper of fit
            )
        return self

    def fit_transform(self, X, y=None, *, sessions=None):
        """Fit, then give the mixing coefficients of the same recording.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            The recording.
        y : None
            Ignored.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X.

        Returns
        -------
        ndarray of shape (n_samples, n_modes), or as X
            Mixing coefficients.
        """
        return self.fit(X, y, sessions=sessions)._alpha(X, sessions)

    def _restored(self, scale: np.ndarray, history: dict, weights: dict) -> dict:
        """What a fit would have given that had stopped at these weights."""
        network = empty_network(network_settings(self, len(scale)), torch.device("cpu"))
        network.load_state_dict(weights)
        return self._fitted(network.eval(), scale, Training(history))

    def _fitted(self, network: DyNeMoNetwork, scale: np.ndarray, training: Training) -> dict:
        means, covariances = self._modes(network, scale)
        return {
            "network_": network,
            "channel_scale_": scale,
            "means_": means,
            "covariances_": covariances,
            "alpha_temperature_": network.temperature().item(),
            "history_": training.history,
            "n_iter_": len(training.history["loss"]),
            "converged_": training.converged,
        }

    def _modes(self, network: DyNeMoNetwork, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means and full covariances in the units of the data; what was held fixed, as given."""
        network = copy.deepcopy(network).double().requires_grad_(False)
        tensor = network.mode_covariances()
        tensor = torch.diag_embed(tensor) if tensor.ndim == 2 else tensor
        covariances = tensor.numpy() * np.outer(scale, scale)
        means = network.means.numpy() * scale
        given_means, given_covariances = given_modes(self)
        if not self.learn_means and given_means is not None:
            means = np.array(given_means, dtype=np.float64)
        if not self.learn_covariances and np.ndim(given_covariances) == 3:
            covariances = np.array(given_covariances, dtype=np.float64)
        return means, covariances

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
