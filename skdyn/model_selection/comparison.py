"""Several models on the same folds, in parallel."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from itertools import product
from numbers import Integral, Real

import numpy as np
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import FitFailedWarning
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils import indexable
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    get_routing_for_object,
    process_routing,
)
from sklearn.utils.parallel import Parallel, delayed

from skdyn._sklearn import one_blas_thread
from skdyn.metrics import get_scorer
from skdyn.metrics.scorers import ResponseScorer
from skdyn.model_selection.evaluation import Failure, Rows, evaluate
from skdyn.model_selection.repeats import draw_seeds, mean_agreement, seeded
from skdyn.model_selection.splitters import BlockKFold, SessionKFold
from skdyn.model_selection.table import ModelComparison, describe_failures
from skdyn.model_selection.uncertainty import ERRORS, summarise
from skdyn.sessions import container_of, split_sessions

__all__ = ["compare_models"]

N_FOLDS = 5


def compare_models(
    estimators,
    X,
    y=None,
    *,
    cv=None,
    scoring=None,
    paired_over=None,
    sessions=None,
    params=None,
    n_jobs=None,
    repeat=1,
    random_state=None,
    error_score=np.nan,
    return_estimators=False,
    verbose=0,
):
    """Fit every candidate on every fold, and compare their held-out scores.

    Parameters
    ----------
    estimators : dict of estimator, list of (object, estimator), or list of estimator
        The candidates, by name. Without names they are those of their types, in lower case.
        Clones are fitted.
    X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
            (n_sessions, n_samples, n_channels)
        The recording; rows are time.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs), or like X, default=None
        The response, for models that predict one.
    cv : int, splitter or iterable of (train, test), default=None
        The folds, in every form that `cross_validate` takes: numbers of rows, or boolean masks. An
        int is their number: of `SessionKFold`, if there are several sessions, or of `BlockKFold`.
        None is 5, or the number of sessions if there are fewer. Sessions are the groups of a
        splitter that needs groups, such as `LeaveOneGroupOut`, unless params has groups.
    scoring : str, callable or None, default=None
        None is the estimator's own `score`: the evidence lower bound for `DyNeMoEstimator`. A str
        is a name that `skdyn.metrics.get_scorer` takes: "correlation" and
        "noise_corrected_correlation", of this package, or one of scikit-learn's, such as "r2". A
        callable gets the estimator, X and y, and returns one number, or one per output.
        `GridSearchCV` takes the same, with ``scoring=get_scorer("correlation")``. The two scorers
        of this package give one score per output here, by name or not.
    paired_over : {"both", "outputs", "folds"}, default=None
        The units over which candidates are compared, if there is a score per output. "both", the
        default in that case, treats outputs and folds as random effects. "outputs" treats outputs,
        such as neurons, as independent, and the recording as fixed; it is the default if there is
        one fold. "folds" averages outputs. `ModelComparison` has the formulas.
    sessions : array-like of shape (n_samples,), default=None
        Label of each row of a 2-D X.
    params : dict, default=None
        Metadata for `fit`, the scorer and the splitter, such as sample_weight, repeats or groups.
        They are routed as with scikit-learn's metadata routing, whether it is enabled or not.
    n_jobs : int, default=None
        Number of parallel fits, as in joblib: None is 1 unless in a `joblib.parallel_config`; -1
        uses all processors. Each fit runs on one thread.
    repeat : int, default=1
        Fits of each candidate on each fold, from different seeds. The result then includes the
        agreement of their modes.
    random_state : int, RandomState instance or None, default=None
        Source of the seeds. Each parameter named random_state is set to a seed, also in steps of
        pipelines. With None and one repeat, candidates keep their own.
    error_score : "raise" or float, default=nan
        The score of a fit that fails, with a warning; "raise" raises its exception. With NaN, the
        candidate comes last.
    return_estimators : bool, default=False
        Whether fitted estimators are returned, too.
    verbose : int, default=0
        Verbosity of joblib.

    Returns
    -------
    ModelComparison
        Scores, paired differences to the best with standard errors and p-values, seconds,
        agreement and failures, as arrays; with `to_frame()`, `plot()` and `simplest()`.

    Raises
    ------
    ValueError
        If arguments contradict each other, or no candidate gets through all folds.

    Warns
    -----
    FitFailedWarning
        If a fit or its scoring fails. The message names the candidate, the number of folds and
        the error.

    See Also
    --------
    select_run : The run nearest to the others.
    sklearn.model_selection.cross_validate : The same scores, of one estimator.

    Notes
    -----
    Rows that were not neighbours in X never become neighbours. If a fold leaves a seam, or blocks
    meet, every object that takes `sessions` receives the rows on either side as different sessions,
    in `fit` and in scoring. A scorer that takes no sessions, such as "r2", gets an estimator that
    predicts each run of neighbouring rows alone. So scores with `BlockKFold` are the same as if
    each block were a separate file. One case is left to you: an estimator with memory whose
    own `score` takes no `sessions` receives the rows of a test fold in one piece.

    A pipeline is scored by the `score` of its last step, on the output of the other steps, so that
    mixtures and factor analysis of scikit-learn work behind steps that take sessions. If X is a
    list or stack of sessions, a model whose `fit` takes no `sessions` receives rows. A model whose
    `fit` takes `lengths`, such as a hidden Markov model of hmmlearn, receives the length of each
    run, and its score, the log-likelihood of all rows, is divided by their number.

    Standard errors over folds are corrected for overlapping training sets, and differences are
    tested with Student's t; `ModelComparison` has the formulas. With few folds only large
    differences are significant.

    All fits go through one `joblib.Parallel`; within `on_dask` they run on a cluster.

    Examples
    --------
    How many lags does a filter need? The response depends on the row three before.

    >>> import numpy as np
    >>> from skdyn import NEMSRegressor
    >>> from skdyn.model_selection import compare_models
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((600, 1))
    >>> y = np.roll(X, 3, axis=0) + [0.1, 0.5, 1] * rng.standard_normal((600, 3))
    >>> candidates = {n: NEMSRegressor(f"fir.{n}x1x3") for n in (2, 4)}
    >>> comparison = compare_models(candidates, X, y, scoring="correlation")
    >>> comparison.best_name, comparison.paired_over
    (4, 'both')
    >>> bool(comparison.difference_to_best[0] < -0.5)
    True

    A mixture and factor analysis of scikit-learn, behind a step that takes sessions:

    >>> from sklearn.decomposition import FactorAnalysis
    >>> from sklearn.mixture import GaussianMixture
    >>> from sklearn.pipeline import make_pipeline
    >>> from skdyn.preprocessing import SessionScaler
    >>> models = {
    ...     "mixture": make_pipeline(SessionScaler(), GaussianMixture(2, random_state=0)),
    ...     "factors": make_pipeline(SessionScaler(), FactorAnalysis(1)),
    ... }
    >>> compare_models(models, y, sessions=np.repeat([0, 1, 2], 200)).best_name
    'factors'
    """
    names, candidates = _check_candidates(estimators)
    seeds = _check_options(repeat, random_state, error_score)
    if paired_over is not None and paired_over not in ERRORS:
        raise ValueError(
            f"paired_over must be None or one of {sorted(ERRORS)}, but is {paired_over!r}."
        )
    container_of(X)  # answers objects that are no arrays
    X, y, sessions = indexable(X, y, sessions)
    splitter = _check_splitter(cv, X, y, sessions)
    data = Rows(X, y, _check_sessions(X, sessions, splitter))
    scorers = [_check_scorer(one, scoring) for one in candidates]
    if params and "sessions" in params:
        raise ValueError("params must not have sessions; pass them as sessions=.")
    routed = [
        _route(one, None if scoring is None else scorer, splitter, data, params or {})
        for one, scorer in zip(candidates, scorers, strict=True)
    ]
    # Numbers of rows, from numbers, masks or slices of the splitter.
    rows = np.arange(len(X))
    folds = [
        (rows[train], rows[test]) for train, test in splitter.split(X, y, **routed[0]["split"])
    ]
    shape = (len(candidates), len(folds), repeat)
    # Here, too: workers that are threads would put back each other's setting.
    with one_blas_thread():
        evaluations = Parallel(n_jobs=n_jobs, verbose=verbose)(
            delayed(evaluate)(
                seeded(candidates[which], seeds[number]),
                None if scoring is None else scorers[which],
                data,
                folds[fold],
                routed[which]["fit"],
                routed[which]["score"],
                want_modes=repeat > 1,
                want_estimator=return_estimators,
                may_raise=error_score == "raise",
            )
            for which, fold, number in product(*map(range, shape))
        )
    table = np.empty(shape, dtype=object)
    table.ravel()[:] = evaluations
    result = _tabulate(
        names,
        table,
        seeds,
        np.nan if error_score == "raise" else error_score,
        paired_over,
        data.test_to_train(folds),
    )
    if return_estimators:
        result.estimators = _collect(table, "estimator", object)
    return result


def _check_candidates(estimators) -> tuple[list, list]:
    """Names and estimators."""
    if isinstance(estimators, Mapping):
        pairs = list(estimators.items())
    elif isinstance(estimators, Iterable) and not hasattr(estimators, "fit"):
        given = list(estimators)
        named = [isinstance(one, tuple) and len(one) == 2 for one in given]
        pairs = given if all(named) else list(zip(_names_of(given), given, strict=True))
    else:
        raise ValueError(
            f"estimators must be a dict or list of candidates, but is {estimators!r}; put it in a "
            "list."
        )
    for name, one in pairs:
        if not hasattr(one, "fit") or isinstance(one, type):
            raise ValueError(f"Candidate {name!r} must be an estimator with fit, but is {one!r}.")
    names = [name for name, _ in pairs]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"There must be at least one candidate, with different names, but names are {names}."
        )
    return names, [one for _, one in pairs]


def _names_of(estimators) -> list[str]:
    """Types in lower case, numbered if there are several, as `make_pipeline` names steps."""
    types = [type(one).__name__.lower() for one in estimators]
    return [
        f"{name}-{types[:place].count(name) + 1}" if types.count(name) > 1 else name
        for place, name in enumerate(types)
    ]


def _check_options(repeat, random_state, error_score) -> list[int | None]:
    """Seeds of the repeats."""
    if isinstance(repeat, bool) or not isinstance(repeat, Integral) or repeat < 1:
        raise ValueError(f"repeat must be a whole number of at least 1, but is {repeat!r}.")
    if error_score != "raise" and not isinstance(error_score, Real):
        raise ValueError(f"error_score must be 'raise' or a number, but is {error_score!r}.")
    return draw_seeds(int(repeat), random_state)


def _check_splitter(cv, X, y, sessions):
    if cv is not None and not isinstance(cv, Integral):
        return check_cv(cv, y)
    if container_of(X) != "array":
        n_sessions = len(X)
    elif sessions is None or len(split_sessions(np.arange(len(sessions)), sessions)) == 1:
        return BlockKFold(N_FOLDS if cv is None else cv)
    else:
        n_sessions = len(np.unique(sessions))
    return SessionKFold(max(2, min(N_FOLDS, n_sessions)) if cv is None else cv)


def _check_sessions(X, sessions, splitter):
    """Session of each row of a 2-D X, or None; blocks are sessions."""
    if container_of(X) != "array" and sessions is not None:
        raise ValueError(
            "sessions= cannot be given together with X as sessions; leave sessions out, or give a "
            "2-D X."
        )
    if container_of(X) == "array" and isinstance(splitter, BlockKFold):
        return splitter.block_labels(X, sessions)
    return sessions


def _check_scorer(estimator, scoring):
    """The scorer; with None, one that calls `score`."""
    if scoring is None:
        return check_scoring(estimator)
    if not isinstance(scoring, str) and not callable(scoring):
        raise ValueError(
            f"scoring must be a name, a callable or None, but is {scoring!r}; compare by one "
            "metric at a time."
        )
    scorer = get_scorer(scoring)
    if isinstance(scorer, ResponseScorer):
        return clone(scorer).set_params(multioutput="raw_values")
    return check_scoring(estimator, scorer)


def _route(estimator, scorer, splitter, data, params) -> dict[str, dict]:
    """Metadata for the splitter, `fit` and the scorer.

    Sessions reach every object that takes them, and are the groups of a splitter that needs groups
    and gets none. The rest is routed by scikit-learn, which raises an error if nothing takes it. A
    scorer of None is the estimator's own `score`: the scorer that scikit-learn 1.7 makes of it
    routes nothing through a pipeline.
    """
    scorer = estimator if scorer is None else scorer
    callees = {"splitter": "split", "estimator": "fit", "scorer": "score"}
    objects = {"splitter": splitter, "estimator": estimator, "scorer": scorer}
    with config_context(enable_metadata_routing=True):
        router = MetadataRouter(owner="compare_models")
        for name, callee in callees.items():
            mapping = MethodMapping().add(caller="fit", callee=callee)
            router.add(method_mapping=mapping, **{name: _routable(objects[name])})
        if data.are_rows and router.consumes("fit", ["sessions"]):
            # A fold may have several sessions even if the recording is one.
            labels = np.zeros(len(data.X), dtype=int) if data.labels is None else data.labels
            params = params | {"sessions": labels}
        found = process_routing(router, "fit", **params)
        routed = {callee: dict(found[name][callee]) for name, callee in callees.items()}
    if data.labels is None:
        routed["split"].pop("sessions", None)
    groups = data.labels if data.are_rows else np.arange(len(data.X))
    if groups is not None and _consumes_groups(splitter):
        routed["split"].setdefault("groups", groups)
    return routed


def _consumes_groups(splitter) -> bool:
    request = getattr(splitter, "get_metadata_routing", None)
    return request is not None and bool(request().consumes("split", ["groups"]))


def _routable(consumer):
    """An object that takes metadata, or None for an estimator that raises if it is asked."""
    try:
        get_routing_for_object(consumer)
    except NotImplementedError:
        return None
    return consumer


def _tabulate(names, table, seeds, error_score, paired_over, test_to_train) -> ModelComparison:
    """Turn evaluations (n_candidates, n_folds, n_repeats) into arrays."""
    failures = [
        Failure(names[which], fold, number, *table[which, fold, number].failure)
        for which, fold, number in np.ndindex(table.shape)
        if table[which, fold, number].failure
    ]
    _warn_of_failures(failures, table.shape)
    scores = _scores_of(table, error_score)
    failed = {one.name for one in failures} if np.isnan(error_score) else set()
    complete = np.array([name not in failed for name in names])
    if scores.ndim == 3:
        paired_over = "folds"
    elif paired_over is None:
        paired_over = "both" if scores.shape[1] > 1 else "outputs"
    summary = summarise(scores, complete, paired_over, test_to_train)
    if np.isnan(summary["mean_score"]).all():
        raise ValueError(f"No candidate has a score in all folds. Scores are:\n{scores}")
    return ModelComparison(
        names=names,
        scores=scores,
        **summary,
        best_name=names[summary["best_index"]],
        fit_seconds=_collect(table, "fit_seconds", float),
        score_seconds=_collect(table, "score_seconds", float),
        agreement=np.array([_agreement(folds) for folds in table]),
        seeds=seeds,
        failures=failures,
    )


def _scores_of(table, error_score) -> np.ndarray:
    """Scores (n_candidates, n_folds, n_repeats), and an axis of outputs if there are several."""
    sizes = {len(one.scores) for one in table.ravel() if one.scores is not None}
    if len(sizes) > 1:
        raise ValueError(
            f"Candidates have scores of {sorted(sizes)} outputs, but must have the same."
        )
    scores = np.full((*table.shape, *sizes), error_score, dtype=float)
    for place in np.ndindex(table.shape):
        if table[place].scores is not None:
            scores[place] = table[place].scores
    return scores[..., 0] if sizes == {1} else scores


def _warn_of_failures(failures, shape) -> None:
    """Warn of failures, or raise an error if all fits failed."""
    if not failures:
        return
    n_fits = int(np.prod(shape))
    lines = "\n".join(describe_failures(failures, n_fits // shape[0]))
    if len(failures) == n_fits:
        raise ValueError(
            f"All {n_fits} fits failed; set error_score='raise' to see where.\n{lines}"
        )
    warnings.warn(
        f"{len(failures)} of {n_fits} fits failed.\n{lines}", FitFailedWarning, stacklevel=4
    )


def _agreement(folds) -> float:
    """Mean agreement of repeats over folds."""
    values = [
        mean_agreement([one.alpha for one in fold if one.alpha is not None]) for fold in folds
    ]
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else np.nan


def _collect(table: np.ndarray, name: str, dtype) -> np.ndarray:
    values = np.empty(table.shape, dtype=dtype)
    for place in np.ndindex(table.shape):
        values[place] = getattr(table[place], name)
    return values
