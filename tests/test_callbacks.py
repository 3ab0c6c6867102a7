"""Callbacks of scikit-learn: information about a fit, and stopping it."""

import pickle
import runpy
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skdyn
from skdyn import DyNeMoEstimator, NEMSRegressor
from skdyn.metrics import correlation_scorer

RNG = np.random.default_rng(0)
X = RNG.standard_normal((200, 3)) * np.where(np.arange(200) % 40 < 20, 1, 3)[:, np.newaxis]
y = np.maximum(X[:, 0] + np.roll(X[:, 1], 1), 0) + 0.1 * RNG.standard_normal(200)

DYNEMO = DyNeMoEstimator(
    n_modes=2,
    sequence_length=20,
    inference_n_units=3,
    model_n_units=3,
    n_epochs=6,
    init_method="random",
    n_refinement_steps=3,
    random_state=0,
)
MODELS = {
    "dynemo": DYNEMO,
    "dynemo, watched": clone(DYNEMO).set_params(n_iter_no_change=3, n_kl_annealing_epochs=0),
    "lbfgs": NEMSRegressor("wc.x2-fir.2-relu", history="zeros", max_iter=6, tol=0),
    "lbfgs, held out": NEMSRegressor(
        "wc.x2-fir.2-relu", history="zeros", max_iter=6, tol=0, early_stopping=True, random_state=0
    ),
    "numeric": NEMSRegressor("wc.x1-relu", max_iter=4, tol=0),
    "adam": NEMSRegressor(
        "wc.x2-fir.2-relu", history="zeros", solver="adam", max_iter=6, random_state=0
    ),
    "adam, held out": NEMSRegressor(
        "wc.x2-fir.2-relu",
        history="zeros",
        solver="adam",
        max_iter=6,
        early_stopping=True,
        random_state=0,
    ),
    "starts": NEMSRegressor(
        "wc.x2-fir.2-relu", history="zeros", n_init=3, max_iter=3, tol=0, random_state=0
    ),
    "closed form": NEMSRegressor("wc-lvl", n_init=2),
}
every_model = pytest.mark.parametrize("kind", MODELS)
callback = pytest.importorskip("sklearn.callback", reason="scikit-learn 1.9 has callbacks")

pytestmark = pytest.mark.filterwarnings(
    f"ignore::{ConvergenceWarning.__module__}.{ConvergenceWarning.__qualname__}"
)


class Listener:
    """Notes each task, and asks to stop after some."""

    def __init__(self, stop_after=None):
        self.stop_after = stop_after
        self.begun, self.ended, self.models, self.metadata, self.open = [], [], {}, [], 0

    def setup(self, estimator, context):
        self.open += 1

    def teardown(self, estimator, context):
        self.open -= 1

    def on_fit_task_begin(self, estimator, context, *, X, metadata):
        self.begun.append(path_of(context))
        self.metadata.append(metadata)

    def on_fit_task_end(self, estimator, context, *, X, y, fitted_estimator):
        assert X is not None
        self.ended.append(path_of(context))
        self.models[self.ended[-1]] = fitted_estimator
        return (context.task_name, context.task_id) == self.stop_after


def path_of(context):
    parents = path_of(context.parent) if context.parent is not None else ()
    return (*parents, (context.task_name, context.task_id))


def fit(model, *callbacks, **metadata):
    return clone(model).set_callbacks(*callbacks).fit(X, y, **metadata)


def same(first, second):
    return (
        np.array_equal(first.predict(X), second.predict(X))
        and first.score(X, y) == second.score(X, y)
        and {**first.history_, "seconds": 0} == {**second.history_, "seconds": 0}
    )


# Information that callbacks receive


@every_model
def test_every_step_is_seen_with_its_numbers(kind):
    listener = Listener()
    model = fit(MODELS[kind], listener)
    assert sorted(listener.begun) == sorted(listener.ended)
    assert listener.open == 0
    root = (("fit", 0),)
    assert listener.begun[0] == listener.ended[-1] == root
    assert same(listener.models[root], model)
    name = "iteration" if getattr(model, "solver", "adam") == "lbfgs" else "epoch"
    starts = [root]
    if isinstance(model, NEMSRegressor):
        starts = [one for one in listener.ended if one[-1][0] == "start"]
        assert len(starts) == (1 if kind == "closed form" else model.n_init)
    for start in starts:
        steps = [one for one in listener.ended if one[:-1] == start]
        whole = listener.models[start]
        assert steps == [(*start, (name, number)) for number in range(whole.n_iter_)]
        for number, step in enumerate(steps, start=1):
            seen = listener.models[step]
            assert seen.n_iter_ == number
            assert seen.history_ == {k: v[:number] for k, v in whole.history_.items()}
        assert same(listener.models[steps[-1]], whole)


@every_model
def test_what_is_seen_is_a_fit_that_ended_there(kind):
    """A later step must not change it; scores differ between steps."""
    listener = Listener()
    model = fit(MODELS[kind], listener)
    last = max(path for path in listener.ended if path[-1][0] in ("epoch", "iteration"))
    for number in range(last[-1][1] + 1):
        stopped = fit(MODELS[kind], Listener(stop_after=(last[-1][0], number)))
        path = (*last[:-1], (last[-1][0], number))
        if kind != "starts":
            assert same(listener.models[path], stopped)
            assert stopped.n_iter_ == number + 1
            assert not stopped.converged_ or number + 1 == model.n_iter_


@every_model
def test_callbacks_do_not_change_a_fit(kind):
    assert same(fit(MODELS[kind], Listener()), clone(MODELS[kind]).fit(X, y))


def test_fit_with_nothing_to_improve_has_no_step():
    listener = Listener()
    model = NEMSRegressor("wc.x2-fir.2-lvl").set_callbacks(listener).fit(X, np.zeros(200))
    assert model.n_iter_ == 0
    assert not any(path[-1][0] == "iteration" for path in listener.begun)
    assert all(one.n_iter_ == 0 for one in listener.models.values())


# Stopping


@pytest.mark.parametrize("kind", ["dynemo", "dynemo, watched", "lbfgs", "adam", "adam, held out"])
@pytest.mark.parametrize("where", ["alone", "pipeline", "search"])
def test_a_stop_is_a_stop(kind, where):
    unit = "iteration" if kind == "lbfgs" else "epoch"
    listener = Listener(stop_after=(unit, 1))
    model = clone(MODELS[kind]).set_callbacks(listener)
    if where == "pipeline":
        model = make_pipeline(StandardScaler(), model)
    elif where == "search":
        model = GridSearchCV(model, {"random_state": [0]}, cv=2)
    model.fit(X, y)
    fitted = {"alone": lambda: model, "pipeline": lambda: model[-1]}.get(
        where, lambda: model.best_estimator_
    )()
    assert fitted.n_iter_ == 2
    assert not fitted.converged_
    assert "was asked to stop" in fitted.summary()
    n_fits = 3 if where == "search" else 1
    assert sum(one[-1][0] == unit for one in listener.ended) == 2 * n_fits
    assert listener.open == 0


@pytest.mark.parametrize("solver", ["lbfgs", "adam"])
def test_the_best_weights_stay(solver):
    """Of a fit to noise, which has a rising held-out loss."""
    model = NEMSRegressor(
        "fir.20xx-lvl", solver=solver, learning_rate=1.0, early_stopping=True, random_state=2
    )
    unit = "epoch" if solver == "adam" else "iteration"
    listener = Listener(stop_after=(unit, 3))
    noise = np.random.default_rng(0).standard_normal(200)
    model.set_callbacks(listener).fit(X, noise)
    losses = model.history_["validation_loss"]
    assert len(losses) == 4
    best = int(np.argmin(losses))
    assert best < 3
    for number in range(best, 4):
        seen = listener.models[(("fit", 0), ("start", 0), (unit, number))]
        np.testing.assert_array_equal(seen.predict(X), model.predict(X))


def test_stopping_a_start_leaves_out_those_to_come():
    listener = Listener(stop_after=("start", 1))
    fit(MODELS["starts"], listener)
    assert [one[-1] for one in listener.ended if len(one) == 2] == [("start", 0), ("start", 1)]
    listener = Listener(stop_after=("iteration", 0))
    fit(MODELS["starts"], listener)
    assert [one[-1][1] for one in listener.ended if len(one) == 3] == [0, 0, 0]


def test_a_fit_that_was_asked_to_stop_does_not_warn(recwarn):
    for kind in ("dynemo, watched", "lbfgs", "adam"):
        unit = "iteration" if kind == "lbfgs" else "epoch"
        fit(MODELS[kind], Listener(stop_after=(unit, 0)))
    assert not len(recwarn)


def test_an_error_in_a_fit_closes_callbacks():
    def bad_loss(target, prediction, weight):
        raise ArithmeticError("bad")

    listener = Listener()
    with pytest.raises(ArithmeticError, match="bad"):
        fit(NEMSRegressor(loss=bad_loss), listener)
    assert listener.begun
    assert listener.open == 0


# scikit-learn's own


@pytest.mark.parametrize("kind", ["dynemo", "lbfgs", "adam", "starts", "closed form"])
def test_progress_bars(kind, capfd):
    pytest.importorskip("rich")
    fit(MODELS[kind], callback.ProgressBar())
    shown = capfd.readouterr()
    assert "fit" in shown.out
    assert "100%" in shown.out
    assert shown.err == ""
    fit(MODELS[kind])
    assert capfd.readouterr() == ("", "")


def test_a_progress_bar_of_a_search_reaches_the_model(capfd):
    pytest.importorskip("rich")
    search = GridSearchCV(clone(DYNEMO), {"n_modes": [2]}, cv=2)
    search.set_callbacks(callback.ProgressBar(max_propagation_depth=None)).fit(X)
    assert "DyNeMoEstimator" in capfd.readouterr().out


@pytest.mark.parametrize("kind", ["lbfgs", "adam, held out", "closed form"])
def test_scores_are_monitored(kind):
    monitor = callback.ScoringMonitor(scoring=["r2", "neg_mean_squared_error"])
    model = fit(MODELS[kind], monitor)
    rows = monitor.get_logs().data
    steps = [row for row in rows if row["task_name"] in ("iteration", "epoch")]
    assert len(steps) == model.n_iter_
    (whole,) = [row for row in rows if row["task_name"] == "fit"]
    assert whole["r2"] == pytest.approx(model.score(X, y))
    if kind == "lbfgs":
        errors = [-row["neg_mean_squared_error"] for row in steps]
        assert errors == pytest.approx(model.history_["loss"])


def score_of(estimator, X, y, **metadata):
    return {"bound": estimator.score(X)}


def test_scores_of_what_has_no_target_are_monitored_where_there_is_a_y():
    monitor = callback.ScoringMonitor(scoring=score_of)
    model = fit(DYNEMO, monitor)
    rows = monitor.get_logs().data
    bounds = [row["bound"] for row in rows if row["task_name"] == "epoch"]
    assert len(set(bounds)) == 6
    assert bounds[-1] == model.score(X)


@pytest.mark.parametrize("routing", [True, False])
def test_metadata_reach_callbacks(routing):
    from sklearn import config_context

    labels, weight = np.repeat([0, 1], 100), np.ones(200)
    listener = Listener()
    monitor = callback.ScoringMonitor(scoring={"correlation": correlation_scorer})
    with config_context(enable_metadata_routing=routing):
        model = fit(NEMSRegressor("fir.4-lvl"), listener, monitor, sessions=labels)
        fit(NEMSRegressor(), listener, sample_weight=weight)
    first, last = listener.metadata[0], listener.metadata[-1]
    assert list(first) == (["sessions"] if routing else [])
    assert list(last) == ["sample_weight"]
    given = {"sessions": labels} if routing else {}
    wanted = correlation_scorer(model, X, y, **given)
    assert monitor.get_logs().data[0]["correlation"] == pytest.approx(wanted)


# Copies


@pytest.mark.parametrize("kind", ["dynemo", "lbfgs"])
def test_copies_keep_their_callbacks(kind, tmp_path):
    listener = Listener()
    model = clone(MODELS[kind]).set_callbacks(listener)
    # A clone has the same callbacks, a pickle has copies.
    clone(model).fit(X, y)
    assert listener.ended
    model.fit(X, y)
    n_seen = len(listener.ended)
    joblib.dump(model, tmp_path / "model")
    for copy in (pickle.loads(pickle.dumps(model)), joblib.load(tmp_path / "model")):
        np.testing.assert_array_equal(copy.predict(X), model.predict(X))
        copy.fit(X, y)
    assert len(listener.ended) == n_seen
    assert not any(name.startswith("_callback") for name in vars(model))


def test_seen_models_can_be_kept(tmp_path):
    listener = Listener()
    fit(DYNEMO, listener)
    seen = listener.models[(("fit", 0), ("epoch", 2))]
    copy = pickle.loads(pickle.dumps(clone(seen)))
    assert isinstance(copy, BaseEstimator)
    assert seen.transform(X).shape == (200, 2)


# Without them


def test_a_scikit_learn_without_callbacks(monkeypatch):
    """The replacement mixin supports all calls of a fit."""
    monkeypatch.setitem(sys.modules, "sklearn.callback", None)
    names = runpy.run_path(str(Path(skdyn.__file__).with_name("_callbacks.py")))

    class Plain(names["CallbackSupportMixin"], BaseEstimator):
        pass

    task = names["FitTask"].of(Plain(), 3, X, sessions=None)
    watcher = names["StepWatcher"](task, "epoch", dict)
    watcher.begin()
    assert watcher.end({"loss": 1.0}, None) is False
    watcher.begin()
    watcher.close()
    assert task.end({}) is False
    assert not hasattr(Plain(), "set_callbacks")
