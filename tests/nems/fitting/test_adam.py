"""Adam on windows: windows against whole trials, its end against L-BFGS and closed forms."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skdyn.core.training import FitDivergedError
from skdyn.nems import Layer, Model, Parameter, Phi, from_keywords
from skdyn.nems.fitting import adam
from skdyn.nems.fitting import trials as trials_module
from skdyn.nems.fitting.adam import ADVICE, Adam
from skdyn.nems.fitting.closed_form import solve_linear
from skdyn.nems.fitting.lbfgs import LBFGS
from skdyn.nems.fitting.objective import Objective
from skdyn.nems.fitting.preconditioning import step_sizes
from skdyn.nems.fitting.results import NO_PROGRESS
from skdyn.nems.fitting.settings import FitSettings
from skdyn.nems.fitting.trials import WINDOW, Trial, cut_windows, hold_out
from skdyn.nems.losses import LOSSES, FunctionLoss, SquaredError


def recording(lengths=(700, 300, 300), n_outputs=1, n_weights=1, noise=0.1, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((4, n_outputs))
    trials = []
    for n in lengths:
        stimulus = rng.standard_normal((n, 4))
        target = stimulus @ truth
        target[1:] -= 0.5 * target[:-1]
        target += noise * rng.standard_normal(target.shape)
        trials.append(Trial({"input": stimulus}, target, rng.uniform(0.1, 2, (n, n_weights))))
    return trials


def make_model(text, seed=0):
    return Model(from_keywords(text)).sample_from_priors(random_state=seed)


def fit(model, trials, seed=0, solver=Adam, **options):
    options = FitSettings(**{"max_iter": 40, "tol": 0.0, **options})
    objective = Objective(model, trials, options.loss, options.alpha)
    return solver().fit(objective, options, np.random.RandomState(seed))


# Windows


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 1500), min_size=1, max_size=3),
    n_lags=st.integers(1, 60),
    window=st.integers(1, 300),
    n_weights=st.integers(1, 2),
)
def test_each_row_counts_in_one_window_with_the_history_that_it_has(
    lengths, n_lags, window, n_weights
):
    """A stimulus that says which row it is finds each row's past in the windows themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials_module, "WINDOW", window)
        model = Model(from_keywords(f"fir.{n_lags}x1"))
        trials, offset = [], 0
        for n in lengths:
            rows = np.arange(offset, offset + n)[:, np.newaxis] + 1.0
            weight = np.broadcast_to(rows, (n, n_weights))
            trials.append(Trial({"input": rows}, rows, weight, 2 * weight))
            offset += n
        windows = cut_windows(model, trials)
    assert {len(one.target) for one in windows} <= {n_lags - 1 + window, *lengths}
    starts = np.cumsum([0, *lengths[:-1]])
    counted = []
    for one in windows:
        np.testing.assert_array_equal(one.data["input"], one.target)
        np.testing.assert_array_equal(2 * one.weight, one.held_out)
        places = np.flatnonzero(one.weight[:, 0])
        counted.extend(one.target[places, 0])
        np.testing.assert_array_equal(one.weight[places], one.target[places] + 0 * one.weight[:1])
        first = int(one.target[0, 0]) - 1
        before = first - starts[np.searchsorted(starts, first, side="right") - 1]
        # Nothing is missing before the first row that counts, unless the trial begins there.
        assert places[0] >= min(n_lags - 1, before + places[0])
    np.testing.assert_array_equal(np.sort(counted), np.arange(sum(lengths)) + 1)


def test_a_row_that_is_held_out_counts_once_on_its_side():
    trials = hold_out(recording((2000, 90), n_weights=2), 0.2, np.random.RandomState(0))
    windows = cut_windows(make_model("fir.20x4"), trials)
    for side in ("weight", "held_out"):
        whole, parts = ([getattr(t, side).sum() for t in some] for some in (trials, windows))
        assert sum(parts) == pytest.approx(sum(whole), rel=1e-12)


@pytest.mark.parametrize("text", ["wc.4x2-fir.9x2-lvl.1-dexp.1", "wc.4x1-fir.99x1-relu.1-fir.70x1"])
def test_predictions_are_those_of_the_whole_trial_where_they_count(text):
    model, trials = make_model(text), recording((1300, 200))
    whole = {}
    for trial in trials:
        predicted = model.predict(trial.data)
        whole |= dict(zip(map(bytes, trial.data["input"]), predicted, strict=True))
    n_counted = 0
    for one in cut_windows(model, trials):
        counts = one.weight[:, 0] > 0
        n_counted += counts.sum()
        expected = [whole[bytes(row)] for row in one.data["input"][counts]]
        np.testing.assert_allclose(model.predict(one.data)[counts], expected, atol=1e-12)
    assert n_counted == 1500


def test_all_windows_together_have_the_loss_of_the_whole():
    model, trials = make_model("wc.4x2-fir.9x2-lvl.1-dexp.1"), recording((1300, 200, 40))
    vector = model.get_parameter_vector()
    whole, windows = (
        Objective(model, some, SquaredError(), 0.3).values_and_gradient(vector)
        for some in (trials, cut_windows(model, trials))
    )
    assert windows[0] == pytest.approx(whole[0], rel=1e-12)
    np.testing.assert_allclose(windows[1], whole[1], rtol=1e-9, atol=1e-12)


class Unknown(Layer):
    """Says nothing of how far it looks back: its history is unknown."""

    def evaluate(self, values):
        return values


class Known(Unknown):
    @property
    def n_past(self):
        return 30


def test_trials_stay_whole_unless_all_layers_say_how_far_they_look_back():
    trials = recording((2000,))
    for layers in ("fir.9x4.ac", "wc.4x2-fir.9x2-fir.4x1.ac"):
        windows = cut_windows(make_model(layers), trials)
        assert len(windows) == 1
        assert windows[0] is trials[0]
    for kind, whole in ((Unknown, True), (Known, False)):
        model = Model([*from_keywords("fir.9x4"), kind()])
        windows = cut_windows(model, trials)
        assert (windows[0] is trials[0]) == whole
        if not whole:
            assert len(windows[0].target) == WINDOW + 8 + 30


# Optimum


def test_it_ends_near_least_squares():
    trials, model = recording((500, 264), 2, 2), make_model("fir.3x4x2-lvl.2")
    exact = model.copy()
    solve_linear(Objective(exact, trials, SquaredError(), 0.01))
    results = fit(model, trials, alpha=0.01, max_iter=240, learning_rate=0.03)
    np.testing.assert_allclose(
        model.get_parameter_vector(), exact.get_parameter_vector(), atol=2e-3
    )
    expected = Objective(exact, trials, SquaredError(), 0.01).error(exact.get_parameter_vector())
    assert results.final_error == pytest.approx(expected, rel=2e-3)
    np.testing.assert_array_equal(results.final_parameters, model.get_parameter_vector())


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
def test_it_ends_near_the_other_solver(loss):
    rng = np.random.default_rng(0)
    trials = [
        replace(t, target=rng.poisson(np.log1p(np.exp(t.target))).astype(float))
        for t in recording()
    ]
    text = "fir.3x4-lvl.1-srelu.1"
    model, other = make_model(text), make_model(text)
    objective = Objective(other, trials, LOSSES[loss](), 1e-3)
    expected = LBFGS().fit(objective, FitSettings(tol=1e-12), np.random.RandomState(0))
    results = fit(model, trials, loss=LOSSES[loss](), alpha=1e-3, max_iter=150, learning_rate=0.02)
    found = objective.value(model.get_parameter_vector()) * objective.scale
    assert found == pytest.approx(expected.history[-1], abs=1e-3 * objective.scale)
    assert results.initial_error == pytest.approx(expected.initial_error, rel=1e-12)
    # The history has the total loss at the end of each epoch; the best epoch is kept.
    assert min(results.history) == pytest.approx(found, rel=1e-9)
    assert results.exact_gradients


def test_bounds_hold_to_the_last_bit():
    seen = []

    class Scale(Layer):
        def initial_parameters(self):
            high = Parameter("other", bounds=(-np.inf, 1.0))
            return Phi(Parameter("factor", bounds=(-0.2, 0.3)), high)

        def evaluate(self, values):
            factor, other = self.get_parameter_values()
            seen.append([float(factor.item()), float(other.item())])
            return factor * values[:, :1] + other * values[:, 1:2]

    trials = [
        replace(trial, target=trial.data["input"] @ [[3], [0.5], [0], [0]])
        for trial in recording((200, 150))
    ]
    model, other = Model([Scale()]), Model([Scale()])
    # One trial at a time, since values cannot be seen where several are computed together.
    options = {"max_iter": 60, "n_iter_no_change": 60, "learning_rate": 0.05, "batch_size": 1}
    results = fit(model, trials, **options)
    expected = fit(other, trials, solver=LBFGS, tol=1e-10, max_iter=1000)
    assert results.final_parameters[0] == model.layers[0]["factor"].values == 0.3
    np.testing.assert_allclose(results.final_parameters, expected.final_parameters, atol=0.02)
    assert len(seen) > 100
    assert ((np.array([-0.2, -np.inf]) <= seen) & (seen <= np.array([0.3, 1.0]))).all()


def test_nothing_to_fit():
    model = make_model("wc.4x1-dexp.1")
    model.freeze_layers()
    before = model.copy()
    results = fit(model, recording(), max_iter=2)
    assert model == before
    assert results.final_error == results.initial_error


# Steps


@pytest.mark.parametrize("batch_size", ["auto", 1, 3])
def test_the_same_seed_gives_the_same_bits(batch_size):
    def run(seed):
        model = make_model("wc.4x2-fir.9x2-lvl.1-dexp.1")
        options = {"max_iter": 5, "batch_size": batch_size}
        results = fit(model, recording((2000, 300)), seed, **options)
        return results.final_parameters, results.history

    before = torch.random.get_rng_state()
    first, again, other = run(0), run(0), run(1)
    np.testing.assert_array_equal(first[0], again[0])
    assert first[1] == again[1]
    assert (first[0] != other[0]).any()
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(("batch_size", "n_steps"), [(1, 11), (4, 3 + 1), (99, 2), ("auto", 11)])
def test_batches_are_of_windows_and_all_are_seen_once(batch_size, n_steps, monkeypatch):
    """Nine windows of one length and two of another, in epochs of so many steps."""
    sizes, weights = [], []
    terms = adam._Training.training_terms

    def noting(self, batch, epoch):
        sizes.append(len(batch))
        weights.append(float(batch.group.weight[batch.windows].sum() * batch.group.share))
        return terms(self, batch, epoch)

    monkeypatch.setattr(adam._Training, "training_terms", noting)
    trials = recording((264,) * 9 + (100,) * 2)
    fit(make_model("fir.9x4"), trials, max_iter=3, batch_size=batch_size)
    assert len(sizes) == 3 * n_steps
    for epoch in range(3):
        steps = slice(epoch * n_steps, (epoch + 1) * n_steps)
        assert sum(sizes[steps]) == 11
        assert sum(weights[steps]) == pytest.approx(sum(weights[:n_steps]), rel=1e-12)
    assert max(sizes) <= (batch_size if batch_size != "auto" else 1)


def test_an_epoch_of_steps_too_small_to_matter_has_the_loss_of_the_whole():
    """Batches are weighted by their rows, for any lengths and weights of trials."""
    trials, model = recording((2000, 300, 90, 90)), make_model("wc.4x2-fir.9x2-dexp.1")
    objective = Objective(model, trials, SquaredError(), 0.3)
    expected = objective.scale * objective.value(model.get_parameter_vector())
    for batch_size in (1, 3, 99):
        options = {"max_iter": 1, "batch_size": batch_size, "learning_rate": 1e-12}
        results = fit(model, trials, alpha=0.3, **options)
        assert results.history == pytest.approx([expected], rel=1e-8)


def test_the_first_step_is_one_rate_in_units_of_step_sizes():
    """As Adam's first step is, in any units of stimulus and response."""
    for x_unit, y_unit in ((1, 1), (1e-3, 1e3)):
        trials = [
            replace(t, data={"input": x_unit * t.data["input"]}, target=y_unit * t.target)
            for t in recording((200,))
        ]
        model = make_model("fir.3x4-lvl.1")
        start = model.get_parameter_vector()
        sizes = step_sizes(Objective(model, trials, SquaredError(), 0.0), start)
        results = fit(model, trials, max_iter=1, learning_rate=1e-3)
        step = (results.final_parameters - start) / sizes
        np.testing.assert_allclose(np.abs(step), 1e-3, rtol=1e-3)


def test_each_output_keeps_its_own_best_epoch(monkeypatch):
    """Outputs that share nothing, by the values that all epochs ended at."""
    trials = hold_out(recording((300,), n_outputs=2, noise=3.0), 0.3, np.random.RandomState(0))
    ends, keep = [], adam._Training._keep_best

    def noting(self, values):
        ends.append((values.copy(), self.values.vector()))
        keep(self, values)

    monkeypatch.setattr(adam._Training, "_keep_best", noting)
    model = make_model("fir.12x4x2-lvl.2")
    options = {"max_iter": 100, "early_stopping": True, "n_iter_no_change": 99}
    results = fit(model, trials, learning_rate=0.03, **options)
    best = np.argmin([values for values, _ in ends], axis=0)
    assert len(best) == 2
    assert best[0] != best[1]
    expected = np.empty(len(results.final_parameters)).reshape(-1, 2)
    for output, epoch in enumerate(best):
        expected[:, output] = ends[epoch][1].reshape(-1, 2)[:, output]
    np.testing.assert_array_equal(results.final_parameters, expected.ravel())


# When it stops


def test_early_stopping_keeps_the_best():
    whole = recording((200,), noise=3.0)
    trials = hold_out(whole, 0.3, np.random.RandomState(0))
    model = make_model("fir.12x4-lvl.1-dexp.1")
    options = {"max_iter": 300, "early_stopping": True, "n_iter_no_change": 5}
    results = fit(model, trials, learning_rate=0.03, **options)
    watched = results.held_out_history
    best = int(np.argmin(watched))
    assert results.converged
    assert results.message == NO_PROGRESS
    assert results.n_iter == len(watched) == best + 6 < 300
    objective = Objective(model, trials, SquaredError(), 0.0)
    found = objective.held_out_error(results.final_parameters)
    start = objective.held_out_error(results.initial_parameters)
    assert found == pytest.approx(min(watched[best], start), rel=1e-9)
    assert results.criterion == watched[best]


def test_without_anything_held_out_the_whole_is_watched():
    trials, model = recording(), make_model("fir.3x4-lvl.1")
    results = fit(model, trials, max_iter=200, tol=1e-4, n_iter_no_change=3)
    assert results.n_iter < 200
    assert not results.held_out_history
    short = fit(make_model("fir.3x4-lvl.1"), trials, max_iter=4)
    assert not short.converged
    assert short.message == "The loss still fell after max_iter=4 epochs"
    assert short.n_iter == len(short.history) == 4


def test_progress_is_shown_when_asked_for(capfd):
    fit(make_model("fir.3x4"), recording(), max_iter=2)
    assert capfd.readouterr() == ("", "")
    fit(make_model("fir.3x4"), recording(), max_iter=2, verbose=1)
    assert "2/2" in capfd.readouterr().err


# Errors


class InNumPy(Layer):
    def initial_parameters(self):
        return Phi(Parameter("a"))

    def evaluate(self, values):
        return np.interp(values, [-9, 9], [-9, 9]) * self.get_parameter_values()[0]


def test_layers_that_torch_cannot_follow_are_refused():
    model = Model([*from_keywords("wc.4x1"), InNumPy()])
    before = model.copy()
    with pytest.raises(ValueError, match=r"solver='adam' needs.*layer 'InNumPy'.*solver='lbfgs'"):
        fit(model, recording())
    assert model == before


def test_what_diverges_says_what_to_try():
    def nowhere_else(target, prediction, weight):
        loss = (weight * (prediction - target) ** 2).mean()
        return loss * (np.nan if prediction.detach().abs().max() > 0 else 1.0)

    model = Model(from_keywords("wc.4x1"))
    model.set_parameter_vector(np.zeros(4))
    with pytest.raises(FitDivergedError) as caught:
        fit(model, recording(), loss=FunctionLoss(nowhere_else))
    assert str(caught.value).endswith(ADVICE)
    assert "learning_rate" in ADVICE


def test_a_start_where_the_loss_is_not_finite_is_refused():
    def nowhere(target, prediction, weight):
        return (weight * (prediction - target) ** 2).mean() * np.nan

    with pytest.raises(FitDivergedError, match="The loss is not finite where the fit starts"):
        fit(make_model("wc.4x1"), recording(), loss=FunctionLoss(nowhere))


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_of_all_windows_is_that_of_the_whole(loss, monkeypatch):
    monkeypatch.setattr(adam, "AT_ONCE", 2)
    trials = [replace(trial, target=np.abs(trial.target)) for trial in recording()]
    model = make_model("wc.4x2-fir.3x2-lvl.1-relu.1")
    whole = Objective(model, trials, LOSSES[loss](), alpha=0.3)
    vector = model.get_parameter_vector() + 0.5
    windows = adam._windows(whole, vector)
    values = adam._Values(vector, np.ones(len(vector)), torch.device("cpu"))
    training = adam._Training(windows, values, FitSettings())
    gradient = whole.values_and_gradient(vector)[1]
    np.testing.assert_allclose(training._gradient(vector), gradient, rtol=1e-9)


@pytest.mark.parametrize(("learning_rate", "is_minimum"), [(0.01, True), (1.0, False)])
def test_an_end_without_progress_is_a_minimum_only_if_the_gradient_is_small(
    learning_rate, is_minimum
):
    trials = recording(lengths=(2000,), n_outputs=3)
    bent = [replace(trial, target=np.maximum(trial.target, 0)) for trial in trials]
    model = make_model("wc.4x6-fir.2x1x6-relu.6-wc.6x3-lvl.3")
    objective = Objective(model, bent, SquaredError())
    settings = FitSettings(max_iter=400, learning_rate=learning_rate, n_iter_no_change=10)
    results = Adam().fit(objective, settings, np.random.RandomState(0))
    assert len(results.history) < settings.max_iter
    assert results.converged == is_minimum
    if not is_minimum:
        assert "gradient promises" in results.message
        assert "learning_rate=1.0" in results.advice


def test_at_a_kink_the_gradients_around_count():
    rng = np.random.default_rng(0)
    stimulus = rng.standard_normal((2000, 2))
    target = stimulus @ [[1.0], [-0.5]] + rng.laplace(size=(2000, 1))
    trial = Trial({"input": stimulus}, target, np.ones((2000, 1)))
    loss = FunctionLoss(lambda y, p, weight: (weight * (y - p).abs()).mean())
    objective = Objective(make_model("wc.2x1-lvl.1"), [trial], loss)
    settings = FitSettings(max_iter=400, learning_rate=0.01)
    results = Adam().fit(objective, settings, np.random.RandomState(0))
    assert results.converged, results.message
