"""Fits in two stages, and several starts at the same time."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from skdyn import NEMSRegressor
from skdyn.nems import Model, from_keywords


def recording(n_outputs=2, n_samples=500, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.gamma(1.0, size=(n_samples, 4))
    channels = rng.uniform(0.3, 1, (4, n_outputs)) * [[1.0], [-1.0], [0.5], [-0.3]]
    drive = np.stack(
        [np.convolve(X @ one, [0.5, 1.0, -0.3])[:n_samples] for one in channels.T], axis=1
    )
    Y = np.maximum(drive + 0.2, 0) + 0.1 * rng.standard_normal((n_samples, n_outputs))
    return X, Y


def fitted(layers, X, Y, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return NEMSRegressor(layers, random_state=0, **options).fit(X, Y)


@pytest.mark.parametrize(
    ("loss", "solver"),
    [("squared_error", "lbfgs"), ("poisson", "lbfgs"), ("squared_error", "adam")],
)
@pytest.mark.parametrize(
    "words", ["wc.x1-fir.3-lvl-dexp", "fir.3-relu.s.o", "wc.x4-fir.3x1x4-relu.s-wc-lvl-dexp"]
)
def test_two_stages_end_as_low_as_one(words, loss, solver):
    X, Y = recording()
    Y = np.maximum(Y, 0)
    options = {"loss": loss, "solver": solver, "max_iter": 40}
    one = fitted(words, X, Y, **options)
    two = fitted(words, X, Y, init="two_stage", **options)
    constant = fitted("lvl", np.ones((len(X), 2)), Y, loss=loss).loss_
    assert two.loss_ - one.loss_ < (0.05 if solver == "adam" else 0.02) * (constant - one.loss_)
    assert not any(getattr(layer, "is_skipped", False) for layer in two.model_.layers)
    frozen = {k: v["frozen"] for k, v in one.model_.parameter_info.items()}
    assert {k: v["frozen"] for k, v in two.model_.parameter_info.items()} == frozen


def test_first_stage_is_the_model_without_its_nonlinearity():
    X, Y = recording(1)
    linear = fitted("wc.x1-fir.3-lvl", X, Y)
    start = fitted("wc.x1-fir.3-lvl-dexp", X, Y, init="two_stage", max_iter=1)
    found = [Model(list(m.model_.layers)[:2]).predict(X)[:, 0] for m in (linear, start)]
    assert np.corrcoef(found)[0, 1] > 0.98


def test_model_without_a_nonlinearity_starts_as_usual():
    X, Y = recording()
    auto, two = (fitted("wc.x1-fir.3-lvl", X, Y, init=init) for init in ("auto", "two_stage"))
    np.testing.assert_array_equal(auto.predict(X), two.predict(X))


def test_frozen_curves_stay_frozen_in_two_stages():
    X, Y = recording()
    layers = from_keywords("fir.3-lvl-dexp")
    layers[2].shape = (2,)
    layers[2].set_parameter_values(kappa=[0.5, 0.7])
    layers[2].freeze_parameters("kappa")
    model = fitted(layers, X, Y, init="two_stage", max_iter=20)
    assert model.model_.layers[2]["kappa"].values.tolist() == [0.5, 0.7]
    assert not model.model_.layers[2]["base"].is_frozen


@pytest.mark.slow
def test_starts_at_the_same_time_give_the_same_bits():
    X, Y = recording()
    words = "wc.x3-relu.s-wc-lvl"
    for options in ({"init": "auto"}, {"init": "prior_sample", "solver": "adam"}):
        given = {"n_init": 3, "max_iter": 4, "early_stopping": True, **options}
        alone = fitted(words, X, Y, **given)
        together = fitted(words, X, Y, n_jobs=2, **given)
        np.testing.assert_array_equal(alone.predict(X), together.predict(X))
        assert alone.history_ == together.history_


def test_number_of_jobs_is_checked():
    X, Y = recording()
    with pytest.raises(ValueError, match="'n_jobs' parameter"):
        NEMSRegressor("wc-lvl", n_jobs=1.5).fit(X, Y)
