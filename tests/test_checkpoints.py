"""Checkpoints: files written during a fit, and bit-identical results after resuming."""

import copy
import re
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skdyn import NEMSRegressor
from skdyn.core.checkpoint import Checkpoint, describe
from skdyn.core.files import write_atomically
from skdyn.model_selection import BlockKFold
from skdyn.nems import Model, from_keywords, layers
from skdyn.preprocessing import SessionScaler
from tests.torture.models import dynemo, nems, recording

X, Y = recording()

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("short_search")]

ESTIMATORS = {
    "dynemo": lambda **p: dynemo(n_epochs=6, **p),
    "dynemo from data": lambda **p: dynemo(n_epochs=4, init_method="moments", **p),
    "dynemo stops early": lambda **p: dynemo(
        n_epochs=9, n_iter_no_change=2, tol=1e-3, model_dropout=0.2, learn_means=True, **p
    ),
    "dynemo with batch normalisation": lambda **p: dynemo(
        n_epochs=4, inference_normalization="batch", do_kl_annealing=True, **p
    ),
    "lbfgs": lambda **p: nems(max_iter=120, tol=0.0, **p),
    "lbfgs from several starts": lambda **p: nems(
        "wc.x2-fir.2x2x3-relu.3-wc.3x1-lvl", max_iter=70, n_init=3, tol=0.0, **p
    ),
    "lbfgs stops early": lambda **p: nems(early_stopping=True, n_iter_no_change=3, **p),
    "adam": lambda **p: nems(solver="adam", max_iter=9, **p),
    "adam stops early": lambda **p: nems(
        "wc.x1-fir.2-relu", solver="adam", early_stopping=True, max_iter=30, n_init=2, **p
    ),
    "closed form": lambda **p: nems("wc.x1-lvl", **p),
}


def fit(estimator, X=X, y=Y):
    return estimator.fit(X, y) if "NEMS" in type(estimator).__name__ else estimator.fit(X)


def bits(estimator):
    """All results of a fit, except its duration."""
    state = {
        name: value
        for name, value in vars(estimator).items()
        if name.endswith("_") and name != "history_"
    }
    history = {n: v for n, v in estimator.history_.items() if n != "seconds"}
    return {**{name: describe(value) for name, value in state.items()}, "history": repr(history)}


class Killed(BaseException):
    """Ends a fit as a killed process does: nothing is put right after it."""


def killed_after(n_writes, estimator, monkeypatch, kind=Killed, fit=fit):
    """Fit until so many checkpoints are written; return whether it came so far."""
    n_left = [n_writes]

    def write(path, content):
        write_atomically(path, content)
        n_left[0] -= 1
        if n_left[0] == 0:
            raise kind

    with monkeypatch.context() as patch:
        patch.setattr("skdyn.core.checkpoint.write_atomically", write)
        try:
            fit(estimator)
        except Killed:
            return True
    return False


@pytest.mark.parametrize("name", ESTIMATORS)
def test_fit_that_was_killed_goes_on_to_the_same_bits(name, tmp_path, monkeypatch):
    make = ESTIMATORS[name]
    expected = bits(fit(make()))
    every = 1 if name.startswith("dynemo") else 3
    for n_writes in (1, 2, 5, 20):
        folder = tmp_path / str(n_writes)
        estimator = make(checkpoint=folder, checkpoint_every=every)
        killed_after(n_writes, estimator, monkeypatch)
        again = fit(make(checkpoint=folder, checkpoint_every=every))
        assert bits(again) == expected
    assert bits(fit(make(checkpoint=folder, checkpoint_every=every))) == expected


@pytest.mark.parametrize("name", ["dynemo", "lbfgs", "adam"])
def test_fit_that_goes_on_takes_fewer_steps(name, tmp_path, monkeypatch):
    def count(estimator):
        n_written = [0]

        def write(path, content):
            n_written[0] += 1
            write_atomically(path, content)

        with monkeypatch.context() as patch:
            patch.setattr("skdyn.core.checkpoint.write_atomically", write)
            fit(estimator)
        return n_written[0]

    make = ESTIMATORS[name]
    whole = count(make(checkpoint=tmp_path / "whole", checkpoint_every=1))
    estimator = make(checkpoint=tmp_path / "part", checkpoint_every=1)
    assert killed_after(whole - 2, estimator, monkeypatch)
    assert count(make(checkpoint=tmp_path / "part", checkpoint_every=1)) == 2


@pytest.mark.parametrize("name", ["dynemo", "adam stops early", "lbfgs"])
def test_fit_without_a_seed_goes_on_as_well_and_then_begins_anew(name, tmp_path, monkeypatch):
    def make():
        made = ESTIMATORS[name](checkpoint=tmp_path, checkpoint_every=1)
        return made.set_params(random_state=None)

    assert killed_after(3, make(), monkeypatch)
    written = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
    first = bits(fit(make()))
    assert not list(tmp_path.glob("*.checkpoint"))
    for path, content in zip(("fit.0", "fit.1"), written, strict=True):
        (tmp_path / f"{path}.checkpoint").write_bytes(content)
    assert bits(fit(make())) == first
    if name != "lbfgs":  # which draws nothing
        assert bits(fit(make())) != first


def test_random_state_of_the_caller_ends_where_it_would(tmp_path, monkeypatch):
    for name in ("dynemo from data", "adam"):
        make = ESTIMATORS[name]
        random = np.random.RandomState(3)
        expected = bits(fit(make().set_params(random_state=random)))
        end = random.randint(10**6)
        folder = {"checkpoint": tmp_path / name}
        begun = make(**folder, checkpoint_every=1)
        assert killed_after(2, begun.set_params(random_state=np.random.RandomState(3)), monkeypatch)
        random = np.random.RandomState(3)
        again = make(**folder, checkpoint_every=1).set_params(random_state=random)
        assert bits(fit(again)) == expected
        assert random.randint(10**6) == end


# ------------------------------------------------------------------------------ the refusal


@pytest.mark.parametrize("name", ["dynemo", "adam"])
def test_other_data_or_parameters_are_refused_by_name(name, tmp_path, monkeypatch):
    make = ESTIMATORS[name]
    folder = {"checkpoint": tmp_path, "checkpoint_every": 1}
    assert killed_after(2, make(**folder), monkeypatch)
    with pytest.raises(ValueError, match=r"of another fit: X is.*another folder"):
        fit(make(**folder), X=X + 1e-9)
    with pytest.raises(ValueError, match="X is"):
        fit(make(**folder), X=X.astype(np.float32))
    with pytest.raises(ValueError, match=r"random_state is 5 here and 0 there"):
        fit(make(**folder).set_params(random_state=5))
    other = {"n_epochs": 7} if name == "dynemo" else {"max_iter": 10}
    with pytest.raises(ValueError, match=next(iter(other))):
        fit(make(**folder).set_params(**other))
    weight = np.ones(len(X))
    weight[3] = 0
    data = (X,) if name == "dynemo" else (X, Y)
    with pytest.raises(ValueError, match="sample_weight is"):
        make(**folder).fit(*data, sample_weight=weight)
    with pytest.raises(ValueError, match="X is"):
        make(**folder).fit(*data, sessions=np.arange(len(X)) // 100)
    if name != "dynemo":
        with pytest.raises(ValueError, match="y is"):
            fit(make(**folder), y=Y + 1)
        with pytest.raises(ValueError, match="layers is"):
            fit(make(**folder).set_params(layers="wc.x1-fir.3-lvl-dexp"))
    fit(make(checkpoint=str(tmp_path), checkpoint_every=4, verbose=0))  # which make no difference


def test_estimator_that_is_refused_keeps_its_fit(tmp_path):
    estimator = fit(dynemo(checkpoint=tmp_path))
    before = bits(estimator)
    with pytest.raises(ValueError, match="of another fit"):
        fit(estimator, X=X + 1)
    assert bits(estimator) == before


def test_descriptions_differ_where_values_do():
    class Thing:
        def __init__(self, value):
            self.value = value

    values = [
        *(None, True, 1, 1.5, "1", "x" * 99, "x" * 98 + "y", np.arange(3), np.arange(3.0)),
        *(np.arange(3)[:, None], np.arange(4), [1, 2], (1, 2), {"a": 1}, {"a": 2}, {1, 2}),
        *(np.random.RandomState(0), np.random.RandomState(1), np.sin, len, torch.arange(3)[:2]),
        *(Thing(1), Thing(2), Thing([1]), Thing(Thing(1)), np.array([1, "a"], dtype=object)),
        *(layers.FIR((2, 1)), layers.FIR((3, 1)), layers.FIR((2, 1), l2=1.0), dynemo(), nems()),
        *(np.random.default_rng(0).standard_normal((50, 2)), [np.zeros(2)], [np.ones(2)]),
        *(lambda **p: nems(**p), layers.LevelShift((1,), values={"shift": [2.0]})),
    ]
    texts = [describe(one) for one in values]
    assert len(set(texts)) == len(values)
    copies = [describe(copy.deepcopy(one)) for one in values]
    assert copies == texts
    large = np.random.default_rng(0).standard_normal((10**6, 3))
    assert describe(large) == describe(large.copy("F"))


# ----------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("name", ["dynemo", "lbfgs", "adam"])
@pytest.mark.parametrize("n_damaged", [1, 2])
def test_damaged_checkpoint_falls_back_with_a_warning(name, n_damaged, tmp_path, monkeypatch):
    make = ESTIMATORS[name]
    expected = bits(fit(make()))
    folder = {"checkpoint": tmp_path, "checkpoint_every": 1}
    assert killed_after(4, make(**folder), monkeypatch)
    paths = sorted(tmp_path.glob("*.checkpoint"), key=lambda path: path.stat().st_mtime_ns)
    assert len(paths) == 2
    for path in paths[-n_damaged:]:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(content)
    then = "goes on from the checkpoint before" if n_damaged == 1 else "begins anew"
    with pytest.warns(UserWarning, match=rf"damaged.*{then}") as caught:
        again = fit(make(**folder))
    assert bits(again) == expected
    assert caught[0].filename == __file__


@pytest.mark.parametrize("content", [b"", b"skdyn", b"skdyn checkpoint 1\n" + b"0" * 65 + b"x"])
def test_file_that_is_no_checkpoint_is_damaged(content, tmp_path):
    (tmp_path / "fit.0.checkpoint").write_bytes(content)
    checkpoint = Checkpoint(tmp_path, "fit", {})
    assert checkpoint.load() is None
    assert "is damaged" in checkpoint.problem


def test_each_flipped_bit_of_a_checkpoint_is_noticed(tmp_path):
    state = {"a": np.arange(5), "b": [1.5, float("nan"), (None, "x")], 3: torch.ones(2)}
    Checkpoint(tmp_path, "fit", {"x": "1"}).save(state)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    found = Checkpoint(tmp_path, "fit", {"x": "1"}).load()
    assert repr(found) == repr(state)
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        assert Checkpoint(tmp_path, "fit", {"x": "1"}).load() is None


def test_checkpoint_holds_numbers_and_text_alone(tmp_path):
    with pytest.raises(TypeError, match="cannot hold a set"):
        Checkpoint(tmp_path, "fit", {}).save({"a": {1}})


# ------------------------------------------------------------------------- several in a folder


def test_fits_of_a_search_share_a_folder_and_go_on(tmp_path, monkeypatch):
    def search(**parameters):
        pipeline = make_pipeline(SessionScaler(), dynemo(**parameters))
        grid = {"dynemoestimator__n_epochs": [2, 3]}
        return GridSearchCV(pipeline, grid, cv=BlockKFold(2), error_score="raise")

    expected = fit(search())
    parameters = {"checkpoint": tmp_path}
    for n_writes in (2, 5, 9, 14):
        killed_after(n_writes, search(**parameters), monkeypatch)
    found = fit(search(**parameters))
    assert bits(found.best_estimator_[-1]) == bits(expected.best_estimator_[-1])
    np.testing.assert_array_equal(
        found.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"]
    )
    names = {path.name.split(".")[0] for path in tmp_path.iterdir()}
    assert len(names) == 2 * 2 + 1
    with pytest.raises(ValueError, match="needs an int as random_state"):
        fit(clone(dynemo(checkpoint=tmp_path)).set_params(random_state=None))


@pytest.mark.parametrize("name", ["dynemo", "adam"])
def test_warm_starts_have_checkpoints_of_their_own(name, tmp_path, monkeypatch):
    make = ESTIMATORS[name]
    expected = fit(fit(make(warm_start=True)))
    folder = {"checkpoint": tmp_path, "checkpoint_every": 1}
    estimator = fit(make(warm_start=True, **folder))
    second = copy.deepcopy(estimator)
    assert killed_after(3, second, monkeypatch)
    assert bits(fit(copy.deepcopy(estimator))) == bits(expected)


def test_interrupt_with_a_checkpoint_leaves_a_usable_estimator(tmp_path, monkeypatch):
    for name in ("dynemo", "lbfgs", "adam"):
        estimator = ESTIMATORS[name](checkpoint=tmp_path / name, checkpoint_every=1)
        with pytest.raises(KeyboardInterrupt, match="interrupted after"):
            killed_after(4, estimator, monkeypatch, KeyboardInterrupt)
        assert 1 <= estimator.n_iter_ <= 4
        used = estimator.transform if hasattr(estimator, "transform") else estimator.predict
        assert np.isfinite(used(X)).all()
        assert bits(fit(estimator)) == bits(fit(ESTIMATORS[name]()))


# ------------------------------------------------------------------------------- Model.fit

MODEL_FITS = {
    "lbfgs": {"max_iter": 20, "tol": 0.0, "init": "auto"},
    "lbfgs from several starts": {"max_iter": 8, "n_init": 3, "init": "prior_sample"},
    "adam": {"solver": "adam", "max_iter": 9, "early_stopping": True},
}


def fit_model(model=None, X=X, y=Y, **options):
    model = Model(from_keywords("wc.x2-fir.3x2-lvl-dexp")) if model is None else model
    return model.fit(X, y, **{"random_state": 0, "verbose": 0, **options})


def model_bits(model):
    return describe([model.get_parameter_vector(), model.results.history])


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("name", MODEL_FITS)
def test_fit_of_a_model_that_was_killed_goes_on_to_the_same_bits(
    name, in_place, tmp_path, monkeypatch
):
    options = MODEL_FITS[name]
    expected = model_bits(fit_model(**options))
    for n_writes in (1, 4):
        folder = {"checkpoint": tmp_path / str(n_writes), "checkpoint_every": 2}
        model = Model(from_keywords("wc.x2-fir.3x2-lvl-dexp"))
        begin = partial(fit_model, in_place=in_place, **options, **folder)
        assert killed_after(n_writes, model, monkeypatch, fit=begin)
        # The interrupted model is unchanged, so that the same fit can be called again.
        assert model_bits(begin(model)) == expected
        assert model_bits(fit_model(**options, **folder)) == expected


def test_fit_of_a_model_refuses_the_checkpoint_of_another_fit_by_name(tmp_path):
    options = {"checkpoint": tmp_path, "max_iter": 5}
    fit_model(**options)
    fit_model(**options | {"checkpoint_every": 3, "verbose": 1})  # which make no difference
    with pytest.raises(ValueError, match=r"of another fit: max_iter is 6 here and 5 there"):
        fit_model(**options | {"max_iter": 6})
    with pytest.raises(ValueError, match="input is"):
        fit_model(X=X + 1, **options)
    with pytest.raises(ValueError, match="target is"):
        fit_model(y=Y + 1, **options)
    with pytest.raises(ValueError, match="sample_weight is"):
        fit_model(sample_weight=np.ones(len(X)), **options)
    with pytest.raises(ValueError, match="layer fir is"):
        fit_model(Model(from_keywords("wc.x2-fir.4x2-lvl-dexp")), **options)
    with pytest.raises(ValueError, match="estimator is"):
        fit(nems(checkpoint=tmp_path))


def test_model_and_estimator_have_the_same_options():
    options = set(NEMSRegressor().get_params()) - {"layers", "warm_start"}
    with pytest.raises(TypeError, match="Unknown options") as caught:
        fit_model(speed=3)
    assert set(re.findall(r"'(\w+)'", str(caught.value).split("some of")[1])) == options
    for name in options:
        with pytest.raises(ValueError, match=f"'{name}' parameter of Model.fit"):
            fit_model(**{name: object()})


def test_nothing_is_written_without_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(dynemo())
    fit(nems())
    fit_model(max_iter=2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("make", [dynemo, nems])
def test_invalid_checkpoint_parameters_are_named(make, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="'checkpoint' parameter"):
            fit(make(checkpoint=3))
        with pytest.raises(ValueError, match="'checkpoint_every' parameter"):
            fit(make(checkpoint=tmp_path, checkpoint_every=0))
