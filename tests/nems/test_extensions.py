"""A layer, a loss and a solver of a user's work wherever the package's own do."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold

from skdyn import NEMSRegressor
from skdyn.nems import Model, from_keywords, to_keywords
from skdyn.persistence import LoadError, load, save
from tests.nems.extensions import GradientDescent, Halve, LogCosh


@pytest.fixture(scope="module")
def data():
    X = np.random.default_rng(0).standard_normal((300, 3))
    drive = X @ [1.0, 2.0, -1.0]
    return X, 1.5 * np.where(drive > 0, drive / 2, drive)


def survives_a_file(model, X, tmp_path, *types):
    save(model, tmp_path / "model.skops")
    with pytest.raises(LoadError, match="not trusted"):
        load(tmp_path / "model.skops")
    loaded = load(tmp_path / "model.skops", trusted=types)
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


def test_layer_of_a_user_works_as_a_word_in_searches_and_in_files(data, tmp_path):
    X, y = data
    layers = from_keywords("wc.3x1-halve.1.k2")
    assert (type(layers[1]), layers[1].knee) == (Halve, 2)
    assert to_keywords(layers) == "wc.3x1-halve.1.k2"
    search = GridSearchCV(
        NEMSRegressor([("weigh", layers[0]), ("halve", Halve((1,)))]),
        {"halve__knee": [0, 3]},
        cv=KFold(3),
    ).fit(X, y)
    assert search.best_params_ == {"halve__knee": 0}
    assert search.best_score_ > 0.999
    model = NEMSRegressor("wc-halve.1").fit(X, y)
    assert model.score(X, y) > 0.999
    survives_a_file(model, X, tmp_path, Halve)


@pytest.mark.parametrize("solver", ["lbfgs", "adam"])
def test_loss_of_a_user_works_in_fits_searches_and_files(data, tmp_path, solver):
    X, y = data
    outliers = y.copy()
    outliers[::40] += 100
    model = NEMSRegressor("wc-lvl", loss=LogCosh(), solver=solver, random_state=0)
    fitted = clone(model).fit(X, X @ [1, 2, 3] + 50 * (np.arange(300) % 40 == 0))
    np.testing.assert_allclose(
        fitted.model_.layers[0]["coefficients"].values.ravel(), [1, 2, 3], atol=0.2
    )
    assert "log_cosh" in fitted.summary()
    search = GridSearchCV(model, {"loss": ["squared_error", LogCosh()]}, cv=KFold(3)).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    survives_a_file(fitted, X, tmp_path, LogCosh)


def test_solver_of_a_user_works_in_fits_searches_and_files(data, tmp_path):
    X, y = data
    model = NEMSRegressor("wc-lvl", solver=GradientDescent()).fit(X, y)
    # The closed form is for solvers that say so.
    assert model.model_.results.message == "Descended."
    reference = NEMSRegressor("wc-lvl").fit(X, y)
    np.testing.assert_allclose(model.predict(X), reference.predict(X), atol=1e-2)
    assert "of descent" in model.summary()
    search = GridSearchCV(model, {"solver": ["lbfgs", GradientDescent(0.5)]}, cv=KFold(3)).fit(X, y)
    np.testing.assert_allclose(*search.cv_results_["mean_test_score"], atol=1e-3)
    survives_a_file(model, X, tmp_path, GradientDescent)
    fitted = Model(from_keywords("wc.3x1-lvl.1")).fit(X, y, solver=GradientDescent(), verbose=0)
    assert fitted.score(X, y) == pytest.approx(reference.model_.score(X, y), abs=1e-3)
