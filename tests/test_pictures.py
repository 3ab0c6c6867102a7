"""Every picture of the package: names on its axes, texts apart and inside, data in every form."""

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skdyn.plotting
from skdyn import ModeMatcher, NEMSRegressor
from skdyn.analysis import channel_modes
from skdyn.model_selection import compare_models
from skdyn.nems import Model, from_keywords
from skdyn.plotting import (
    BadSegmentsDisplay,
    LayersDisplay,
    ModesDisplay,
    NEMSDisplay,
    ReceptiveFieldDisplay,
    StartsDisplay,
    StateDisplay,
    TrainingDisplay,
    TuningDisplay,
    linear_filter,
    plot_alpha,
    plot_circles,
    plot_filters,
    plot_matrices,
    plot_nonlinearity,
    plot_predictions,
    plot_raster,
    plot_separate_time_series,
    plot_topomaps,
)
from skdyn.preprocessing import BadSegments, SessionPCA, SessionScaler, TimeDelayPCA
from tests.pictures import faults

RATE = {"sampling_frequency": 100}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def rng():
    return np.random.default_rng(0)


# ---------------------------------------------------------- each picture with n panels or rows


def draw_alphas(n):
    alphas = rng().dirichlet(np.ones(n), size=(n, 40))
    labels = [f"Subject {k}" for k in range(n)]
    return plot_alpha(*alphas, labels=labels, **RATE)[0]


def draw_series(n):
    true, found = rng().standard_normal((2, 200, n))
    return plot_separate_time_series(true, found, labels=["True", "Inferred"], **RATE)[0]


def covariances(n):
    factors = rng().standard_normal((n, 30, 40))
    return factors @ factors.transpose(0, 2, 1)


def draw_matrices(n):
    return plot_matrices(covariances(n), titles=[f"Mode {k}" for k in range(n)])[0]


def draw_circles(n):
    names = [f"Region_{k}_L" for k in range(30)]
    return plot_circles(covariances(n), channel_names=names, label="Covariance")[0]


def draw_topomaps(n):
    pytest.importorskip("mne")
    values, positions = rng().standard_normal((n, 30)), rng().uniform(-0.5, 0.5, (30, 2))
    return plot_topomaps(values, positions, label="Power (dB)")[0]


def draw_raster(n):
    alphas = rng().dirichlet(np.ones(n), size=(n, 40))
    labels = [f"Subject {k}" for k in range(n)]
    return plot_raster(*alphas, labels=labels, **RATE)[0]


def draw_modes(n):
    weights, means = np.full(n, 1 / n), rng().standard_normal((n, 30))
    return ModesDisplay(covariances=covariances(n), means=means, weights=weights).plot().figure_


def draw_filters(n):
    filters = rng().standard_normal((15, 18, n))
    named = {"frequencies": np.geomspace(200, 20000, 18), "titles": [f"Unit {k}" for k in range(n)]}
    return plot_filters(filters, **named, **RATE)[0]


def draw_nonlinearities(n):
    inputs = rng().standard_normal((200, n)) * 0.01
    response = rng().poisson(np.exp(inputs))
    return plot_nonlinearity(np.exp, inputs, response, titles=[f"Unit {k}" for k in range(n)])[0]


def draw_predictions(n):
    prediction = rng().gamma(1, size=(200, n)) * 10.0 ** np.arange(n)
    return plot_predictions(rng().poisson(prediction), prediction, **RATE)[0]


def draw_encoding_model(n):
    model = Model(from_keywords(f"wc.6x1x2-fir.4x1x2-wc.2x{n}-lvl.{n}-dexp.{n}"))
    stimulus = rng().standard_normal((200, 6))
    model.evaluate(stimulus)
    model = model.sample_from_priors(random_state=1)
    prediction = model.predict(stimulus)
    display = NEMSDisplay.from_estimator(model, stimulus, prediction + 0.01)
    display.loss = 0.0006382 + 1e-7 / np.arange(1, 9)
    return display.plot(outputs=range(n), **RATE).figure_


def draw_training(n):
    losses = 25 + 1 / np.arange(1, n + 1)
    history = {"loss": losses, "ll_loss": losses - 1, "validation_loss": losses + 0.1}
    history |= {"kl_factor": np.linspace(0.1, 1, n), "learning_rate": 0.01 / np.arange(1, n + 1)}
    return TrainingDisplay(history=history, unit="nats").plot().figure_


def draw_receptive_fields(n):
    model = Model(from_keywords("wc.18x4-fir.15x1x4-relu.4-wc.4x1"))
    model = model.sample_from_priors(random_state=0)
    named = {"frequencies": np.geomspace(200, 20000, 18), **RATE}
    given = rng().standard_normal((300, 18))
    display = ReceptiveFieldDisplay.from_estimator
    return display(model, given, n_components=n, n_fields=n, **named).figure_


def draw_tuning(n):
    curves = rng().gamma(1, size=(4, 18, n)).cumsum(axis=0)
    display = TuningDisplay(curves=curves, levels=[10, 20, 40, 80])
    return display.plot(frequencies=np.geomspace(200, 20000, 18)).figure_


def draw_layers(n):
    readout = np.linspace(0.1, 0.9, n)[:, None] + 0.05 * rng().standard_normal((n, 20))
    names = [f"layer{k}" for k in range(n)]
    return LayersDisplay(names=names, readout=readout, unique=0.1 * readout).plot().figure_


def draw_states(n):
    values = np.linspace(0, 1, 5) * np.ones((n, 1))
    gain = 1 + 0.1 * rng().standard_normal((n, 5, 3)).cumsum(axis=1)
    return StateDisplay(values=values, gain=gain, offset=0.01 * gain).plot().figure_


def draw_starts(n):
    losses = [0.5 + 0.01 * k + 1 / np.arange(1, 20 + k) for k in range(n)]
    parameters = rng().standard_normal((n, 40))
    return StartsDisplay(losses=losses, parameters=parameters, best=n - 1).plot().figure_


def draw_bad_segments(n):
    X = list(rng().standard_normal((n, 200, 3)))
    X[0][50:70] *= 100
    X[1][190:] = np.nan
    X[2][100:150] = 0
    return BadSegmentsDisplay.from_estimator(BadSegments().fit(X), **RATE).figure_


def draw_comparison(n):
    X = rng().standard_normal((60, 2))
    y = X[:, 0] + rng().standard_normal(60)
    models = {f"Ridge, penalty {10**k}": Ridge(10**k) for k in range(n)}
    return compare_models(models, X, y, cv=4).plot()[0]


DRAWN = {
    "plot_alpha": draw_alphas,
    "plot_separate_time_series": draw_series,
    "plot_matrices": draw_matrices,
    "plot_circles": draw_circles,
    "plot_topomaps": draw_topomaps,
    "plot_raster": draw_raster,
    "plot_filters": draw_filters,
    "plot_nonlinearity": draw_nonlinearities,
    "plot_predictions": draw_predictions,
    "ModesDisplay": draw_modes,
    "NEMSDisplay": draw_encoding_model,
    "ReceptiveFieldDisplay": draw_receptive_fields,
    "TuningDisplay": draw_tuning,
    "LayersDisplay": draw_layers,
    "StateDisplay": draw_states,
    "StartsDisplay": draw_starts,
    "TrainingDisplay": draw_training,
    "BadSegmentsDisplay": draw_bad_segments,
    "ModelComparison": draw_comparison,
}


def test_pictures_are_all_drawn_here():
    public = {
        name
        for name in skdyn.plotting.__all__
        if name.startswith("plot_") or name.endswith("Display")
    }
    assert set(DRAWN) == public | {"ModelComparison"}


@pytest.mark.parametrize("n_panels", [3, 5, 7, 12])
@pytest.mark.parametrize("name", DRAWN)
def test_pictures_have_names_and_texts_that_are_apart_and_inside(name, n_panels):
    fig = DRAWN[name](n_panels)
    fig.set_dpi(60)
    assert faults(fig) == []


BARS = {
    "plot_nonlinearity": ["Model", "Measured ± SE"],
    "ModelComparison": ["Fold", "Mean ± SE"],
    "plot_separate_time_series": ["True", "Inferred"],
    "plot_predictions": ["Response", "Prediction"],
    "BadSegmentsDisplay": ["Amplitude", "Missing", "Flat", "Threshold"],
}


@pytest.mark.parametrize("name", DRAWN)
def test_pictures_say_what_bars_and_colours_are(name):
    fig = DRAWN[name](3)
    legends = [panel.get_legend() for panel in fig.axes if panel.get_legend()]
    texts = [text.get_text() for legend in legends for text in legend.get_texts()]
    assert set(BARS.get(name, [])) <= set(texts)
    has_bars = any(panel.containers for panel in fig.axes)
    assert not has_bars or any("SE" in text for text in texts)
    for panel in fig.axes:
        if panel.get_label() == "<colorbar>":
            assert panel.get_ylabel()


# ------------------------------------------------------------------- the checks can fail


def three_panels():
    fig, axes = plt.subplots(2, 2, layout="constrained")
    axes[1, 1].remove()
    for panel in axes.ravel()[:3]:
        panel.set(xlabel="Time (s)", ylabel="Rate (Hz)", title="Unit", xticks=[0, 1], yticks=[0, 1])
    return fig, axes.ravel()[:3]


FAULTS = {
    "has numbers and no name": lambda fig, axes: axes[2].set_xlabel(""),
    "has marks and no numbers": lambda fig, axes: axes[1].tick_params(labelbottom=False),
    "is cut off": lambda fig, axes: axes[1].set_title("A title that is far too long" * 5),
    "overlaps": lambda fig, axes: axes[0].set_xticks([0, 0.01], labels=["first", "second"]),
    "lies on another panel": lambda fig, axes: (
        axes[0].text(1.7, 0.5, "Stray", transform=axes[0].transAxes).set_in_layout(False)
    ),
    "lies on a mark": lambda fig, axes: (
        axes[0]
        .add_patch(plt.Rectangle((0, 1), 1, 0.1, transform=axes[0].transAxes))
        .set_clip_on(False)
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_finds_a_fault(fault):
    fig, axes = three_panels()
    assert faults(fig) == []
    FAULTS[fault](fig, axes)
    assert any(fault in one for one in faults(fig))


# --------------------------------------------------------------------- forms of sessions

LENGTHS = [30, 30, 30]


def forms(rows):
    """The same rows as one array, a frame, sessions in a list, a tuple, frames and a stack."""
    parts = np.split(rows, np.cumsum(LENGTHS)[:-1])
    found = {"array": rows, "list": parts, "tuple": tuple(parts), "stack": np.stack(parts)}
    if rows.ndim == 2:
        found |= {"frame": pd.DataFrame(rows), "frames": [pd.DataFrame(part) for part in parts]}
    else:
        del found["stack"]  # is rows of many outputs, see plot_predictions
    return found


ROWS = rng().dirichlet(np.ones(3), size=90)
OTHER = rng().permuted(ROWS, axis=1)
ONE = ROWS[:, 0].copy()
RESPONDING = {
    "plot_alpha": (plot_alpha, ROWS),
    "plot_raster": (plot_raster, ROWS),
    "plot_separate_time_series": (plot_separate_time_series, ROWS, OTHER),
    "plot_predictions": (plot_predictions, ROWS, OTHER),
    "plot_predictions of one output": (plot_predictions, ONE, ONE**2),
    "plot_nonlinearity": (partial(plot_nonlinearity, np.square), ROWS, OTHER),
    "plot_nonlinearity of one channel": (partial(plot_nonlinearity, np.square), ONE, ONE**2),
}


def what_is_seen(fig):
    """Labels of a figure and the numbers in its lines and areas."""
    texts, numbers = [], []
    for panel in fig.axes:
        texts += [panel.get_xlabel(), panel.get_ylabel(), panel.get_title(loc="left")]
        texts += [panel.get_title(), panel.get_xlim(), panel.get_ylim()]
        lines = [line.get_xydata() for line in panel.lines if len(line.get_xydata()) > 2]
        numbers += [line[~np.isnan(line).any(axis=1)] for line in lines]
        numbers += [area.get_paths()[0].vertices for area in panel.collections]
    return texts, numbers


@pytest.mark.parametrize("name", RESPONDING)
def test_pictures_of_sessions_are_those_of_their_rows(name):
    draw, *data = RESPONDING[name]
    texts, numbers = what_is_seen(draw(*data)[0])
    data = [forms(one) for one in data]
    for form in data[0]:
        fig, axes = draw(*(one[form] for one in data))
        shown, drawn = what_is_seen(fig)
        assert shown == texts
        for one, other in zip(drawn, numbers, strict=True):
            np.testing.assert_allclose(one, other)
        borders = [line.get_xdata()[0] for line in axes[0].lines if len(line.get_xdata()) == 2]
        is_over_time = "nonlinearity" not in name and form not in ("array", "frame")
        assert borders == ([29.5, 59.5] if is_over_time else [])


def test_lines_do_not_cross_from_session_to_session():
    parts = np.split(ROWS, [20, 70])
    _, axes = plot_separate_time_series(parts, sampling_frequency=10)
    x, y = axes[0].lines[0].get_data()
    assert np.flatnonzero(np.isnan(y)).tolist() == [20, 71]
    np.testing.assert_allclose(x[[20, 71]], [1.95, 6.95])
    _, axes = plot_predictions(parts, ROWS, start=10, n_samples=30)
    for line in axes[0].lines[:2]:
        assert np.flatnonzero(np.isnan(line.get_ydata())).tolist() == [10]
    assert axes[0].lines[2].get_xdata()[0] == 19.5


# ------------------------------------------------- estimators, pipelines and searches


class Modes(TransformerMixin, BaseEstimator):
    """As much of a mode model as the Displays may use."""

    __metadata_request__transform = {"sessions": True}  # noqa: RUF012

    def fit(self, X, y=None):
        self.covariances_, self.means_ = covariances(3)[:, :2, :2], np.zeros((3, 2))
        self.covariances_ += np.arange(3)[:, None, None] * 1000
        self.history_ = {"loss": [3.0, 2.0], "ll_loss": [2.0, 1.0]}
        return self

    def transform(self, X, *, sessions=None):
        if isinstance(X, list):
            return [self.transform(one) for one in X]
        self.seen_ = X, sessions
        weights = np.exp(np.c_[X[:, :2], 0 * X[:, 0]])
        return weights / weights.sum(axis=1, keepdims=True)

    def score(self, X, y=None):
        return 0.0


STIMULUS = rng().standard_normal((90, 2)) * [1, 30]
RESPONSE = np.maximum(STIMULUS @ [1, 0.02] + np.roll(STIMULUS[:, 0], 1), 0)
SESSIONS = np.repeat([0, 1, 2], LENGTHS)


def wrapped(model, *steps):
    pipeline = make_pipeline(*steps, model)
    return {
        "pipeline": pipeline,
        "nested": make_pipeline(make_pipeline(*steps), GridSearchCV(model, {}, cv=2)),
        "search": GridSearchCV(pipeline, {}, cv=2),
    }


KINDS = ["pipeline", "nested", "search"]


@pytest.mark.parametrize("kind", KINDS)
def test_modes_display_unwraps(kind):
    scaler, alone = SessionScaler().fit(STIMULUS), Modes().fit(STIMULUS)
    given = wrapped(Modes(), SessionScaler())[kind]
    for draw in (ModesDisplay.from_estimator, TrainingDisplay.from_estimator):
        with pytest.raises(NotFittedError, match=f"This {type(given).__name__} instance is not f"):
            draw(given)
    given.fit(STIMULUS)
    scaled = scaler.transform(STIMULUS, sessions=SESSIONS)
    plain = ModesDisplay.from_estimator(alone, scaled)
    display = ModesDisplay.from_estimator(given, STIMULUS, sessions=SESSIONS)
    np.testing.assert_allclose(display.weights, plain.weights)
    np.testing.assert_array_equal(display.covariances, plain.covariances)
    again = ModesDisplay.from_estimator(given, forms(STIMULUS)["list"])
    np.testing.assert_allclose(again.weights, plain.weights)
    history = TrainingDisplay.from_estimator(given)
    assert history.lines_["loss"].get_ydata().tolist() == [3, 2]
    assert history.ax_.get_xlabel() == "Epoch"
    assert history.ax_.get_ylabel() == "Loss (nats)"


@pytest.mark.parametrize("step", [SessionPCA(2), TimeDelayPCA(3, 2)], ids=repr)
def test_modes_display_of_a_pipeline_draws_channels(step):
    pipeline = make_pipeline(step, Modes()).fit(STIMULUS)
    display = ModesDisplay.from_estimator(pipeline)
    expected = channel_modes(pipeline)
    assert display.covariances.shape[1:] == (STIMULUS.shape[1],) * 2
    np.testing.assert_array_equal(display.covariances, expected.covariances)
    np.testing.assert_array_equal(display.means, expected.means)
    alone = ModesDisplay.from_estimator(pipeline[-1])
    np.testing.assert_array_equal(alone.covariances, pipeline[-1].covariances_)


def test_modes_display_follows_a_matcher():
    reference = Modes().fit(STIMULUS).transform(STIMULUS)[:, [2, 0, 1]]
    pipeline = make_pipeline(Modes(), ModeMatcher(reference)).fit(STIMULUS)
    display = ModesDisplay.from_estimator(pipeline, STIMULUS)
    np.testing.assert_allclose(display.weights, reference.mean(axis=0))
    np.testing.assert_array_equal(display.covariances, pipeline[0].covariances_[[2, 0, 1]])


@pytest.mark.filterwarnings(f"ignore::{ConvergenceWarning.__module__}.ConvergenceWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_nems_display_unwraps(kind):
    model = NEMSRegressor("fir.2-lvl-relu", max_iter=3, random_state=0)
    given = wrapped(model, SessionScaler())[kind]
    draw = NEMSDisplay.from_estimator
    with pytest.raises(NotFittedError, match=f"This {type(given).__name__} instance is not fitted"):
        draw(given, STIMULUS, RESPONSE)
    given.fit(STIMULUS, RESPONSE)
    scaled = SessionScaler().fit(STIMULUS).transform(STIMULUS, sessions=SESSIONS)
    last = getattr(given, "best_estimator_", given)[-1]
    last = getattr(last, "best_estimator_", last)
    plain = draw(last, scaled, RESPONSE, sessions=SESSIONS)
    stimuli, responses = forms(STIMULUS), forms(RESPONSE)
    for X, y, sessions in [
        (STIMULUS, RESPONSE, SESSIONS),
        (stimuli["list"], responses["list"], None),
        (stimuli["stack"], np.reshape(RESPONSE, (3, 30)), None),
    ]:
        display = draw(given, X, y, sessions=sessions)
        for name in ("prediction", "response", "filters", "inputs", "loss", "session_lengths"):
            np.testing.assert_allclose(getattr(display, name), getattr(plain, name))
        assert display.session_lengths.tolist() == LENGTHS
        lines = display.prediction_ax_[0].lines
        assert [line.get_xdata()[0] for line in lines[2:]] == [29.5, 59.5]
    filters, lags = linear_filter(given)
    np.testing.assert_array_equal(filters, linear_filter(last.model_, 2)[0])
    (panel,) = plot_filters(given)[1]
    np.testing.assert_array_equal(panel.images[0].get_array(), filters[:, :, 0].T)
    assert lags.tolist() == [0, 1]


@pytest.mark.filterwarnings(f"ignore::{ConvergenceWarning.__module__}.ConvergenceWarning")
@pytest.mark.parametrize(
    ("solver", "layers", "step"),
    [
        ("lbfgs", "fir.2-relu", "Iteration"),
        ("adam", "fir.2-relu", "Epoch"),
        ("lbfgs", None, "Iteration"),
    ],
)
def test_training_display_names_the_steps_of_the_solver(solver, layers, step):
    model = NEMSRegressor(layers, solver=solver, max_iter=3).fit(STIMULUS, RESPONSE)
    display = TrainingDisplay.from_estimator(model)
    assert display.ax_.get_xlabel() == step
    assert display.ax_.get_ylabel() == "Loss"
    assert TrainingDisplay.from_estimator(model, step="Round").ax_.get_xlabel() == "Round"
    display = NEMSDisplay.from_estimator(model, STIMULUS, RESPONSE)
    assert display.loss_ax_[0].get_xlabel() == step
    display = NEMSDisplay.from_estimator(model.model_, STIMULUS, RESPONSE)
    assert display.loss_ax_[0].get_xlabel() == step


NO_MODEL = {
    "modes": (ModesDisplay.from_estimator, r"has no means_ and covariances_\. Pass"),
    "training": (TrainingDisplay.from_estimator, r"has no history_\. Pass"),
    "segments": (BadSegmentsDisplay.from_estimator, r"has no segments_ and scores_\. Pass"),
    "encoding": (partial(NEMSDisplay.from_estimator, X=STIMULUS), r"has no model_\. Pass"),
    "filter": (linear_filter, r"has no model_ and n_features_in_\. Pass"),
    "filters": (plot_filters, r"has no model_ and n_features_in_\. Pass"),
    "raster": (plot_raster, r"alphas is an estimator, StandardScaler.*what its transform"),
    "circles": (plot_circles, r"matrices is an estimator.*covariances_, or draw it with Modes"),
    "alpha": (plot_alpha, r"alphas is an estimator, StandardScaler.*what its transform"),
    "series": (plot_separate_time_series, "time_series is an estimator, StandardScaler"),
    "predictions": (
        partial(plot_predictions, RESPONSE),
        "prediction is an estimator, StandardScaler",
    ),
    "matrices": (plot_matrices, r"matrices is an estimator.*covariances_, or draw it with Modes"),
}


@pytest.mark.parametrize("name", NO_MODEL)
def test_pictures_of_a_fitted_estimator_without_a_model_say_so(name):
    draw, message = NO_MODEL[name]
    with pytest.raises(TypeError, match=message):
        draw(StandardScaler().fit(STIMULUS))
    assert not plt.get_fignums()


def test_linear_filter_of_a_model_needs_its_channels():
    with pytest.raises(ValueError, match="n_channels must be given with a Model"):
        linear_filter(Model(from_keywords("fir.2x3")))
