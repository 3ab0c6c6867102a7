"""Representations of estimators: diagrams, summaries and progress; DataFrames in and out."""

import re

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.fixes import parse_version

from skdyn import DyNeMoEstimator, ModeMatcher, NEMSRegressor
from skdyn.nems.layers import FiniteImpulseResponse, LevelShift

RNG = np.random.default_rng(0)
X = RNG.standard_normal((120, 3)) * np.where(np.arange(120) % 40 < 20, 1, 3)[:, np.newaxis]
y = X[:, 0] + 0.1 * RNG.standard_normal(120)
NAMES = ["left", "middle", "right"]

DYNEMO = DyNeMoEstimator(
    n_modes=2,
    sequence_length=20,
    inference_n_units=3,
    model_n_units=3,
    n_epochs=2,
    init_method="random",
    n_refinement_steps=3,
    random_state=0,
)
LAYERS = [("filter", FiniteImpulseResponse((3, None))), ("level", LevelShift())]
MODELS = [DYNEMO, NEMSRegressor("wc.x2-fir.3-lvl"), NEMSRegressor(LAYERS), ModeMatcher()]
KINDS = ["dynemo", "nems", "nems with names", "matcher"]
every_model = pytest.mark.parametrize("model", MODELS, ids=KINDS)
TRANSFORMERS = {"dynemoestimator": DYNEMO, "modematcher": ModeMatcher()}
every_transformer = pytest.mark.parametrize("name", TRANSFORMERS)
VERSION = parse_version(sklearn.__version__)
needs_tooltips = pytest.mark.skipif(
    parse_version("1.8") > VERSION, reason="tooltips are new in scikit-learn 1.8"
)
needs_attributes = pytest.mark.skipif(
    parse_version("1.9") > VERSION,
    reason="scikit-learn 1.9 shows fitted attributes, and knows the names of polars' columns",
)

pytestmark = pytest.mark.filterwarnings(
    f"ignore::{ConvergenceWarning.__module__}.{ConvergenceWarning.__qualname__}"
)


# Diagrams


def page_of(model):
    return model._repr_html_()


@every_model
@pytest.mark.parametrize("fitted", [False, True], ids=["not fitted", "fitted"])
@pytest.mark.parametrize("in_pipeline", [False, True], ids=["alone", "pipeline"])
def test_diagrams(model, fitted, in_pipeline):
    model = clone(model)
    shown = make_pipeline(StandardScaler(), model) if in_pipeline else model
    if fitted:
        shown.fit(X, y)
    page = page_of(shown)
    assert type(model).__name__ in page
    for name in model.get_params(deep=False):
        assert re.search(rf">\s*{name}\b", page)
    assert ("Not fitted" in page) != fitted
    assert page.count("<div") == page.count("</div>")


@needs_tooltips
@every_model
def test_every_parameter_has_its_text(model):
    page = page_of(model)
    for name in model.get_params(deep=False):
        assert re.search(rf"param-doc-description[^>]*>\s*{name}: ", page), name
    first = next(iter(model.get_params(deep=False)))
    documented = re.search(rf"\n    {first} : (.*?)\n        (.*?)\n", type(model).__doc__)
    assert documented
    assert documented.group(2).split(".")[0][:40] in page


@every_model
@pytest.mark.parametrize("in_pipeline", [False, True], ids=["alone", "pipeline"])
def test_diagrams_have_no_links_of_the_package(model, in_pipeline):
    model = clone(model)
    page = page_of((make_pipeline(StandardScaler(), model) if in_pipeline else model).fit(X, y))
    links = re.findall(r'href="([^"]*)"', page)
    assert all(link.startswith("https://scikit-learn.org/") for link in links)
    assert bool(links) == in_pipeline
    assert "Documentation for " + type(model).__name__ not in page


@needs_attributes
@every_model
def test_fitted_attributes_have_their_text(model):
    model = clone(model).fit(X, y)
    page = page_of(model)
    shown = [name for name in vars(model) if name.endswith("_") and not name.startswith("_")]
    assert shown
    for name in shown:
        assert re.search(rf"param-doc-description[^>]*>\s*{name}: ", page), name


def test_large_arrays_do_not_blow_up_diagrams():
    plain = page_of(clone(DYNEMO).fit(X))
    many = 40
    model = clone(DYNEMO).set_params(
        initial_covariances=np.stack([np.eye(many), 2 * np.eye(many)]), initial_means=None
    )
    wide = RNG.standard_normal((200, many))
    model.fit(wide)
    model.history_ = {name: values * 10_000 for name, values in model.history_.items()}
    assert len(page_of(model)) < len(plain) + 20_000
    matcher = ModeMatcher(reference=RNG.dirichlet(np.ones(6), 50_000))
    matcher.fit(matcher.reference)
    assert len(page_of(matcher)) < len(plain) + 20_000
    regressor = NEMSRegressor("fir.20xx-lvl").fit(wide, wide)
    assert len(page_of(regressor)) < len(plain) + 20_000


@every_model
def test_nothing_is_computed_to_be_shown(model):
    """scikit-learn's table evaluates every property with a trailing underscore."""
    names = [name for name in dir(type(model)) if name.endswith("_") and name[0] != "_"]
    assert not names


# Summaries


def test_summary_of_an_encoding_model():
    model = NEMSRegressor("wc.x2-fir.3-lvl-relu", max_iter=500, random_state=0).fit(X, y)
    model.model_.layers["wc"]["coefficients"].freeze()
    lines = model.summary().splitlines()
    assert lines[0] == "NEMS of 4 layers, from 3 channels to 1 output"
    assert [line.split()[0] for line in lines[1:]] == ["wc", "fir", "lvl", "relu", "training:"]
    weights = model.model_.layers["wc"]["coefficients"].values
    span = f"{weights.min():.3g} to {weights.max():.3g}"
    words = re.split(r"\s{2,}", lines[1].strip())
    assert words == ["wc", "(3, 2)", "6 values, 6 frozen", f"coefficients {span}"]
    assert "(3, 2)" in lines[2]
    level = model.model_.layers["lvl"]["shift"].values.item()
    assert lines[3].endswith(f"shift {level:.3g}")
    for fact in (f"{model.n_iter_} of 500", "lbfgs", "converged", f"{model.loss_:.4g}"):
        assert fact in lines[-1]
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("solver", ["lbfgs", "adam"])
def test_a_summary_says_how_the_fit_ended(solver):
    model = NEMSRegressor("wc.x2-fir.3-relu", solver=solver, max_iter=1, random_state=0)
    last = model.fit(X, np.c_[y, y][:, :1]).summary().splitlines()[-1]
    assert f"1 of 1 {'epochs' if solver == 'adam' else 'iterations'} of {solver}" in last
    assert "ran to the last one" in last


# Progress


@pytest.mark.parametrize("model", [*MODELS[:3], NEMSRegressor("wc.x2-fir.2-relu", n_init=2)])
@pytest.mark.parametrize("solver", ["lbfgs", "adam"])
def test_silence(model, solver, capfd):
    """Not a byte to either file, whoever writes: Python, torch, SciPy."""
    model = clone(model)
    if "solver" in model.get_params():
        model.set_params(solver=solver, max_iter=3, random_state=0)
    model.fit(X, y).predict(X)
    model.score(X, y)
    assert capfd.readouterr() == ("", "")


def test_progress_of_dynemo(capfd):
    model = clone(DYNEMO).set_params(verbose=1, n_epochs=3, n_iter_no_change=3).fit(X)
    out, err = capfd.readouterr()
    assert out == ""
    last = err.split("\r")[-1]
    assert re.search(r"DyNeMo: 100%.* 3/3 \[\d\d:\d\d<\d\d:\d\d", last)
    shown = dict(re.findall(r"(\w+)=([^,\]]+)", last))
    assert set(shown) == {"loss", "ll_loss", "kl_loss", "kl_factor", "validation_loss"}
    for name, value in shown.items():
        assert float(value) == pytest.approx(model.history_[name][-1], rel=1e-2)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_progress_of_adam(early_stopping, capfd):
    model = NEMSRegressor(
        "wc.x2-fir.2-relu",
        solver="adam",
        max_iter=3,
        early_stopping=early_stopping,
        verbose=1,
        random_state=0,
    ).fit(X, 100 * y)
    out, err = capfd.readouterr()
    assert out == ""
    last = err.split("\r")[-1]
    assert re.search(r"3/3 \[\d\d:\d\d<\d\d:\d\d", last)
    shown = dict(re.findall(r"(\w+)=([^,\]]+)", last))
    assert set(shown) == set(model.history_)
    for name, value in shown.items():
        assert float(value) == pytest.approx(model.history_[name][-1], rel=1e-2)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_progress_of_lbfgs(early_stopping, capfd):
    model = NEMSRegressor(
        "wc.x2-fir.2-relu",
        n_init=2,
        max_iter=3,
        early_stopping=early_stopping,
        verbose=1,
        random_state=0,
    ).fit(X, y)
    out, err = capfd.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert [line for line in lines if line.startswith("Start")] == ["Start 1 of 2", "Start 2 of 2"]
    lines_of_starts = [line for line in lines if line.startswith("Iteration 1, error ")]
    assert len(lines_of_starts) == 2
    assert any(f"error {model.history_['loss'][0]:.6g}" in line for line in lines_of_starts)
    if early_stopping:
        held_out = f"held out {model.history_['validation_loss'][0]:.6g}"
        assert any(line.endswith(held_out) for line in lines_of_starts)


# Frames


INDICES = {
    "dates": pd.date_range("2024-02-28 23:59:58", periods=120, freq="4ms", tz="UTC"),
    "times": pd.to_timedelta(np.arange(120) * 4, unit="ms"),
    "numbers": pd.Index(np.arange(120) * 0.72),
}


def as_frame(values, kind="dates"):
    return pd.DataFrame(values, columns=NAMES, index=INDICES[kind])


@every_transformer
@pytest.mark.parametrize("kind", INDICES)
def test_the_index_of_a_frame_stays(name, kind):
    model = clone(TRANSFORMERS[name]).set_output(transform="pandas")
    frame = as_frame(X, kind)
    for output in (model.fit_transform(frame), model.fit(frame).transform(frame)):
        pd.testing.assert_index_equal(output.index, frame.index)
        assert list(output.columns) == list(model.get_feature_names_out())
    parts = [frame.iloc[:50], frame.iloc[50:]]
    for part, output in zip(parts, model.fit(parts).transform(parts), strict=True):
        pd.testing.assert_index_equal(output.index, part.index)


FRAMES = {"pandas": pd.DataFrame, "polars": pl.DataFrame}
CONTAINERS = {
    "labels": lambda X: X,
    "list": lambda X: [X[:40], X[40:]],
    "stack": lambda X: X.reshape(3, 40, 3),
}


@every_transformer
@pytest.mark.parametrize("library", FRAMES)
@pytest.mark.parametrize("form", CONTAINERS)
def test_frames_of_every_container(name, library, form):
    given = CONTAINERS[form](X)
    sessions = np.repeat([0, 1, 2], 40)
    labelled = form == "labels" and name == "dynemoestimator"
    metadata = {"sessions": sessions} if labelled else {}
    plain = clone(TRANSFORMERS[name]).fit(given, **metadata)
    model = clone(TRANSFORMERS[name]).set_output(transform=library)
    wanted = plain.transform(given, **metadata)
    names = list(plain.get_feature_names_out())
    assert names == [f"{name}{number}" for number in range(len(names))]
    first = model.fit_transform(given, **metadata)
    for output in (first, model.transform(given, **metadata)):
        if form == "labels":
            output, wanted_each = [output], [wanted]
        else:
            wanted_each = wanted
        assert len(output) == len(wanted_each)
        for one, other in zip(output, wanted_each, strict=True):
            assert isinstance(one, FRAMES[library])
            assert list(one.columns) == names
            np.testing.assert_array_equal(one.to_numpy(), other)


@every_transformer
@pytest.mark.parametrize("output", ["default", "pandas", "polars"])
def test_polars_frames_go_in(name, output):
    frame = pl.DataFrame(X, schema=NAMES)
    model = clone(TRANSFORMERS[name]).set_output(transform=output)
    wanted = clone(TRANSFORMERS[name]).fit(X).transform(X)
    np.testing.assert_array_equal(np.asarray(model.fit(frame).transform(frame)), wanted)
    parts = model.transform([frame[:50], frame[50:]])
    assert [len(part) for part in parts] == [50, 70]


@needs_attributes
@every_transformer
def test_names_of_polars_columns(name):
    model = clone(TRANSFORMERS[name]).fit(pl.DataFrame(X, schema=NAMES))
    assert list(model.feature_names_in_) == NAMES


def test_names_out_know_the_names_in():
    model = clone(DYNEMO).fit(as_frame(X))
    assert list(model.get_feature_names_out(NAMES)) == ["dynemoestimator0", "dynemoestimator1"]
    pipeline = make_pipeline(StandardScaler(), DYNEMO, ModeMatcher())
    pipeline.set_output(transform="pandas").fit(as_frame(X))
    assert list(pipeline.transform(as_frame(X)).columns) == ["modematcher0", "modematcher1"]
    assert list(pipeline.get_feature_names_out()) == ["modematcher0", "modematcher1"]


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("wide", [False, True], ids=["series", "frame"])
def test_predictions_of_frames_are_arrays(library, wide):
    target = np.c_[y, -y] if wide else y
    wanted = NEMSRegressor("fir.3xx-lvl" if wide else "fir.3-lvl").fit(X, target)
    if library == "pandas":
        stimulus = as_frame(X)
        response = pd.DataFrame(target, index=stimulus.index) if wide else pd.Series(y)
    else:
        stimulus = pl.DataFrame(X, schema=NAMES)
        response = pl.DataFrame(target) if wide else pl.Series(y)
    model = clone(wanted).fit(stimulus, response)
    prediction = model.predict(stimulus)
    assert type(prediction) is np.ndarray
    np.testing.assert_array_equal(prediction, wanted.predict(X))
    assert model.score(stimulus, response) == wanted.score(X, target)
    parts = model.predict([stimulus[:50], stimulus[50:]])
    assert [type(part) for part in parts] == [np.ndarray, np.ndarray]
