"""Every accepted argument of layers, models and fits has an effect."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from skdyn import NEMSRegressor
from skdyn.nems import Layer, Model, from_keywords
from skdyn.nems.fitting import SOLVERS
from skdyn.nems.layers import CLASSES, StaticNonlinearity

SOLVER_NAMES = sorted(SOLVERS)


def recording(n_samples=500, n_outputs=1, seed=0):
    """A stimulus of four channels, and rectified responses of rank one to its last three rows."""
    rng = np.random.default_rng(seed)
    X = rng.gamma(1.0, size=(n_samples, 4))
    channels = rng.uniform(0.3, 1, (4, n_outputs)) * [[1.0], [-1.0], [0.5], [-0.3]]
    drive = np.stack(
        [np.convolve(X @ one, [0.5, 1.0, -0.3])[:n_samples] for one in channels.T], axis=1
    )
    Y = np.maximum(drive + 0.2, 0) + 0.1 * rng.standard_normal((n_samples, n_outputs))
    return X, Y if n_outputs > 1 else Y[:, 0]


# 6. Accepted arguments have effects


SIZED = {
    "WeightChannels": {"shape": (3, 2)},
    "WeightChannelsGaussian": {"shape": (3, 2)},
    "WeightChannelsMulti": {"shape": (3, 2, 2)},
    "FiniteImpulseResponse": {"shape": (4, 2)},
    "ResponseHistory": {"shape": (3, 2)},
    "STRF": {"shape": (3, 2, 4)},
    "Select": {"channels": [0]},
    **{name: {"shape": (2, 3)} for name in ("StateDexp", "StateGain", "StateHinge")},
    **{name: {"shape": (3, 2)} for name in ("GaussianExpansion", "ConcatSkip", "Conv2d")},
    "GatedRecurrentUnit": {"shape": (3, 2)},
    "PoleZeroFilter": {"shape": (4, 2)},
    "NumPy": {"operation": "exp"},
}
SHAPELESS = ("cat", "sum", "mult", "multexp", "sd", "pow")
MADE = [
    kind(**SIZED.get(kind.__name__, {} if kind.word in SHAPELESS else {"shape": (2,)}))
    for kind in CLASSES
    if kind is not Layer
]


@pytest.mark.parametrize("layer", MADE, ids=lambda one: type(one).__name__)
def test_layer_is_described_whole_by_its_params(layer):
    layer = layer.copy()
    layer.sample_from_priors(0)
    names = list(layer.parameters)
    free = [name for name in names if not layer[name].is_frozen]
    if free:
        layer.freeze_parameters(free[0])
        layer.set_permanent_values(**{free[-1]: layer[free[-1]].values + 0.25})
    made = type(layer)(**layer.get_params())
    assert made == layer


@pytest.mark.parametrize("layer", MADE, ids=lambda one: type(one).__name__)
def test_set_params_changes_nothing_but_what_it_names(layer):
    layer = layer.copy()
    layer.sample_from_priors(0)
    free = [name for name in layer.parameters if not layer[name].is_frozen]
    if free:
        layer.freeze_parameters(free[0])
    before = layer.copy()
    layer.set_params(**layer.get_params())
    assert layer == before
    layer.set_params(output="out", name="other")
    for name in layer.parameters:
        assert layer[name] == before[name]


@pytest.mark.parametrize(
    "layer", [one for one in MADE if isinstance(one, StaticNonlinearity)], ids=lambda x: x.word
)
def test_skipped_layer_stays_skipped_when_other_params_are_set(layer):
    layer = layer.copy()
    layer.skip_nonlinearity()
    layer.set_params(name="curve")
    assert layer.is_skipped
    assert type(layer)(**layer.get_params()) == layer
    layer.set_params(skipped=False)
    assert not layer.is_skipped


@pytest.mark.parametrize("words", ["relu.s.os", "relu.2.o.os", "sig.s.s", "tanh.2.os.os"])
def test_words_that_say_a_thing_twice_are_refused(words):
    with pytest.raises(ValueError, match="at most one of them is possible"):
        from_keywords(words)


def test_regressor_refuses_what_could_have_no_effect():
    X, y = recording()
    named = NEMSRegressor([("weigh", from_keywords("wc.4x1")[0])])
    assert "weigh__name" not in named.get_params()
    with pytest.raises(ValueError, match="name is that of its pair"):
        named.set_params(weigh__name="other")
    with pytest.raises(ValueError, match="alpha"):
        Model(from_keywords("wc.4x1")).fit(X, y, alpha=-1.0)
    with pytest.raises(TypeError, match="Unknown options"):
        Model(from_keywords("wc.4x1")).fit(X, y, penalty=1.0)
    warm = NEMSRegressor("wc.x1-fir.3-lvl", warm_start=True).fit(X, y)
    with pytest.raises(ValueError, match="warm_start"):
        warm.set_params(layers="wc.x1-fir.3-lvl-dexp").fit(X, y)


def test_options_of_model_fit_are_those_of_the_regressor():
    X, y = recording()
    # Continuing an earlier fit is an option of estimators only.
    own = {"layers", "warm_start", "checkpoint", "checkpoint_every"}
    options = set(NEMSRegressor().get_params()) - own
    defaults = NEMSRegressor().get_params()
    fitted = Model(from_keywords("wc.4x1-lvl.1")).fit(
        X, y, **{name: defaults[name] for name in options}
    )
    reference = NEMSRegressor("wc-lvl").fit(X, y)
    np.testing.assert_array_equal(fitted.predict(X).ravel(), reference.predict(X))


@pytest.mark.parametrize("solver", SOLVER_NAMES)
@pytest.mark.parametrize("layers", ["fir.3.s2-lvl", "strf.x3.s3", "wc.x1-fir.3.s2-lvl-dexp"])
def test_strided_models_fit_responses_at_either_rate(layers, solver):
    X, _ = recording()
    y = np.convolve(X @ [1, -1, 0.5, 0.2], [1, 0.5, -0.5])[: len(X)]
    stride = Model(from_keywords(layers)).stride
    full = NEMSRegressor(layers, solver=solver, random_state=0, max_iter=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        full.fit(X, y)
        reduced = NEMSRegressor(**full.get_params()).fit(X, y[::stride])
    assert full.predict(X).shape == (-(-len(X) // stride),)
    np.testing.assert_array_equal(full.predict(X), reduced.predict(X))
    assert full.score(X, y) == full.score(X, y[::stride]) > 0.95
