"""The encoding model as a scikit-learn estimator."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_is_fitted

from skdyn._callbacks import CallbackSupportMixin, FitTask, StepWatcher
from skdyn._checkpoints import CHECKPOINT_CONSTRAINTS, CheckpointMixin
from skdyn._sklearn import (
    UNUSED,
    BaseComposition,
    DocumentedMixin,
    fit_context,
)
from skdyn.core.distributed import any_process, is_first, n_processes, start_together
from skdyn.core.runtime import check_device, one_thread
from skdyn.core.training import Watcher
from skdyn.nems.distributions import as_generator
from skdyn.nems.fitting.objective import Objective
from skdyn.nems.fitting.results import FitResults, Solver
from skdyn.nems.fitting.run import (
    CONSTRAINTS,
    Observer,
    fit_trials,
    make_random_state,
    make_solver,
)
from skdyn.nems.fitting.trials import Trial, make_trial, output_in_pieces
from skdyn.nems.keywords import from_keywords
from skdyn.nems.layers.base import Layer
from skdyn.nems.losses import make_loss
from skdyn.nems.model import INPUT, RESPONSE, STATE, Model
from skdyn.sessions import (
    Sessions,
    all_finite,
    check_sessions,
    check_targets,
    check_weights,
    like_sessions,
    refuse_objects,
)

# A linear map of each row; a default number of lags would depend on the sampling rate.
DEFAULT_LAYERS = "wc-lvl"

# Metadata routed through pipelines and searches by default if metadata routing is enabled.
ROUTED = {"sessions": True, "state": True, "streams": True}


class NEMSRegressor(
    CheckpointMixin, CallbackSupportMixin, DocumentedMixin, RegressorMixin, BaseComposition
):
    """Neural encoding model that predicts a response from a stimulus with a stack of layers.

    Parameters
    ----------
    layers : str, Layer, list of Layer, list of (str, Layer) or None, default=None
        The model, from the stimulus to the response: words such as "wc.18x3-fir.15x3-lvl.1-dexp.1",
        a layer, a list of layers, or a list of (name, layer) pairs, whose parameters a search can
        set (`filter__shape`). Omitted sizes, as in "wc.x3-fir.15-lvl-dexp", are inferred from X and
        y, for any number of outputs. None is "wc-lvl", a linear map of each row without memory.
    loss : {"squared_error", "poisson"}, Loss or callable, default="squared_error"
        The loss to minimise: the mean squared error; the negative log-likelihood of Poisson counts;
        a `skdyn.nems.Loss`; or a function of response, prediction and weight, tensors of shape
        (n_trials, n_samples, n_outputs), that returns the mean loss.
    solver : {"lbfgs", "adam", "proximal"} or Solver, default="lbfgs"
        "lbfgs" is a bounded quasi-Newton method on all data, in double precision. "adam" is
        stochastic gradient descent on batches of windows, for recordings or models that are too
        large for "lbfgs". "proximal" is a proximal quasi-Newton method for layers with the
        penalties `L1` and `GroupL1`.
    alpha : float or array-like of shape (n_outputs,), default=0.0
        Weight of the penalty of each output, in units of its loss: alpha / 2 times the sum of
        squares of the penalised parameters that the output depends on. The coefficients of filters
        and channels, kappa of `DoubleExponential`, and all parameters of custom layers are
        penalised. The `l2` of a layer replaces alpha for that layer; its `penalties` are added.
    init : {"auto", "two_stage", "given", "prior_mean", "prior_sample"}, default="auto"
        Initial values of the fit. "auto" estimates filters from the data and matches the
        nonlinearities to them; "two_stage" first fits the model with its final nonlinearities
        skipped; "given" uses the current values of the layers; "prior_mean" uses the means of the
        priors; "prior_sample" draws from the priors. Frozen parameters keep their values. Filters,
        ranks or hidden units with equal values get small differences, because a fit could not
        separate them.
    n_init : int, default=1
        Number of fits with different initial values; the best one is kept. With "auto" and
        "two_stage", every fit after the first starts at other hidden units, chosen from random
        halves of the candidates or, if a model has no hidden units, at kernels drawn from the
        priors and scaled to the data. With other values of `init` it starts at a draw from the
        priors.
    n_jobs : int, default=None
        Number of the `n_init` fits that run in parallel, each in its own process; -1 uses all
        cores. None is 1, unless in a `joblib.parallel_config`. Results are bit-identical to those
        of one process. Callbacks receive each start as a whole, in order, after all have ended.
    max_iter : int, default=1000
        Maximum number of iterations of "lbfgs", or of epochs of "adam".
    tol : float, default=2e-6
        Tolerance, relative to the loss of predicting the mean, or to the mean count for "poisson".
        With "lbfgs", the fit stops once the loss falls by less than `tol` per iteration, averaged
        over five iterations. With "adam", an epoch counts as progress if the loss falls by more.
    early_stopping : bool, default=False
        Whether to hold out segments of the recording and to stop once the loss on them no longer
        improves. The parameters of the best iteration are kept.
    validation_fraction : float in (0, 1), default=0.1
        Fraction of the rows that is held out, in random segments of a 20th of all rows. The
        held-out stimulus still serves as history of the rows after it.
    n_iter_no_change : int, default=10
        Iterations or epochs without progress after which the fit ends, with `early_stopping` or
        "adam".
    batch_size : int or "auto", default="auto"
        Number of windows of 256 rows in each step of "adam"; "auto" is an eighth of all windows,
        between 1 and 64.
    learning_rate : float, default=0.01
        Initial step size of "adam", relative to the change of a parameter that affects the
        predictions; it decays to zero over `max_iter` epochs.
    history : {"skip", "zeros"}, default="skip"
        Treatment of the rows at the start of a session that depend on earlier rows which were not
        passed as `preceding`. "skip" excludes them from fits and scores, which suits a recording
        that was cut; "zeros" pads the stimulus with zeros and includes them, which suits a stimulus
        that begins in silence. Predictions use zero padding in either case.
    random_state : int, RandomState instance or None, default=None
        Source of draws from the priors, of held-out segments and of batches. With an int, fits are
        bit-identical. None uses fresh entropy, not NumPy's global generator.
    device : str, default="cpu"
        Torch device that computes gradients, such as "cuda".
    verbose : int, default=0
        0 is silent. 1 shows progress: with "lbfgs" the loss of every 25th iteration and the end,
        with "adam" a progress bar with epochs, losses and the remaining time.
    warm_start : bool, default=False
        Whether `fit` continues from the values of the fitted model.
    checkpoint : str or path-like, default=None
        Folder to which the state of the fit is written. An interrupted or killed fit that is called
        again continues from there and ends with bit-identical results; a finished fit is loaded. A
        fit of other data or parameters raises an error, unless it is that of a clone, such as in a
        search: clones share a folder. With random_state=None, a finished fit leaves nothing. None
        writes nothing. With a custom solver, the state is saved between starts.
    checkpoint_every : int, default=10
        Number of iterations or epochs between two saved states.

    Attributes
    ----------
    model_ : Model
        The fitted model.
    loss_ : float
        Loss of the model on the training data, without the penalty.
    history_ : dict of list
        Values after each iteration or epoch: "loss", with the penalty, and "validation_loss" with
        `early_stopping`.
    n_iter_ : int
        Number of iterations or epochs; 1 for a closed-form solution.
    converged_ : bool
        Whether the fit ended at a minimum: the loss and the predictions are finite, the gradient is
        small, and no prediction is constant unless the response is. If not, a ConvergenceWarning
        gives the reason.
    n_features_in_ : int
        Number of channels of the stimulus.
    feature_names_in_ : ndarray of str
        Names of the channels, if X has column names.
    n_outputs_ : int
        Number of outputs.

    See Also
    --------
    skdyn.nems.Model : The model itself, without scikit-learn.
    skdyn.metrics.correlation_score : The usual score of encoding models.

    Notes
    -----
    Rows are time. An X of shape (n_samples, n_channels) is one recording. Several sessions are
    passed as a label per row in `sessions`, as a list of 2-D arrays, or as an array of shape
    (n_sessions, n_samples, n_channels), and y likewise; predictions have the same form.

    A model with a stride predicts every stride-th row; y may contain all rows or only these.

    A model of one filter or of channel weights that receives all channels, with or without a level
    shift, is linear in its parameters. Its squared error is minimised in closed form, unless early
    stopping is used: this is ridge regression on the lags of the stimulus. A ridge penalty r of the
    sum of squared errors, as in `sklearn.linear_model.Ridge`, is alpha = 2 r / n_samples, for any
    number of outputs.

    The loss of a model is the mean over outputs, weighted by their sample weights. Outputs without
    shared parameters do not influence each other, because their losses are scaled by their size.

    With scikit-learn's metadata routing, `sessions`, `state` and `streams` flow through pipelines,
    searches and cross-validation without being requested, and `sample_weight` after
    ``set_fit_request(sample_weight=True)`` and ``set_score_request(sample_weight=True)``. Only
    `cross_val_predict`, and before scikit-learn 1.8 a search over a pipeline, pass them to `fit`
    alone. Without routing, all tools pass them to `fit` alone, and a pipeline takes
    ``nemsregressor__sessions=`` and ``nemsregressor__sample_weight=``: predicted and scored data
    then count as one session. A halving search may use `max_iter` as its resource; it draws rows at
    random, which would destroy their order in time.

    Callbacks of scikit-learn >= 1.9 receive a task "fit", which contains a task "start" for each of
    `n_init`, which in turn contains a task "iteration" or, with "adam", "epoch" for each step. They
    receive the estimator as if the start ended there, `history_` included. A callback that requests
    a stop after an iteration or epoch ends the start; a request after a start skips the remaining
    starts. Metadata of callbacks contain `sample_weight` and, if routing is enabled, `sessions`,
    `state` and `streams`.

    Several processes share a fit with "adam" if each calls `fit`, with the same data and
    parameters, after `torch.distributed.init_process_group`, in a script started by torchrun, as in
    examples/distributed_fit.py. Each process computes its share of the windows of every batch, and
    the result equals that of a single process up to rounding. With "lbfgs" each process fits alone.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn import NEMSRegressor
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((500, 3))
    >>> y = np.maximum(X[:, 0] + np.roll(X[:, 1], 1), 0)
    >>> model = NEMSRegressor("wc.x2-fir.2-relu", random_state=0).fit(X, y)
    >>> round(model.score(X, y), 2)
    1.0

    Fit a population of three neurons, each with its own channel weights and filter.

    >>> Y = np.stack([np.maximum(X[:, n] + np.roll(X[:, n - 1], 1), 0) for n in range(3)], axis=1)
    >>> population = NEMSRegressor("wc.x2-fir.2-relu", random_state=0).fit(X, Y)
    >>> population.predict(X).shape, round(population.score(X, Y), 2)
    ((500, 3), 1.0)
    """

    __metadata_request__fit = dict(ROUTED)  # noqa: RUF012
    __metadata_request__predict = {**ROUTED, "out": UNUSED}  # noqa: RUF012
    __metadata_request__score = dict(ROUTED)  # noqa: RUF012
    _parameter_constraints: dict = {  # noqa: RUF012
        "layers": [str, Layer, list, tuple, None],
        **CONSTRAINTS,
        "warm_start": ["boolean"],
        **CHECKPOINT_CONSTRAINTS,
    }

    def __init__(
        self,
        layers=None,
        *,
        loss="squared_error",
        solver="lbfgs",
        alpha=0.0,
        init="auto",
        n_init=1,
        n_jobs=None,
        max_iter=1000,
        tol=2e-6,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        batch_size="auto",
        learning_rate=0.01,
        history="skip",
        random_state=None,
        device="cpu",
        verbose=0,
        warm_start=False,
        checkpoint=None,
        checkpoint_every=10,
    ):
        self.layers = layers
        self.loss = loss
        self.solver = solver
        self.alpha = alpha
        self.init = init
        self.n_init = n_init
        self.n_jobs = n_jobs
        self.max_iter = max_iter
        self.tol = tol
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.history = history
        self.random_state = random_state
        self.device = device
        self.verbose = verbose
        self.warm_start = warm_start
        self.checkpoint = checkpoint
        self.checkpoint_every = checkpoint_every

    def get_params(self, deep=True):
        """Get the parameters, including those of named layers.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include layers and their parameters.

        Returns
        -------
        dict
            Values by name.
        """
        if not _has_names(self.layers):
            return super().get_params(deep=deep)
        params = self._get_params("layers", deep=deep)
        # The name of the pair is the name of the layer.
        return {name: params[name] for name in params if name not in self._layer_names()}

    def set_params(self, **params):
        """Set parameters, named layers, and parameters of named layers.

        Parameters
        ----------
        **params
            Values by name.

        Returns
        -------
        NEMSRegressor
            The estimator.
        """
        if "layers" in params:
            self.layers = params.pop("layers")
        if not _has_names(self.layers):
            return super().set_params(**params)
        refused = sorted(set(params) & set(self._layer_names()))
        if refused:
            raise ValueError(
                f"Invalid parameter {refused[0]!r}: a layer's name is that of its pair in layers."
            )
        return self._set_params("layers", **params)

    def _layer_names(self) -> list[str]:
        return [f"{name}__name" for name, _ in self.layers]

    # -------------------------------------------------------------------------------- fit

    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X, y, sample_weight=None, *, sessions=None, state=None, streams=None, preceding=None
    ):
        """Fit the model.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            The stimulus; rows are time.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), list of such, or array of \
                shape (n_sessions, n_samples) or (n_sessions, n_samples, n_outputs)
            The response. It may be NaN where its weight is 0.
        sample_weight : array-like of shape (n_samples,), or like y, default=None
            Weights; 0 excludes a row, or an entry of y, from the loss.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X: a contiguous run of one label is one session.
        state : array-like of shape (n_samples,) or (n_samples, n_states), or in the form of X, \
                default=None
            Input of layers that take "state", such as the pupil size.
        streams : dict of array-like, or structured array of shape (n_samples,), default=None
            Further named inputs of layers, each in the form of X. Cross-validation splits a
            structured array, which has a field for each input, along with X; it does not split a
            dict.
        preceding : array-like of shape (n_preceding, n_channels), or list of such, default=None
            Rows immediately before X, or before each session, used as history.

        Returns
        -------
        NEMSRegressor
            The fitted estimator.

        Raises
        ------
        ValueError
            If X is not finite, y does not match X or the model, or all weights are zero.
        FitDivergedError
            If the loss or its gradient is not finite at the initial values, or, with "adam", at any
            learning rate.
        """
        stimulus = check_sessions(self, X, sessions, reset=True)
        given = self._check_data(stimulus, state, streams, preceding)
        model = self._build()
        targets, weights = self._check_response(stimulus, y, sample_weight, model)
        given = _with_response(model, given, targets)
        random_state = make_random_state(self.random_state)
        options = {name: getattr(self, name) for name in CONSTRAINTS}
        model = self._start(model, given, targets[0].shape[1] if targets[0].ndim == 2 else 1)
        if self._is_warm() and self.init != "prior_sample":
            options["init"] = "given"
        trials = [
            make_trial(model, data, target, weight, before, self.history)
            for (data, before), target, weight in zip(given, targets, weights, strict=True)
        ]
        if n_processes() > 1 and make_solver(self.solver).shares_processes:
            numbers = [np.abs(a).sum() for t in trials for a in (t.target, *t.data.values())]
            parameters = self.get_params(deep=False)
            start_together(parameters, numbers, random_state, check_device(self.device))
        checkpoint = self._open_checkpoint(
            self.model_ if self._is_warm() else None,
            X=[data for data, _ in given],
            y=targets,
            sample_weight=None if sample_weight is None else weights,
            preceding=None if preceding is None else [before for _, before in given],
        )
        metadata = {"sessions": sessions, "state": state, "streams": streams}
        task = FitTask.of(self, self.n_init, X, y, sample_weight=sample_weight, **metadata)
        observer = _Observer(self, task, targets[0].ndim == 2)
        del targets, weights  # trials have copies of these
        with observer.kept():
            best = fit_trials(model, trials, options, observer, random_state, checkpoint)
        self.__dict__.update(observer.fitted(best))
        self._close_checkpoint(checkpoint)
        task.end({})
        return self

    def _start(self, model: Model, given, n_outputs: int) -> Model:
        """Return the model to fit, with all its sizes."""
        model.take_outputs(n_outputs)
        model.take_sizes(given[0][0])
        if not self._is_warm():
            return model
        pairs = zip(model.layers, self.model_.layers, strict=False)
        alike = all(one.is_like(fitted) for one, fitted in pairs)
        if len(model.layers) != len(self.model_.layers) or not alike:
            raise ValueError(
                "warm_start=True goes on from the fitted layers, but layers, channels or outputs "
                "are not those of that fit; set warm_start=False."
            )
        return self.model_.copy()

    def _build(self) -> Model:
        if _has_names(self.layers):
            self._validate_names([name for name, _ in self.layers])
        return _build_model(self.layers)

    def _is_warm(self) -> bool:
        return self.warm_start and hasattr(self, "model_")

    # ------------------------------------------------------------------- predict and score

    def predict(self, X, *, sessions=None, state=None, streams=None, preceding=None, out=None):
        """Predict the response.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            The stimulus.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X.
        state, streams
            As in `fit`.
        preceding : array-like of shape (n_preceding, n_channels), or list of such, default=None
            Rows immediately before X, or before each session of a list or a 3-D array, used as
            history. None uses zeros.
        out : ndarray of float, or list of such, default=None
            Array or memory map to which the prediction is written, in the form of X. None allocates
            new arrays.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs), or as X
            The predicted response; `out` if it was given. Layers that take the past of the response
            read it from streams={"response": ...}, for predictions of the next step; without it,
            the predictions themselves are fed back.
        """
        check_is_fitted(self)
        stimulus = check_sessions(self, X, sessions, reset=False)
        writer = stimulus.writer(out)
        for output in self._outputs(self._check_data(stimulus, state, streams, preceding)):
            writer.put(output if self._has_output_axis else output[:, 0])
        return writer.done()

    def score(
        self, X, y, sample_weight=None, *, sessions=None, state=None, streams=None, preceding=None
    ):
        """Return the coefficient of determination R^2, averaged over outputs that vary.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            The stimulus.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), list of such, or array of \
                shape (n_sessions, n_samples) or (n_sessions, n_samples, n_outputs)
            The response. It may be NaN where its weight is 0.
        sample_weight : array-like of shape (n_samples,), or like y, default=None
            Weights.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X.
        state, streams, preceding
            As in `fit`.

        Returns
        -------
        float
            R^2, at most 1. With history="skip", rows with an incomplete history are excluded.

        Warns
        -----
        UserWarning
            If an output is constant, so that its R^2 is undefined and it is excluded from the mean.
        """
        check_is_fitted(self)
        stimulus = check_sessions(self, X, sessions, reset=False)
        given = self._check_data(stimulus, state, streams, preceding)
        targets, weights = self._check_response(stimulus, y, sample_weight, self.model_)
        given = _with_response(self.model_, given, targets)
        trials = [
            make_trial(self.model_, data, target, weight, before, self.history)
            for (data, before), target, weight in zip(given, targets, weights, strict=True)
        ]
        target, weight = (
            np.concatenate([getattr(trial, name) for trial in trials])
            for name in ("target", "weight")
        )
        if target.shape[1] != self.n_outputs_:
            raise ValueError(
                f"y has {target.shape[1]} outputs, but the model was fitted with {self.n_outputs_}."
            )
        if not weight.any():
            raise ValueError(
                "No row counts: all of sample_weight is zero, or no row has a complete history; "
                "set history='zeros' for sessions that short."
            )
        with one_thread():
            prediction = np.concatenate(
                [output_in_pieces(self.model_, trial.data, copies=True) for trial in trials]
            )
        with np.errstate(over="ignore", invalid="ignore"):  # checked below
            score = _mean_r2(target, prediction, np.broadcast_to(weight, target.shape))
        if not np.isfinite(score):
            raise ValueError(
                "X, preceding, y or sample_weight has values so large that R^2 is not finite. Use "
                "the units of the recording that was fitted."
            )
        return score

    def _outputs(self, given) -> Iterator[np.ndarray]:
        """Yield predictions (n_rows, n_outputs) of checked sessions, one at a time."""
        for data, before in given:
            with one_thread():
                output = self._output(data, before)
            if not all_finite(output):
                raise ValueError(
                    "X, preceding or state has values for which the prediction is not finite. Look "
                    "for logarithms of negative numbers in the layers, or use the units of the fit."
                )
            yield output

    def _output(self, data, before) -> np.ndarray:
        """Predict one session; an autoregressive model receives its own predictions."""
        if self.model_.sees_response and RESPONSE not in data:
            return self.model_.simulate(data, n_outputs=self.n_outputs_)
        joined, n_before = self.model_.with_preceding(data, before)
        output = output_in_pieces(self.model_, joined, copies=True)
        return output[n_before // self.model_.stride :]

    def simulate(self, X, n_draws=1, *, sessions=None, state=None, streams=None, random_state=None):
        """Draw Poisson counts from a model whose layers take the past of the response.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            The stimulus.
        n_draws : int, default=1
            Number of simulations.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X; each session begins without a history.
        state, streams
            As in `fit`.
        random_state : int, Generator, RandomState or None, default=None
            Source of the counts; None uses fresh entropy.

        Returns
        -------
        list of ndarray of shape (n_samples,) or (n_samples, n_outputs), or as X
            One entry per simulation. Each row depends on the simulated rows before it.

        Raises
        ------
        ValueError
            If no layer takes the response.
        """
        check_is_fitted(self)
        stimulus = check_sessions(self, X, sessions, reset=False)
        random = as_generator(random_state)
        options = {"n_outputs": self.n_outputs_, "n_draws": n_draws, "random_state": random}
        with one_thread():
            draws = [
                self.model_.simulate(data, **options)
                for data, _ in self._check_data(stimulus, state, streams, None)
            ]
        return [
            stimulus.like_input(
                [one[number] if self._has_output_axis else one[number][:, 0] for one in draws]
            )
            for number in range(n_draws)
        ]

    # ------------------------------------------------------------------------------ checks

    def _check_data(self, stimulus: Sessions, state, streams, preceding):
        """Return the inputs of each session and the rows that precede them."""
        named = {**_by_name(streams), **({} if state is None else {STATE: state})}
        if INPUT in named:
            raise ValueError(f"{INPUT!r} is the name of X; give streams other names.")
        split = {name: like_sessions(stimulus, values, name) for name, values in named.items()}
        data = [
            # A fixed memory layout, so that results do not depend on that of the input.
            {INPUT: np.ascontiguousarray(array)}
            | {name: parts[number] for name, parts in split.items()}
            for number, array in enumerate(stimulus.arrays)
        ]
        before = self._check_preceding(stimulus, preceding)
        if split and any(rows is not None and len(rows) for rows in before):
            raise ValueError("preceding has rows of X alone, so that it needs a model of X alone.")
        return [
            (one, None if rows is None else {INPUT: rows})
            for one, rows in zip(data, before, strict=True)
        ]

    def _check_preceding(self, stimulus: Sessions, preceding) -> Sequence[np.ndarray | None]:
        if preceding is None:
            return [None for _ in stimulus.arrays]
        refuse_objects(preceding, name="preceding")
        if not isinstance(preceding, list | tuple) and np.ndim(preceding) == 0:
            raise TypeError(f"preceding is {preceding!r:.50}, but rows of X were expected.")
        given = [preceding] if stimulus.container == "array" else list(preceding)
        if len(given) != len(stimulus.arrays):
            raise ValueError(
                f"preceding has rows for {len(given)} sessions, but X has {len(stimulus.arrays)}; "
                "give a list with an array per session, and X as a list, too."
            )
        try:
            return [
                check_sessions(self, rows, reset=False).arrays[0] if len(rows) else None
                for rows in given
            ]
        except (TypeError, ValueError) as error:
            error.args = (f"preceding, as X: {error}",)
            raise

    def _check_response(self, stimulus: Sessions, y, sample_weight, model: Model):
        """Return responses and weights, at the rate of the stimulus or of the output."""
        targets = check_targets(self, stimulus, y, stride=model.stride)
        return targets, check_weights(stimulus, targets, sample_weight)

    # ----------------------------------------------------------------------------- summary

    def summary(self):
        """Describe the fitted model.

        Returns
        -------
        str
            One line per layer with its shape, its number of values and their range, and a line with
            the number of iterations and the loss.
        """
        check_is_fitted(self)
        layers = [_describe(layer) for layer in self.model_.layers]
        widths = [max(map(len, column)) for column in zip(*layers, strict=True)]
        lines = [
            "  ".join(word.ljust(width) for word, width in zip(words, widths, strict=True)).rstrip()
            for words in layers
        ]
        solver = make_solver(self.solver)
        stopped = "was asked to stop" if self.n_iter_ < self.max_iter else "ran to the last one"
        stopped = "converged" if self.converged_ else stopped
        loss = make_loss(self.loss).name
        return "\n".join(
            [
                f"NEMS of {_count(len(layers), 'layer')}, from "
                f"{_count(self.n_features_in_, 'channel')} to {_count(self.n_outputs_, 'output')}",
                *(f"  {line}" for line in lines),
                f"  training: {self.n_iter_} of {self.max_iter} {solver.unit}s of {solver.name}, "
                f"{stopped}, {loss} {self.loss_:.4g}",
            ]
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.target_tags.multi_output = True
        return tags


# -------------------------------------------------------------------------------- helpers


@dataclass
class _Observer(Observer):
    """Reports the starts and steps of a fit to scikit-learn's callbacks."""

    estimator: NEMSRegressor
    task: FitTask
    has_output_axis: bool
    n_started: int = 0
    trials: Sequence[Trial] = ()
    start: FitTask | None = None
    steps: StepWatcher | None = None
    solver: Solver = field(default_factory=Solver)

    def begin(self, model: Model, trials: Sequence[Trial]) -> Watcher:
        """Begin a start; see `Observer`."""
        estimator, self.trials = self.estimator, trials
        self.solver = make_solver(estimator.solver)
        self.n_started += 1
        # Only the first of several processes that share a fit prints.
        shows = estimator.verbose and (not self.solver.shares_processes or is_first())
        if shows and estimator.n_init > 1:
            print(f"Start {self.n_started} of {estimator.n_init}")
        self.start = self.task.subtask("start", estimator.max_iter)
        self.steps = StepWatcher(
            self.start,
            self.solver.unit,
            partial(self.restored, model),
            keep_last=estimator.warm_start or estimator.checkpoint is not None,
        )
        return self.steps

    def end(self, model: Model) -> bool:
        """End a start; see `Observer`."""
        assert self.start is not None and self.steps is not None
        self.steps.close()
        asked = self.start.end(partial(self.fitted, model))
        shared = self.solver.shares_processes
        return any_process(asked, check_device(self.estimator.device)) if shared else asked

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Attach the state of the last start to an interrupt of the block."""
        try:
            yield
        except KeyboardInterrupt:
            if self.steps is None:
                raise
            with one_thread(), self.steps.kept():
                raise

    def fitted(self, model: Model) -> dict:
        """Return the attributes of an estimator with this fitted model."""
        results = model.results
        assert isinstance(results, FitResults)
        history = {"loss": results.history}
        if self.estimator.early_stopping:
            history["validation_loss"] = results.held_out_history
        return self._attributes(model, history, results.final_error, results.converged)

    def restored(self, model: Model, history: dict, vector: np.ndarray) -> dict:
        """Return the attributes of an estimator whose fit stopped at these values."""
        model = model.copy()
        objective = Objective(model, self.trials, make_loss(self.estimator.loss))
        loss = objective.error(vector)  # also sets the values of the model
        return self._attributes(model, history, loss, False)

    def _attributes(self, model: Model, history: dict, loss: float, converged: bool) -> dict:
        return {
            "model_": model,
            "loss_": loss,
            "history_": history,
            "n_iter_": len(history["loss"]),
            "converged_": converged,
            "n_outputs_": self.trials[0].target.shape[1],
            "_has_output_axis": self.has_output_axis,
        }


def _by_name(streams) -> dict:
    """Return a dict of streams from a dict or the fields of a structured array."""
    if streams is None:
        return {}
    names = getattr(getattr(streams, "dtype", None), "names", None)
    if names:
        return {name: streams[name] for name in names}
    if not isinstance(streams, dict):
        raise TypeError(
            "streams must be a dict of arrays, or a structured array with a field for each, but is "
            f"of type {type(streams).__name__}."
        )
    return streams


def _with_response(model: Model, given, targets) -> list:
    """Add the response to the data of each session, for layers that take its past."""
    if not model.sees_response:
        return given
    if any(before is not None for _, before in given):
        raise ValueError(
            "preceding has rows of X alone, but a layer takes the past of the response as well."
        )
    return [
        (model.with_response(data, target), before)
        for (data, before), target in zip(given, targets, strict=True)
    ]


def _has_names(layers) -> bool:
    """Return whether layers are a list of (name, object) pairs."""
    return (
        isinstance(layers, list)
        and bool(layers)
        and all(
            isinstance(one, tuple) and len(one) == 2 and isinstance(one[0], str) for one in layers
        )
    )


def _build_model(layers) -> Model:
    """Build a model from copies of the layers, in any form that the estimator accepts."""
    layers = DEFAULT_LAYERS if layers is None else layers
    if isinstance(layers, str):
        return Model(from_keywords(layers))
    named = _has_names(layers)
    given = [layers] if isinstance(layers, Layer) else [x for _, x in layers] if named else layers
    if not len(given) or not all(isinstance(layer, Layer) for layer in given):
        raise ValueError(
            f"Invalid layers={layers!r}: expected words, a layer, a list of layers, or a list of "
            "(name, layer) pairs, with at least one layer."
        )
    copies = [layer.copy() for layer in given]
    if named:
        for (name, _), layer in zip(layers, copies, strict=True):
            layer.name = name
    return Model(copies)


def _mean_r2(target: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> float:
    """Return the mean R^2 of the outputs that vary where their weight is positive."""
    scores, constant = [], []
    for n in np.flatnonzero(weight.any(axis=0)):
        counted = weight[:, n] > 0
        if np.ptp(target[counted, n]) == 0:
            constant.append(int(n))
            continue
        scores.append(
            r2_score(target[counted, n], prediction[counted, n], sample_weight=weight[counted, n])
        )
    if constant:
        warnings.warn(
            f"The outputs {constant} are constant, so that they have no R^2; "
            + (
                "they are left out of the mean. Remove them from y to silence this warning."
                if scores
                else "the score is 1 where they are predicted exactly, and 0 otherwise."
            ),
            UserWarning,
            stacklevel=3,
        )
    if not scores:
        return float(r2_score(target[:, constant], prediction[:, constant]))
    return float(np.mean(scores))


def _count(number: int, name: str) -> str:
    return f"{number} {name}" + ("" if number == 1 else "s")


def _describe(layer: Layer) -> tuple[str, str, str, str]:
    """Return the name, shape and number of values of a layer, and the ranges of its parameters."""
    parameters = dict(layer.parameters.items())
    n_values = sum(parameter.size for parameter in parameters.values())
    n_frozen = sum(one.size for one in parameters.values() if one.is_frozen)
    count = _count(n_values, "value") + (f", {n_frozen} frozen" if n_frozen else "")
    ranges = [
        f"{name} {np.min(one.values):.3g} to {np.max(one.values):.3g}"
        if one.size > 1
        else f"{name} {np.ravel(one.values)[0]:.3g}"
        for name, one in parameters.items()
        if one.size
    ]
    return str(layer.name), str(layer.shape), count, ", ".join(ranges)
