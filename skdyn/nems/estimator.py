"""The encoding model as a scikit-learn estimator."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from skdyn._sklearn import (
    CallbackSupportMixin,
    FitTask,
    Interval,
    StepWatcher,
    StrOptions,
    _fit_context,
    one_blas_thread,
)
from skdyn.core.distributed import any_process, is_first, start_together
from skdyn.core.runtime import check_device, one_thread
from skdyn.nems.building import build_model, has_names
from skdyn.nems.fitting import (
    FitSettings,
    check_counts,
    fit_trials,
    has_closed_form,
    start_at_data,
)
from skdyn.nems.inference import FittedNEMS
from skdyn.nems.model import Model
from skdyn.nems.objective import LOSSES, Objective, Trial
from skdyn.nems.trials import check_weighted, hold_out, make_trials
from skdyn.nems.wiring import INPUT
from skdyn.sessions import Sessions

_COUNT = [Interval(Integral, 1, None, closed="left")]


class NEMSRegressor(CallbackSupportMixin, FittedNEMS):
    """Neural encoding model: a response predicted from a stimulus by a stack of fitted layers.

    Parameters
    ----------
    layers : str, list of Layer, list of (str, Layer) or None, default=None
        The model, from the stimulus to the response: words such as "wc.18x3-fir.15x3-lvl.1-dexp.1",
        layers, or layers with names, whose parameters a search can set (`filter__shape`). Sizes
        that are left out, as in "wc.x3-fir.15-lvl-dexp", are taken from X and y. None is "wc-lvl",
        a linear map of each row without memory.
    loss : {"squared_error", "poisson"} or callable, default="squared_error"
        What is minimised: the mean squared error; the negative log-likelihood of Poisson counts; or
        a function of response, prediction and weight, tensors of shape (n_trials, n_samples,
        n_outputs), that gives a mean over them.
    solver : {"lbfgs", "adam"}, default="lbfgs"
        "lbfgs" is SciPy's L-BFGS-B on all data, in double precision. "adam" takes steps on batches
        of windows, for recordings or models that are too large for that.
    alpha : float, default=0.0
        Weight of half the sum of squares of the coefficients of filters and channels, and of all
        parameters of your own layers, in units of the loss. A layer with an `l2` has its own.
    init : {"auto", "prior_mean", "prior_sample"}, default="auto"
        Where the fit starts. "auto" at a linear filter of the model's ranks that is found from the
        data, and an output nonlinearity that goes with it; a model that does not begin with layers
        of weights and filters starts at the values of its layers. "prior_mean" at the means of the
        priors, "prior_sample" at a draw from them. Frozen parameters keep their values.
    n_init : int, default=1
        Number of fits, of which the best stays. All but the first start at draws from the priors.
    max_iter : int, default=1000
        Most iterations of "lbfgs", or epochs of "adam".
    tol : float, default=2e-6
        With "lbfgs", the fit ends once the loss falls by less than that per iteration, as a mean
        over five; with "adam", an epoch counts as progress if it falls by more. Relative to the
        loss of predicting the mean, or to the mean count for "poisson".
    early_stopping : bool, default=False
        Whether stretches of the recording are held out, and the fit ends once their loss does not
        fall any more. The values of the best iteration stay.
    validation_fraction : float in (0, 1), default=0.1
        Share of the rows that is held out, in random stretches of a 20th of all rows. They stay in
        place as history of what follows.
    n_iter_no_change : int, default=10
        Iterations or epochs without progress after which the fit ends, with `early_stopping` or
        "adam".
    batch_size : int or "auto", default="auto"
        Windows of 256 rows in each step of "adam"; "auto" is an eighth of them, but from 1 to 64.
    learning_rate : float, default=0.01
        Step size of "adam" at the start; it falls to zero over `max_iter` epochs.
    random_state : int, RandomState instance or None, default=None
        Source of draws from the priors, held-out stretches and batches. With an int, fits are
        identical to the bit.
    device : str, default="cpu"
        Torch device that computes gradients, such as "cuda".
    verbose : int, default=0
        0 is silent. 1 shows progress: with "lbfgs" the loss of every 25th iteration and the end,
        with "adam" a bar with epochs, losses and the time that is left.
    warm_start : bool, default=False
        Whether `fit` goes on from the values of the fitted model.

    Attributes
    ----------
    model_ : Model
        The fitted model.
    loss_ : float
        Its loss, without the penalty, on what it was fitted to.
    history_ : dict of list
        After each iteration or epoch: loss, with the penalty, and validation_loss with
        `early_stopping`.
    n_iter_ : int
        Number of iterations or epochs; 1 for a model that is solved in closed form.
    converged_ : bool
        Whether the fit ended by itself.
    n_features_in_ : int
        Number of channels of the stimulus.
    feature_names_in_ : ndarray of str
        Names of the channels, where X had any.
    n_outputs_ : int
        Number of outputs.

    See Also
    --------
    skdyn.nems.Model : The model itself, without scikit-learn.
    skdyn.metrics.correlation_score : The score that is usual for encoding models.

    Notes
    -----
    Rows are time. X is (n_samples, n_channels), one recording. Several sessions come as labels per
    row in `sessions`, as a list of 2-D arrays, or as (n_sessions, n_samples, n_channels), and y
    likewise; predictions have the same form. Before each session there are zeros.

    A model of one filter, or of channel weights, that sees all channels, with or without a level
    shift, is linear in its parameters. Its squared error is minimised in closed form, unless
    the fit is to be stopped early: this is ridge regression on the lags of the stimulus. A ridge
    penalty r of the sum of squared errors, as in `sklearn.linear_model.Ridge`, is
    alpha = 2 r / (n_samples * n_outputs).

    "lbfgs" iterates in coordinates in which the loss is round, see `skdyn.nems.curvature`.

    With scikit-learn's metadata routing, `sessions` flows through pipelines, searches and
    cross-validation without being requested, and `sample_weight` after
    ``set_fit_request(sample_weight=True)`` and ``set_score_request(sample_weight=True)``. Only
    `cross_val_predict`, and before scikit-learn 1.8 a search over a pipeline, give them to `fit`
    alone. So does everything without routing, where a pipeline takes ``nemsregressor__sessions=``
    and ``nemsregressor__sample_weight=``: what is then predicted or scored counts as one session. A
    halving search may have `max_iter` as its resource; rows, drawn at random, would lose their
    order in time.

    Callbacks of scikit-learn >= 1.9 see a task "fit", in it a task "start" for each of `n_init`,
    and in that a task "iteration" or, with "adam", "epoch" for each; and the estimator as it would
    be if that start ended there, `history_` included. A callback that asks to stop after one of
    these ends the start, one that asks after a start leaves out those to come. Metadata of
    callbacks hold `sample_weight` and, where routing is enabled, `sessions`.

    Several processes share a fit with "adam" if each calls `fit`, with the same data and
    parameters, after `torch.distributed.init_process_group`, in a script that torchrun starts, as
    in examples/distributed_fit.py. Each computes its share of the windows of every batch, and all
    end with the values that a single process finds, up to rounding. With "lbfgs" each fits alone.

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
    """

    __metadata_request__fit = {"sessions": True}  # noqa: RUF012
    _parameter_constraints: dict = {  # noqa: RUF012
        "layers": [str, list, tuple, None],
        "loss": [StrOptions(set(LOSSES)), callable],
        "solver": [StrOptions({"lbfgs", "adam"})],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "init": [StrOptions({"auto", "prior_mean", "prior_sample"})],
        "n_init": _COUNT,
        "max_iter": _COUNT,
        "tol": [Interval(Real, 0, None, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": _COUNT,
        "batch_size": [*_COUNT, StrOptions({"auto"})],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "random_state": ["random_state"],
        "device": [str],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
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
        max_iter=1000,
        tol=2e-6,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        batch_size="auto",
        learning_rate=0.01,
        random_state=None,
        device="cpu",
        verbose=0,
        warm_start=False,
    ):
        self.layers = layers
        self.loss = loss
        self.solver = solver
        self.alpha = alpha
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state
        self.device = device
        self.verbose = verbose
        self.warm_start = warm_start

    def get_params(self, deep=True):
        """Get the parameters, and those of layers with names.

        Parameters
        ----------
        deep : bool, default=True
            Whether layers and their parameters are among them.

        Returns
        -------
        dict
            Values by name.
        """
        if has_names(self.layers):
            return self._get_params("layers", deep=deep)
        return super().get_params(deep=deep)

    def set_params(self, **params):
        """Set parameters, layers with names, and parameters of these.

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
        if has_names(self.layers):
            return self._set_params("layers", **params)
        return super().set_params(**params)

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None, *, sessions=None):
        """Fit the model.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            The stimulus; rows are time.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), list of such, or array of \
                shape (n_sessions, n_samples) or (n_sessions, n_samples, n_outputs)
            The response. Where it has no weight it may be NaN.
        sample_weight : array-like of shape (n_samples,), or like y, default=None
            Weights; 0 leaves a row, or a number of y, out of the loss.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X: a contiguous run of one label is one session.

        Returns
        -------
        NEMSRegressor
            The fitted estimator.

        Raises
        ------
        ValueError
            If X is not finite, y does not go with it or with the model, or nothing has weight.
        FitDivergedError
            If "adam" gives non-finite numbers at any learning rate.
        """
        stimulus, targets, weights = self._check(X, y, sample_weight, sessions, reset=True)
        # None is fresh entropy, and not NumPy's global generator.
        given = np.random.RandomState() if self.random_state is None else self.random_state
        random_state = check_random_state(given)
        metadata = {"sessions": sessions, "sample_weight": sample_weight}
        with one_thread(), one_blas_thread():
            settings = self._settings()
            model, trials = self._start(stimulus, targets, weights)
            if settings.solver == "adam":
                data = [np.abs(a).sum() for t in trials for a in (t.target, *t.data.values())]
                parameters = self.get_params(deep=False)
                start_together(parameters, data, random_state, settings.device)
            if self.early_stopping:
                trials = hold_out(trials, self.validation_fraction, random_state)
            task = FitTask.of(self, self.n_init, X, y, **metadata)
            fit = _Fit(task, trials, settings, targets[0].ndim == 2)
            best = self._best_fit(model, fit, random_state)
        self.__dict__.update(fit.fitted(best))
        task.end({})
        results = best.results
        assert results is not None
        if not (results.converged or results.stopped):
            warnings.warn(
                f"The loss still fell when the fit ended after {results.n_iter} of "
                f"max_iter={self.max_iter} ({results.message}); raise max_iter or tol={self.tol}.",
                ConvergenceWarning,
                stacklevel=3,  # past scikit-learn's wrapper of fit
            )
        return self

    def _settings(self) -> FitSettings:
        return FitSettings(
            loss=self.loss if callable(self.loss) else LOSSES[self.loss],
            alpha=self.alpha,
            solver=self.solver,
            max_iter=self.max_iter,
            tol=self.tol,
            early_stopping=self.early_stopping,
            n_iter_no_change=self.n_iter_no_change,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            device=check_device(self.device),
            verbose=self.verbose,
        )

    def _start(self, stimulus: Sessions, targets, weights) -> tuple[Model, list[Trial]]:
        """The model, with all its sizes, and what it is to predict."""
        if self._is_warm():
            model = self.model_.copy()
        else:
            if has_names(self.layers):
                self._validate_names([name for name, _ in self.layers])
            n_outputs = targets[0].shape[1] if targets[0].ndim == 2 else 1
            model = build_model(self.layers, n_outputs)
        trials = [
            make_trials(model, ({INPUT: array}, None), target, weight, trials=False)[0]
            for array, target, weight in zip(stimulus.arrays, targets, weights, strict=True)
        ]
        check_weighted(trials)
        check_counts(self.loss, trials)
        model.take_sizes(trials[0].data)
        return model, trials

    def _best_fit(self, model: Model, fit: _Fit, random_state) -> Model:
        """Fit from each start; the best of the fitted models."""
        closed = has_closed_form(model, fit.trials, fit.settings)
        n_starts = 1 if closed else self.n_init
        # One of several processes speaks, where they share the fit.
        shows = self.verbose and (self.solver == "lbfgs" or is_first())
        models = []
        for number in range(n_starts):
            if shows and n_starts > 1:
                print(f"Start {number + 1} of {n_starts}")
            one = model.copy()
            if not closed:
                self._set_start(one, fit.trials, number, random_state)
            models.append(one)
            if fit.run(one, random_state):
                break
        return min(models, key=lambda one: one.results.criterion)

    def _set_start(self, model: Model, trials, number: int, random_state) -> None:
        """Set the values that a fit starts from."""
        if number or (self.init == "prior_sample" and not self._is_warm()):
            for layer in model.layers:
                layer.sample_from_priors(random_state)
        elif self._is_warm():
            return
        elif self.init == "prior_mean":
            for layer in model.layers:
                layer.mean_of_priors()
        else:
            start_at_data(model, trials)

    def _is_warm(self) -> bool:
        return self.warm_start and hasattr(self, "model_")


@dataclass(frozen=True)
class _Fit:
    """A fit under way: what it is told to, what it is made to, and how.

    Attributes
    ----------
    task : FitTask
        The whole fit, in which each start is a task.
    trials : list of Trial
        What is to be predicted.
    settings : FitSettings
        How.
    has_output_axis : bool
        Whether y has an axis of outputs.
    """

    task: FitTask
    trials: list[Trial]
    settings: FitSettings
    has_output_axis: bool

    def run(self, model: Model, random_state: np.random.RandomState) -> bool:
        """Fit a model from its present values, and tell if there are to be no more starts."""
        start = self.task.subtask("start", self.settings.max_iter)
        name = "epoch" if self.settings.solver == "adam" else "iteration"
        steps = StepWatcher(start, name, partial(self.restored, model))
        model.results = fit_trials(model, self.trials, self.settings, random_state, steps)
        steps.close()
        asked = start.end(partial(self.fitted, model))
        return any_process(asked, self.settings.device) if name == "epoch" else asked

    def fitted(self, model: Model) -> dict:
        """Attributes of an estimator whose model this is."""
        results = model.results
        assert results is not None
        history = {"loss": results.history}
        if self.settings.early_stopping:
            history["validation_loss"] = results.held_out_history
        return self._attributes(model, history, results.final_error, results.converged)

    def restored(self, model: Model, history: dict, vector: np.ndarray) -> dict:
        """Attributes of an estimator whose fit had stopped with these values."""
        settings, model = self.settings, model.copy()
        objective = Objective(model, self.trials, settings.loss, settings.alpha, settings.device)
        # Which gives the values to the model.
        loss = objective.error(vector)
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
