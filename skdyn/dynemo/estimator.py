"""DyNeMo as a scikit-learn estimator."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Bunch, check_random_state
from sklearn.utils.validation import check_is_fitted

from skdyn._callbacks import CallbackSupportMixin, FitTask, StepWatcher
from skdyn._checkpoints import CHECKPOINT_CONSTRAINTS, CheckpointMixin
from skdyn._sklearn import (
    UNUSED,
    DocumentedMixin,
    HasMethods,
    Interval,
    SessionTransformerMixin,
    StrOptions,
    fit_context,
    one_blas_thread,
)
from skdyn._warnings import warn
from skdyn.core.gaussian import sample_mixture
from skdyn.core.recurrent import ACTIVATIONS, CELLS, NORMALIZATIONS
from skdyn.core.runtime import check_device, make_generator, one_thread
from skdyn.core.training import Training
from skdyn.core.windows import WindowLoader
from skdyn.dynemo import inference
from skdyn.dynemo.network import DyNeMoNetwork, empty_network, modes_of, sample_logits
from skdyn.dynemo.recording import (
    check_orientation,
    check_scale,
    floor_of_modes,
    some_rows,
    warn_of_cells,
    warn_of_recording,
)
from skdyn.dynemo.settings import FitSettings, given_modes, make_settings
from skdyn.dynemo.start import METHODS, Start
from skdyn.dynemo.summary import summary_of
from skdyn.dynemo.training import Fit, fit_network, set_first_row
from skdyn.sessions import Sessions, check_row_weights, check_sessions

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


class DyNeMoEstimator(
    CheckpointMixin,
    CallbackSupportMixin,
    DocumentedMixin,
    ClassNamePrefixFeaturesOutMixin,
    SessionTransformerMixin,
    BaseEstimator,
):
    """Dynamic Network Modes: a recording as a soft mixture of modes that changes in time.

    Each row of the data is Gaussian, its mean and covariance mixtures of those of a few modes
    [1]_, eq. 1 to 3::

        x_t ~ N(sum_j alpha_tj mu_j, sum_j alpha_tj D_j)
        alpha_t = softmax(theta_t / tau)

    The logits theta have a recurrent prior and are inferred by a bidirectional recurrent network.
    Both networks and the modes are trained together on the evidence lower bound. The fit starts
    from modes that are found in the data, and its result is compared with that start and with a
    single Gaussian.

    Five parameters matter most: `n_modes`, `n_epochs`, `learn_means`, `sequence_length` and
    `random_state`, the first five of the list. The others follow in groups: the start of the fit,
    the modes, inference, training, early stopping, the networks, and how the fit is run.

    Parameters
    ----------
    n_modes : int, default=6
        Number of modes. One mode is a static Gaussian model, with which others can be compared.
    n_epochs : int, default=24
        Largest number of passes over the data.
    learn_means : bool, default=False
        Whether the means of the modes are trained. If not, they keep their starting values.
    sequence_length : int, default=200
        Rows of the windows on which the recurrent networks are unrolled, at least 2. A shorter
        session is one window.
    random_state : int, RandomState instance or None, default=None
        Source of all randomness. With an int, fits are identical to the bit. None takes fresh
        entropy; NumPy's global generator is not read.
    init_method : {"auto", "moments", "hmm", "random_subset", "random"}, array-like of shape \
            (n_modes, n_channels, n_channels) or fitted DyNeMoEstimator, default="auto"
        Starting modes. "moments": the vertices of the smallest simplex that holds the moments of
        short windows. "hmm": the states of a hidden Markov model, fitted by expectation
        maximisation. "auto": whichever of both has the higher bound on held-out rows, or "hmm" if
        its bound is at most .15 nats per row lower and its exact log-likelihood is above both
        bounds; `starts_` holds the bounds. From three sessions on, the held-out rows are those of
        whole sessions. All three are the same for every random_state if no windows are held out.
        "random": one draw. "random_subset": the best of several draws, each trained briefly. An
        array holds the covariances, in squared units of X. A fitted estimator provides its
        covariances and, if means are learned, its means. See Notes.
    n_init : int, default=5
        Draws that "random_subset" compares.
    n_init_epochs : int, default=2
        Epochs for which "random_subset" trains each draw.
    init_take : float in (0, 1], default=1.0
        Share of the windows, chosen at random, on which each draw is trained.
    initial_means : array-like of shape (n_modes, n_channels), default=None
        Starting means, in units of X. None leaves them to init_method, or zero if not learned.
    initial_covariances : array-like of shape (n_modes, n_channels, n_channels), default=None
        Starting covariances, in squared units of X. With diagonal_covariances the shape
        (n_modes, n_channels) is accepted. None leaves them to init_method.
    learn_covariances : bool, default=True
        Whether the covariances of the modes are trained. If not, they keep their starting values.
    diagonal_covariances : bool, default=False
        Whether the covariances of the modes are diagonal.
    covariances_epsilon : float or "auto", default="auto"
        Added to the diagonal of each learned covariance, in units of the channel's mean square.
        "auto" takes a thousandth of the recording's least variance in any direction, or a tenth of
        the least above directions that are empty or hold white noise alone; from 1e-6 to 1e-2.
    n_refinement_steps : int, default=30
        Gradient steps by which `transform`, `predict` and `score` improve the posterior of the
        inference network, on the evidence lower bound of the given recording; modes and prior are
        fixed. It matters most for sessions that were not in the training data. 0 uses the
        posterior of the inference network.
    batch_size : int or "auto", default="auto"
        Windows per gradient step. "auto" is a 16th of the windows, but at least 4 and at most 64.
    learning_rate : float, default=0.01
        Step size of Adam, constant during KL annealing.
    lr_decay : float or "linear", default="linear"
        Learning-rate schedule after annealing. "linear" falls to zero at the end of `n_epochs`.
        With a number, the rate in the k-th epoch is learning_rate * exp(-lr_decay * k).
    gradient_clip : float or None, default=0.1
        Largest norm of the gradient of each weight tensor; None for no limit.
    loss_calc : {"mean", "sum"}, default="mean"
        Whether the loss is the mean over rows or the sum over the rows of a window.
    do_kl_annealing : bool, default=False
        Whether the weight of the KL term rises from 0 to 1. With a start from the data it has full
        weight from the beginning, because annealing loses modes that differ little.
    kl_annealing_curve : {"tanh", "linear"}, default="tanh"
        Shape of the rise.
    kl_annealing_sharpness : float, default=10.0
        Steepness of the tanh.
    n_kl_annealing_epochs : int, default=None
        Epochs of the rise; None for a quarter of n_epochs.
    n_iter_no_change : int, default=None
        Number of epochs without progress on held-out windows after which training stops and keeps
        the best weights, once the KL term has its full weight. None trains for all `n_epochs` and
        holds nothing out.
    tol : float, default=1e-3
        Smallest decrease of the held-out free energy, in nats per row, that counts as progress.
    validation_fraction : float in (0, 1), default=0.1
        Share of the windows that is held out for early stopping. With None, or with too few
        windows to hold one out, the training windows are watched.
    inference_rnn : {"lstm", "gru"}, default="lstm"
        Recurrent layers of the inference network, which is bidirectional.
    inference_n_layers : int, default=1
        Number of stacked layers.
    inference_n_units : int, default=32
        Units of a layer, per direction.
    inference_normalization : {"layer", "batch"} or None, default="layer"
        Normalisation after each recurrent layer.
    inference_activation : {"elu", "gelu", "relu", "selu", "sigmoid", "softplus", "swish", \
            "tanh"} or None, default=None
        Activation after each normalisation.
    inference_dropout : float in [0, 1), default=0.0
        Share of the inputs and of the outputs of each layer that is dropped in training.
    model_rnn : {"lstm", "gru"}, default="lstm"
        Recurrent layers of the prior.
    model_n_layers : int, default=1
        Number of stacked layers.
    model_n_units : int, default=32
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
    device : str, default="cpu"
        Torch device for training and inference, such as "cuda". The fitted network is kept on the
        CPU.
    verbose : int, default=0
        0 is silent. 1 shows a progress bar with epochs, the losses of `history_` and the remaining
        time; 2 also shows one for the start.
    warm_start : bool, default=False
        Whether `fit` continues from the fitted network: at a tenth of the learning rate, without
        annealing, and with the channel scales of the first fit.
    checkpoint : str or path-like, default=None
        Folder to which the state of the fit is written. If the same fit is called again after an
        interrupt, it continues from there and ends with the same bits; a fit that has ended is
        loaded. A fit of other data or parameters is refused, except for fits of clones, such as
        those of a search, which share a folder. With random_state=None, a fit that has ended leaves
        no files. None writes nothing.
    checkpoint_every : int, default=1
        Epochs between two states.

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
        Number of epochs that were run.
    converged_ : bool
        Whether training stopped before `n_epochs`, because of `n_iter_no_change`.
    channel_center_ : ndarray of shape (n_channels,)
        Number that is subtracted from each channel before it enters the network: its mean if means
        are learned, else zero.
    channel_scale_ : ndarray of shape (n_channels,)
        Number that each channel is then divided by: its root mean square about `channel_center_`.
    starts_ : dict of float
        Evidence lower bound of each start that was compared, in nats per held-out row of scaled
        data. The chosen start comes first, though its bound may be lower (see `init_method`); NaN
        if nothing was compared.
    problem_ : str
        Problem of the fit, and the first thing to try, as in the warning of `fit`. Empty if there
        is none.
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
    Training cuts the sessions into windows at places that move from epoch to epoch; with fixed
    windows the networks overfit to where they are cut. In inference, windows overlap by half, so
    that at least a quarter of a window on either side of a row is used, unless the session ends.

    Every `init_method` except "random" and "random_subset" also provides mixing coefficients, to
    which both networks are pretrained. A recording of fewer than ten rows per mode starts from a
    random draw. After training, the bound of some rows is compared with that of the start, and the
    better one is kept. `fit` then warns (`problem_`) if the mixing coefficients hardly change or
    differ mainly between sessions, a mode has hardly any weight, or the bound is not above the
    log-likelihood of one Gaussian. Rows of a stationary process that are correlated in time pass
    these checks: compare with surrogates of `skdyn.simulation.phase_randomized`. In a search or a
    pipeline, `sklearn.clone` removes the fit of an estimator that is passed as init_method: pass
    its `covariances_`, or wrap it in `sklearn.frozen.FrozenEstimator`.

    Departures from osl-dynamics, and their reasons:

    ==========================  ==============================  ==============================
    osl-dynamics                here                            because
    ==========================  ==============================  ==============================
    posterior rows independent  first-order autoregressive      near modes are lost: each row
                                about a smoothed mean           would pay for noise
    encoder sees rows           and their density's derivative  the evidence for a mode is a
                                towards each mode               quadratic form of the channels
    prior from the network      part of the last theta is kept  slow mixing is the usual case
    random modes, several runs  moments or hidden Markov        seeds agree, and modes that
                                model, judged on held-out rows  differ little are found
    KL annealing                none, networks pretrained       annealing loses the start
    windows at fixed places     moved from epoch to epoch       networks overfit to the places
    encoder's posterior as is   refined on the recording        sessions not trained on
    free energy at E theta      bound by draws of theta, with   the former is no bound; it is
                                a prior of the first row        ``free_energy(X, at="mean")``
    data as they are            divided by root mean squares    units do not matter
    ==========================  ==============================  ==============================

    Rows of X are time. A 2-D X of shape (n_samples, n_channels) is one recording. Several sessions
    are passed as labels per row in `sessions`, as a list of 2-D arrays, or as an array of shape
    (n_sessions, n_samples, n_channels); results have the same form. Means are zero unless they are
    learned, so centre the channels first.

    With scikit-learn's metadata routing enabled, `sessions` reaches this estimator in pipelines,
    searches and cross-validation without a request. Two exceptions pass it to `fit` alone:
    `cross_val_predict`, and before scikit-learn 1.8 a search over a pipeline. Without routing, it
    always reaches `fit` alone (in a pipeline as ``dynemoestimator__sessions=``), and data that are
    transformed, predicted or scored count as one session. The resource of a halving search should
    be `n_epochs`, because rows that are drawn at random lose their order in time.

    Callbacks of scikit-learn >= 1.9 receive a task "fit" with a task "epoch" for each epoch. They
    see the estimator as if training had stopped there, `history_` included, before the comparison
    with the start. If a callback requests a stop, training ends with the weights of that epoch, or
    with the best ones if `n_iter_no_change` is set. Such a fit does not warn; see `problem_`. The
    metadata of callbacks hold `sessions` if routing is enabled.

    Several processes share a fit if each calls `fit` with the same recording and parameters after
    `torch.distributed.init_process_group` ("gloo", or "nccl" with a GPU per process), in a script
    that torchrun starts; see examples/distributed_fit.py. Each process computes its share of every
    batch. `batch_size` is that of all processes together; large batches gain more. All processes
    use the random numbers of rank 0 and end with the same network and `history_` as a single
    process, up to rounding and seconds. Rank 0 shows the progress, and a callback of any process
    ends the training of all. Only training is shared, and batch normalisation is refused. Without a
    process group, and in the worker processes of a search, each process fits alone. Within a group,
    do not run fits of a search in threads, because their messages would be mixed up.

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
    __metadata_request__transform = {"sessions": True, "out": UNUSED}  # noqa: RUF012
    __metadata_request__predict = {"sessions": True}  # noqa: RUF012
    __metadata_request__score = {"sessions": True}  # noqa: RUF012

    _parameter_constraints: dict = {  # noqa: RUF012
        "n_modes": [Interval(Integral, 1, None, closed="left")],
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
        "covariances_epsilon": [*_NOT_NEGATIVE, StrOptions({"auto"})],
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
        "init_method": [
            StrOptions({"auto", "random", "random_subset", *METHODS}),
            "array-like",
            HasMethods(["fit", "transform"]),
        ],
        "n_refinement_steps": [Interval(Integral, 0, None, closed="left")],
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
        **CHECKPOINT_CONSTRAINTS,
    }

    def __init__(
        self,
        n_modes=6,
        *,
        n_epochs=24,
        learn_means=False,
        sequence_length=200,
        random_state=None,
        init_method="auto",
        n_init=5,
        n_init_epochs=2,
        init_take=1.0,
        initial_means=None,
        initial_covariances=None,
        learn_covariances=True,
        diagonal_covariances=False,
        covariances_epsilon="auto",
        n_refinement_steps=30,
        batch_size="auto",
        learning_rate=0.01,
        lr_decay="linear",
        gradient_clip=0.1,
        loss_calc="mean",
        do_kl_annealing=False,
        kl_annealing_curve="tanh",
        kl_annealing_sharpness=10.0,
        n_kl_annealing_epochs=None,
        n_iter_no_change=None,
        tol=1e-3,
        validation_fraction=0.1,
        inference_rnn="lstm",
        inference_n_layers=1,
        inference_n_units=32,
        inference_normalization="layer",
        inference_activation=None,
        inference_dropout=0.0,
        model_rnn="lstm",
        model_n_layers=1,
        model_n_units=32,
        model_normalization="layer",
        model_activation=None,
        model_dropout=0.0,
        learn_alpha_temperature=True,
        initial_alpha_temperature=1.0,
        device="cpu",
        verbose=0,
        warm_start=False,
        checkpoint=None,
        checkpoint_every=1,
    ):
        self.n_modes = n_modes
        self.n_epochs = n_epochs
        self.learn_means = learn_means
        self.sequence_length = sequence_length
        self.random_state = random_state
        self.init_method = init_method
        self.n_init = n_init
        self.n_init_epochs = n_init_epochs
        self.init_take = init_take
        self.initial_means = initial_means
        self.initial_covariances = initial_covariances
        self.learn_covariances = learn_covariances
        self.diagonal_covariances = diagonal_covariances
        self.covariances_epsilon = covariances_epsilon
        self.n_refinement_steps = n_refinement_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.lr_decay = lr_decay
        self.gradient_clip = gradient_clip
        self.loss_calc = loss_calc
        self.do_kl_annealing = do_kl_annealing
        self.kl_annealing_curve = kl_annealing_curve
        self.kl_annealing_sharpness = kl_annealing_sharpness
        self.n_kl_annealing_epochs = n_kl_annealing_epochs
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.validation_fraction = validation_fraction
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
        self.device = device
        self.verbose = verbose
        self.warm_start = warm_start
        self.checkpoint = checkpoint
        self.checkpoint_every = checkpoint_every

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, *, sessions=None, sample_weight=None):
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
        sample_weight : array-like of shape (n_samples,), or in the form of X, default=None
            Weight of each row, at least 0. A row of weight 0 does not count, and the networks see
            zeros instead of it.

        Returns
        -------
        DyNeMoEstimator
            The fitted estimator.

        Raises
        ------
        ValueError
            If X is not a finite, varying recording of at least n_modes rows and as many rows as
            channels, or parameters contradict each other.
        FitDivergedError
            If training gives non-finite numbers at any learning rate.

        Warns
        -----
        UserWarning
            If the recording has offsets, gains or artefacts that modes would describe, or a
            checkpoint is damaged.
        ConvergenceWarning
            If the fit has a problem, see `problem_`.
        """
        recording = check_sessions(self, X, sessions, reset=True, min_samples=max(2, self.n_modes))
        check_orientation(recording.arrays)
        weights = check_row_weights(recording, sample_weight)
        previous = self._previous()
        center, scale, settings = self._settings(recording, weights, previous)
        loader = self._loader(recording, center, scale, weights)
        task = FitTask.of(self, self.n_epochs, X, y, sessions=sessions, sample_weight=sample_weight)
        earlier = self.history_ if previous else {}

        def restored(history: dict, weights: dict) -> dict:
            network = empty_network(settings.network, torch.device("cpu"))
            network.load_state_dict(weights)
            network.eval().to(loader.device)
            with one_thread():
                set_first_row(network, loader, settings.sequence_length)
            fit = Fit(network.cpu(), Training(history), Start(""))
            return self._fitted(fit, center, scale, earlier)

        checkpoint = self._open_checkpoint(
            previous and previous.network, X=recording.arrays, sample_weight=weights
        )
        keep = self.warm_start or checkpoint is not None
        watcher = StepWatcher(task, "epoch", restored, keep_last=keep)
        with one_thread(), one_blas_thread(), watcher.kept():
            random_state = self._random_state()
            fit = fit_network(settings, loader, random_state, watcher, previous, checkpoint)
        self.__dict__.update(self._fitted(fit, center, scale, earlier))
        self._close_checkpoint(checkpoint)
        task.end({})
        self._warn(fit)
        return self

    def _previous(self) -> Fit | None:
        """The fit that a warm start continues, or None."""
        if not (self.warm_start and hasattr(self, "network_")):
            return None
        return Fit(self.network_, Training(self.history_), Start("", others=self.starts_))

    def _settings(
        self, recording: Sessions, weights: list[np.ndarray] | None, previous: Fit | None
    ) -> tuple[np.ndarray, np.ndarray, FitSettings]:
        """Shift and scale of the channels, and the settings that go with them."""
        counted = recording.arrays
        if weights is not None:
            pairs = zip(counted, weights, strict=True)
            counted = [array[weight > 0] for array, weight in pairs if np.any(weight > 0)]
        if previous is None:
            center, scale = check_scale(counted, centred=self.learn_means)
        else:
            # Weights are relative to the scale of the first fit.
            center, scale = self.channel_center_, self.channel_scale_
        rows = some_rows(counted, center, scale)
        warn_of_recording(rows, learn_means=self.learn_means)
        warn_of_cells({self.inference_rnn, self.model_rnn}, self.device)
        epsilon = self.covariances_epsilon
        if epsilon == "auto":
            fitted = None if previous is None else self.network_.settings
            epsilon = floor_of_modes(rows) if fitted is None else fitted.covariances_epsilon
        return center, scale, make_settings(self.get_params(deep=False), center, scale, epsilon)

    def _loader(
        self,
        recording: Sessions,
        center: np.ndarray,
        scale: np.ndarray,
        weights: list[np.ndarray] | None = None,
    ) -> WindowLoader:
        return WindowLoader(recording.arrays, scale, check_device(self.device), center, weights)

    def _fitted(
        self, fit: Fit, center: np.ndarray, scale: np.ndarray, earlier: dict[str, list]
    ) -> dict:
        """Fitted attributes, by name."""
        history = {
            name: [*earlier.get(name, []), *values] for name, values in fit.training.history.items()
        }
        means, covariances = self._modes(fit.network, center, scale, is_new=not earlier)
        own = {} if not fit.start.name else {fit.start.name: fit.start.bound}
        return {
            "network_": fit.network,
            "channel_center_": center,
            "channel_scale_": scale,
            "means_": means,
            "covariances_": covariances,
            "alpha_temperature_": fit.network.temperature().item(),
            "history_": history,
            "starts_": own | fit.start.others,
            "problem_": fit.problem,
            "n_iter_": len(history.get("loss", [])),
            "converged_": fit.training.converged,
        }

    def _modes(
        self, network: DyNeMoNetwork, center: np.ndarray, scale: np.ndarray, *, is_new: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Means and full covariances in the units of the data; those held fixed, as given."""
        means, covariances = modes_of(network, center, scale)
        # In double precision; a warm start keeps those that the network has.
        given_means, given_covariances = given_modes(self.get_params(deep=False))
        if not self.learn_means:
            if not is_new:
                means = self.means_
            elif given_means is not None:
                means = np.array(given_means, dtype=np.float64)
        if not self.learn_covariances:
            if not is_new:
                covariances = self.covariances_
            elif np.ndim(given_covariances) == 3:
                covariances = np.array(given_covariances, dtype=np.float64)
        return means, covariances

    def _warn(self, fit: Fit) -> None:
        training = fit.training
        if training.stopped:  # on request; `problem_` and `summary` report what is wrong
            return
        messages = [f"{fit.problem}."] if fit.problem else []
        if self.n_iter_no_change is not None and not training.converged:
            messages.append(
                f"The free energy still moved when n_epochs={self.n_epochs} ended; raise n_epochs "
                f"or tol={self.tol}, or lower n_iter_no_change={self.n_iter_no_change}."
            )
        for message in messages:
            warn(message, ConvergenceWarning)

    def fit_transform(self, X, y=None, *, sessions=None, sample_weight=None):
        """Fit, then return the mixing coefficients of the same recording.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            The recording.
        y : None
            Ignored.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X.
        sample_weight : array-like of shape (n_samples,), or in the form of X, default=None
            Weight of each row, as in `fit`; it is used for the mixing coefficients, too.

        Returns
        -------
        ndarray of shape (n_samples, n_modes), or as X
            Mixing coefficients.
        """
        self.fit(X, y, sessions=sessions, sample_weight=sample_weight)
        return self._alpha(X, sessions, sample_weight)

    def transform(self, X, *, sessions=None, out=None):
        """Infer mixing coefficients: how much of each mode there is in each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            The recording.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X.

        out : ndarray of float, or list of such, default=None
            Array or memory map that the coefficients are written to, in the form of X, for
            recordings that are larger than memory. None makes new arrays.

        Returns
        -------
        ndarray of shape (n_samples, n_modes), or as X
            Non-negative, each row summing to one; at the posterior mean of theta. `out` if it was
            given.
        """
        return self._alpha(X, sessions, out=out)

    def draw_alpha(self, X, *, sessions=None, n_draws=1, random_state=0):
        """Draw mixing coefficients from their posterior.

        `transform` returns alpha at the posterior mean of theta, which varies less than alpha. For
        posterior expectations of a function of alpha, average that function over draws.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            The recording.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X.
        n_draws : int, default=1
            Number of draws, each a path through a whole session.
        random_state : int or RandomState instance, default=0
            Source of the draws; with an int, the result is the same every time.

        Returns
        -------
        ndarray of shape (n_draws, n_samples, n_modes), list of such, or ndarray of shape \
                (n_draws, n_sessions, n_samples, n_modes)
            Non-negative, each row summing to one.
        """
        _check_draws(n_draws)
        recording, inferred = self._infer(X, sessions)
        random_state = check_random_state(random_state)
        first_state, draws = random_state.get_state(), []
        for loader, posterior in inferred:
            random_state.set_state(first_state)  # the same for each session
            with one_thread():
                draws += inference.draw_mixing(
                    self._network(loader), posterior, random_state, int(n_draws)
                )
        if recording.container == "list":
            return draws
        return np.stack([recording.like_input(list(one)) for one in zip(*draws, strict=True)])

    def predict(self, X, *, sessions=None):
        """Find the mode of largest weight in each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            The recording.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X.

        Returns
        -------
        ndarray of int of shape (n_samples,), or as X
            Numbers of modes.
        """
        recording, inferred = self._infer(X, sessions)
        return recording.like_input(
            [one.argmax(axis=1) for pair in inferred for one in self._mixing(*pair)]
        )

    def _mixing(self, loader: WindowLoader, posterior: inference.Posterior) -> list[np.ndarray]:
        with one_thread():
            return inference.mixing(self._network(loader), posterior)

    def evidence(
        self,
        X,
        *,
        sessions=None,
        sample_weight=None,
        n_draws=4,
        importance_weighted=False,
        random_state=0,
    ):
        """Compute the evidence lower bound and its standard error.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            The recording.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X.
        sample_weight : array-like of shape (n_samples,), or in the form of X, default=None
            Weight of each row. Those of weight 0 do not count, and the networks see zeros instead.
        n_draws : int, default=4
            Draws of theta from the posterior, each a path through a whole session.
        importance_weighted : bool, default=False
            Whether the bound of a session is the logarithm of the mean importance weight of its
            draws (Burda, Grosse and Salakhutdinov, 2016), which is tighter the more draws there
            are, instead of the mean of their bounds.
        random_state : int or RandomState instance, default=0
            Source of the draws; with an int, the result is the same every time.

        Returns
        -------
        sklearn.utils.Bunch
            `score`, the weighted mean over rows in nats per row; `standard_error`, that of the mean
            over draws, NaN for a single draw; `draws`, ndarray of shape (n_draws,), the score by
            each draw alone; `samples`, the bound of each row, in the form of X. With
            `importance_weighted`, a row adds to that of the rows before it.

        Notes
        -----
        The bound of a row is log p(x_t | theta_t) - KL[q(theta_t | theta_t-1) || p(theta_t |
        theta_<t)] at a draw of theta. The first row of a session has the prior N(m, s^2) with the
        mean and the variance that theta has over the recording that was fitted. The sum over the
        rows of a session is, in expectation, below its log-evidence.
        """
        _check_draws(n_draws)
        n_draws = int(n_draws)
        weights = None
        if sample_weight is not None:
            recording = check_sessions(self, X, sessions, reset=False)
            weights = np.concatenate(check_row_weights(recording, sample_weight) or [])
        recording, inferred = self._infer(X, sessions, sample_weight)
        rng = check_random_state(random_state)
        first_state, samples, sums = rng.get_state(), [], np.zeros(n_draws)
        compute = inference.log_weights if importance_weighted else inference.lower_bounds
        jacobian = np.log(self.channel_scale_).sum()
        for loader, posterior in inferred:
            rng.set_state(first_state)  # the same for each session
            with one_thread():
                terms = compute(
                    self._network(loader), loader, posterior, self.sequence_length, rng, n_draws
                )
            _check_density(terms)
            terms = [one - jacobian for one in terms]
            samples += inference.over_draws(terms, importance_weighted=importance_weighted)
            own = loader.weights or [1.0] * len(terms)
            sums += sum((one * w).sum(axis=1) for one, w in zip(terms, own, strict=True))
        total = recording.n_samples if weights is None else weights.sum()
        draws = sums / total
        spread = draws.std(ddof=1) / np.sqrt(n_draws) if n_draws > 1 else np.nan
        return Bunch(
            score=float(np.average(np.concatenate(samples), weights=weights)),
            standard_error=float(spread),
            draws=draws,
            samples=recording.like_input(samples),
        )

    def score_samples(
        self, X, *, sessions=None, n_draws=4, importance_weighted=False, random_state=0
    ):
        """Compute the evidence lower bound of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            The recording.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X.
        n_draws : int, default=4
            Draws of theta.
        importance_weighted : bool, default=False
            Whether the draws of a session are weighted by importance, as in `evidence`.
        random_state : int or RandomState instance, default=0
            Source of the draws; with an int, the result is the same every time.

        Returns
        -------
        ndarray of shape (n_samples,), or as X
            Nats, see `evidence`; their sum over a session is a lower bound of its log-evidence.
        """
        return self.evidence(
            X,
            sessions=sessions,
            n_draws=n_draws,
            importance_weighted=importance_weighted,
            random_state=random_state,
        ).samples

    def score(
        self,
        X,
        y=None,
        *,
        sessions=None,
        sample_weight=None,
        n_draws=4,
        importance_weighted=False,
        random_state=0,
    ):
        """Compute the mean evidence lower bound per row; higher is better.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            The recording.
        y : None
            Ignored.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X. Without them, X counts as one session.
        sample_weight : array-like of shape (n_samples,), or in the form of X, default=None
            Weight of each row. Those of weight 0 do not count, and the networks see zeros instead.
        n_draws : int, default=4
            Draws of theta.
        importance_weighted : bool, default=False
            Whether the draws of a session are weighted by importance, as in `evidence`.
        random_state : int or RandomState instance, default=0
            Source of the draws; with an int, the result is the same every time.

        Returns
        -------
        float
            In nats per row, see `evidence`.
        """
        return self.evidence(
            X,
            sessions=sessions,
            sample_weight=sample_weight,
            n_draws=n_draws,
            importance_weighted=importance_weighted,
            random_state=random_state,
        ).score

    def free_energy(self, X, *, sessions=None, at="draw"):
        """Compute the variational free energy per row; lower is better.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            The recording.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X.
        at : {"draw", "mean"}, default="draw"
            "draw": the negative of `score`. "mean": with theta at its posterior mean and without a
            prior of the first row, as osl-dynamics reports it. This is lower, by more the more
            modes there are, and no bound.

        Returns
        -------
        float
            In nats per row.
        """
        if at == "draw":
            return -self.score(X, sessions=sessions)
        if at != "mean":
            raise ValueError(f"at is {at!r}, but 'draw' or 'mean' was expected.")
        bounds = []
        for loader, posterior in self._infer(X, sessions)[1]:
            with one_thread():
                bounds += inference.bounds_at_mean(
                    self._network(loader), loader, posterior, self.sequence_length
                )
        return float(np.log(self.channel_scale_).sum() - np.concatenate(bounds).mean())

    def sample(self, n_samples=1, *, random_state=None):
        """Draw a recording from the fitted model.

        theta follows the prior network from step to step, alpha is its softmax, and each row is
        drawn from the mixture. The first `sequence_length` steps are discarded.

        Parameters
        ----------
        n_samples : int, default=1
            Rows.
        random_state : int, RandomState instance or None, default=None
            Source of randomness; None takes the estimator's own `random_state`.

        Returns
        -------
        X : ndarray of shape (n_samples, n_channels)
            The recording.
        alpha : ndarray of shape (n_samples, n_modes)
            Its mixing coefficients.
        """
        check_is_fitted(self)
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(
                f"n_samples is {n_samples!r}, but an integer of at least 1 was expected."
            )
        generator = make_generator(self._random_state(random_state), torch.device("cpu"))
        with one_thread(), torch.no_grad():
            theta = sample_logits(self.network_, int(n_samples), self.sequence_length, generator)
            alpha = self.network_.mixing(theta).double()
            X = sample_mixture(
                alpha,
                torch.from_numpy(self.means_),
                torch.from_numpy(self.covariances_),
                generator,
            )
        return X.numpy(), alpha.numpy()

    def summary(self):
        """Describe the fitted model.

        Returns
        -------
        str
            One line per part: data, networks, training, and each mode's share of the variance.
        """
        check_is_fitted(self)
        return summary_of(self.get_params(deep=False), vars(self))

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        if hasattr(self, "network_"):
            self.network_.check_attributes(vars(self))

    @property
    def _n_features_out(self) -> int:
        return self.n_modes

    def _random_state(self, random_state=None) -> np.random.RandomState:
        given = self.random_state if random_state is None else random_state
        return np.random.RandomState() if given is None else check_random_state(given)

    def _network(self, loader: WindowLoader) -> DyNeMoNetwork:
        """The network, where the loader sends the data."""
        if loader.device.type == "cpu":
            return self.network_
        return copy.deepcopy(self.network_).to(loader.device)

    def _alpha(self, X, sessions, sample_weight=None, out=None):
        recording, inferred = self._infer(X, sessions, sample_weight)
        single = all(array.dtype == np.float32 for array in recording.arrays)
        dtype = np.float32 if single else np.float64
        writer = recording.writer(out)
        for pair in inferred:
            for alpha in self._mixing(*pair):
                writer.put(alpha.astype(dtype))
        return writer.done()

    def _infer(self, X, sessions, sample_weight=None):
        """A recording, and an iterator over groups of its sessions with their posterior."""
        check_is_fitted(self)
        recording = check_sessions(self, X, sessions, reset=False)
        return recording, self._posteriors(recording, check_row_weights(recording, sample_weight))

    def _posteriors(
        self, recording: Sessions, weights: list[np.ndarray] | None
    ) -> Iterator[tuple[WindowLoader, inference.Posterior]]:
        for group in inference.groups_of([len(array) for array in recording.arrays]):
            some = Sessions(recording.arrays[group], recording.container)
            own = None if weights is None else weights[group]
            loader = self._loader(some, self.channel_center_, self.channel_scale_, own)
            network = self._network(loader)
            with one_thread():
                posterior = inference.encode(network, loader, self.sequence_length)
                posterior = inference.refine(
                    network, loader, posterior, self.sequence_length, self.n_refinement_steps
                )
            _check_density(posterior.mean)
            yield loader, posterior


def _check_draws(n_draws) -> None:
    if not isinstance(n_draws, Integral) or n_draws < 1:
        raise ValueError(f"n_draws is {n_draws!r}, but an integer of at least 1 was expected.")


def _check_density(values: list[np.ndarray]) -> None:
    if not all(np.isfinite(one).all() for one in values):
        raise ValueError(
            "X or sample_weight has values so large that the density under the fitted modes is out "
            "of the range of floats. Use the units of the recording that was fitted."
        )
