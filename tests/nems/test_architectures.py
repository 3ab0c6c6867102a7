"""Published models, whole models as words, and ready models: they build, fit and predict."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from skdyn import NEMSRegressor
from skdyn.nems import (
    Model,
    cnn_population,
    from_keywords,
    ln_population,
    ln_strf,
    reconstruction,
    statenet_gru,
    to_keywords,
)

# Keywords as printed in papers and their code, with their form here.
PUBLISHED = {
    "wc.18x120.g-fir.25x120-wc.120xR-lvl-dexp": "wc.18x120.g-fir.25x1x120-wc.120-lvl-dexp",
    "wc.18x100.g-fir.25x100-relu-wc.100x120-relu-wc.120xR-lvl-dexp": (
        "wc.18x100.g-fir.25x1x100-relu-wc.100x120-relu-wc.120-lvl-dexp"
    ),
    "wc.18x70.g-fir.15x70-relu-wc.70x80-fir.10x80-relu-wc.80x100-relu-wc.100xR-lvl-dexp": (
        "wc.18x70.g-fir.15x1x70-relu-wc.70x80-fir.10x1x80-relu-wc.80x100-relu-wc.100-lvl-dexp"
    ),
    "conv2d.10.8x3.rep3-wcn.90-relu-wc.90xR-lvl-dexp": (
        "conv2d.8x3x10.stack-relu.s-conv2d.8x3x10x10.stack-relu.s-conv2d.8x3x10x10.cat-relu.s"
        "-wc.x90-relu-wc.90-lvl-dexp"
    ),
    "wc.18x6.g-fir.25x6-relu-wc.6x1-lvl-dexp": "wc.18x6.g-fir.25x1x6-relu-wc.6x1-lvl-dexp",
    "wc.18x2.g-fir.2x15-lvl.1-dexp.1": "wc.18x2.g-fir.15x2-lvl.1-dexp.1",
    "wc.18x2-stp.2-fir.2x15-lvl.1": "wc.18x2-stp.2-fir.15x2-lvl.1",
    "wc.18x4.g-fir.1x12x4-wc.4xR-dexp.R": "wc.18x4.g-fir.12x1x4-wc.4-dexp",
    "wc.18x4.g-fir.4x12-wc.4xR-dexp.R": "wc.18x4.g-fir.12x1x4-wc.4-dexp",
    # Matching settings are kept.
    "wc.18x15-fir.15x15-lvl": "wc.18x15-fir.15x15-lvl",
    "wc.18x3-fir.15x3x4-lvl": "wc.18x3-fir.15x3x4-lvl",
    "wc.18x3-fir.15x3-lvl": "wc.18x3-fir.15x3-lvl",
    "fir.2x15": "fir.2x15",
}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.gamma(0.5, size=(200, 18))
    drive = X @ rng.standard_normal((18, 3))
    Y = np.maximum(np.stack([np.convolve(d, [0.3, 1, -0.4])[:200] for d in drive.T], axis=1), 0)
    return X, Y


def fitted(layers, X, y, **options):
    model = NEMSRegressor(layers, max_iter=2, random_state=0, history="zeros", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X, y)


@pytest.mark.parametrize("words", PUBLISHED)
def test_published_words_are_those_of_this_package(words):
    assert to_keywords(from_keywords(words)) == PUBLISHED[words]


@pytest.mark.parametrize(
    "words", [words for words in PUBLISHED if words.startswith(("wc", "conv"))]
)
def test_published_models_fit(words, data):
    X, Y = data
    y = Y if "R-" in words or words.endswith("R") else Y[:, 0]
    small = words.replace("conv2d.10.", "conv2d.3.")
    for size in ("120", "100", "70", "80", "90"):
        small = small.replace(size, size[:-1])
    if "x4-lvl" in words:
        y = np.column_stack([Y, Y[:, 0]])
    assert fitted(small, X, y, alpha=0.1).predict(X).shape == y.shape


# The words of NEMS in models, and how many outputs they have.
OF_NEMS = {
    **{f"wc.18x3{option}-fir.5x3-lvl": 1 for option in ("", ".g", ".n", ".p", ".l2:4", ".i")},
    "wc.9x2x2.b-fir.5x2x2-dexp": 2,
    "wc.18x1x3-fir.5x1x3-dexp.3": 3,
    "fir.5x18.p2z1fs100-lvl": 1,
    "fir.5x18.s2-lvl": 1,
    "fir.5x18.l2:4-lvl.1": 1,
    "strf.18x5": 1,
    "strf.18x2x5.relu": 1,
    "strf.18x2x5x3.relu.sk50": 3,
    "strf.18x2x5x3.skl.s2.l2:3": 3,
    "dlog.18-wc.18x1-dexp.1": 1,
    **{f"wc.18x2-{word}.2.s.o.g-wc.2x1": 1 for word in ("sig", "relu", "srelu")},
    "wc.18x2-prelu.2-wc.2x1": 1,
    "stp.18-wc.18x2.g-fir.5x2-lvl": 1,
    "wc.18x1-fir.5x1-stategain.3x1": 1,
    "wc.18x1-fir.5x1-sdexp.3x1": 1,
    "wc.18x1-fir.5x1-statehinge.3x1.m": 1,
    "conv2d.3x3-wc.18x1-lvl": 1,
    "conv2d.3x3x4-relu.18-wc.18x1-lvl": 1,
    "conv2d.3x3x2.cat-relu-wc.x1-lvl": 1,
    "conv2d.3x3x2.max.s12-wc.9x1-lvl": 1,
    "wc.18x3-np.sum.axis1-lvl.1": 1,
    "wc.18x2x3-sd-np.sum.axis1-wc.2x1": 1,
    "wc.18x2-skip.18x3.wc.input-wc.5x1": 1,
    "wc.18x2-cat.wc.input-wc.20x1": 1,
    "wc.18x3-mult.wc.gain-lvl": 3,
    "wc.18x3-multexp.wc.gain-lvl": 3,
    "LN.5x18": 1,
    "LN.5x18x2.g.relu.l2:3": 1,
    "LNpop.5x18x3": 3,
    "LNpop.5x18x3x2.lvl.wl2:3": 3,
    "LNpop.5x18xRx2.i.g": 3,
    "LNpop.5x18x3x2.ac.s2": 3,
    "CNNpop.5x18xRx6": 3,
    "CNNpop.5x18x3x6x5.g.c2.l2:4": 3,
    "CNNpop.5x18x3x6x5.ac.s2.relu": 3,
}


@pytest.mark.parametrize("words", OF_NEMS)
def test_words_of_nems_build_and_fit(words, data):
    X, Y = data
    layers = from_keywords(words)
    if ".wc." in words:
        layers[0].output = "wc"
    y = Y[:, : OF_NEMS[words]]
    named = {"state": X[:, :2]} if "state" in words or "sdexp" in words else {}
    if "gain-" in words:
        named = {"streams": {"gain": X[:, :3]}}
    model = NEMSRegressor(layers, max_iter=2, random_state=0, history="zeros")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        predicted = model.fit(X, y, **named).predict(X, **named)
    assert predicted.reshape(-1, y.shape[1]).shape == (-(-200 // model.model_.stride), y.shape[1])
    assert np.isfinite(model.score(X, y, **named))


READY = {
    "ln_strf": (lambda: ln_strf(5), 1),
    "ln_strf of rank 2": (lambda: ln_strf(5, n_ranks=2, gaussian=True, nonlinearity="relu"), 1),
    "ln_population": (lambda: ln_population(5), 3),
    "ln_population shared": (lambda: ln_population(5, n_ranks=4), 3),
    "ln_population own": (lambda: ln_population(5, n_ranks=2, shared=False), 3),
    "cnn_population": (lambda: cnn_population(4, n_filters=6, n_hidden=5, n_repeats=2), 3),
    "reconstruction": (lambda: reconstruction(5), 3),
    "reconstruction of filters": (lambda: reconstruction(5, n_filters=4, n_hidden=4), 3),
    "statenet_gru": (lambda: statenet_gru(n_filters=5, n_units=6), 3),
}


@pytest.mark.parametrize("name", READY)
def test_ready_models_take_their_sizes_from_the_data(name, data):
    X, Y = data
    make, n_outputs = READY[name]
    y = Y[:, :n_outputs]
    model = fitted(make(), X, y, alpha=0.01)
    assert model.predict(X).reshape(len(y), -1).shape == y.shape
    assert to_keywords(list(model.model_.layers))


def test_penalties_of_ready_models_are_those_of_weights_and_filters():
    layers = ln_population(5, 3, 18, 2, l2=0.1, filter_l2=0.2)
    assert [layer.l2 for layer in layers] == [0.1, 0.2, 0.1, None]
    layers = from_keywords("LNpop.5x18x3x2.wl2:2")
    assert [layer.l2 for layer in layers] == [0.01, None, 0.01, None]
    assert {layer.name for layer in Model(layers).layers} == {"wc", "fir", "wc1", "dexp"}
    gaussian = ln_strf(5, 18, 2, gaussian=True, l2=0.3)
    assert [layer.l2 for layer in gaussian] == [None, 0.3, None]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ln_strf(0), "Sizes must be whole numbers"),
        (lambda: ln_strf(5, gaussian=True), "gaussian=True needs"),
        (lambda: ln_strf(5, nonlinearity="exp"), "nonlinearity must be one of"),
        (lambda: reconstruction(5, n_hidden=3), "n_hidden needs n_filters"),
        (lambda: cnn_population(5, n_repeats=0), "n_repeats must be a whole number"),
    ],
    ids=["lags", "gaussian", "nonlinearity", "hidden", "repeats"],
)
def test_impossible_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_reconstruction_decodes_a_stimulus_from_what_follows_it():
    rng = np.random.default_rng(0)
    stimulus = rng.standard_normal((800, 2))
    delayed = np.concatenate([np.zeros((2, 2)), stimulus[:-2]])
    responses = delayed @ rng.standard_normal((2, 6)) + 0.1 * rng.standard_normal((800, 6))
    decoder = NEMSRegressor(reconstruction(8)).fit(responses[:600], stimulus[:600])
    assert decoder.score(responses[600:], stimulus[600:]) > 0.95
