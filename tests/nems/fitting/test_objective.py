"""Fits against closed forms, finite differences and SciPy."""

import numpy as np
import pytest
import torch
from scipy.optimize import approx_fprime
from scipy.stats import poisson as poisson_distribution

from skdyn.nems import Layer, Model, Parameter, Phi, Uniform, from_keywords
from skdyn.nems.fitting.objective import Objective, Sizes
from skdyn.nems.fitting.run import DEFAULTS, fit_trials
from skdyn.nems.fitting.trials import Trial
from skdyn.nems.losses import LEAST_RATE, LOSSES, Poisson, SquaredError


def stimulus(n_samples=400, n_channels=4, seed=0):
    return np.random.default_rng(seed).standard_normal((n_samples, n_channels))


def make_model(text="wc.4x2-fir.3x2-lvl.1-dexp.1", seed=0):
    return Model(from_keywords(text)).sample_from_priors(random_state=seed)


def trials_of(lengths=(50, 30, 50), n_outputs=1, seed=3):
    rng = np.random.default_rng(seed)
    return [
        Trial(
            {"input": rng.standard_normal((n, 4))},
            rng.standard_normal((n, n_outputs)),
            rng.uniform(0, 2, (n, 1)),
        )
        for n in lengths
    ]


# The objective


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_value_and_gradient_against_a_loop_and_finite_differences(loss, alpha):
    model, trials = make_model(), trials_of()
    objective = Objective(model, trials, LOSSES[loss](), alpha)
    vector = model.get_parameter_vector()

    def by_hand(values):
        model.set_parameter_vector(values, ignore_bounds=True)
        total, weights = 0.0, 0.0
        for trial in trials:
            p, y, w = model.predict(trial.data), trial.target, trial.weight
            if loss == "squared_error":
                total += np.sum(w * (p - y) ** 2)
            else:
                ws = np.concatenate([t.weight for t in trials])
                ys = np.concatenate([t.target for t in trials])
                least = LEAST_RATE * np.average(ys, weights=ws)
                above, below = np.maximum(p, least), np.minimum(p, least)
                barrier = ((below - y) ** 2 - (least - y) ** 2) / (2 * least)
                total += np.sum(w * (above - y * np.log(above) + barrier))
            weights += w.sum()
        counted = (("wc", "coefficients"), ("fir", "coefficients"), ("dexp", "kappa"))
        penalised = [model.layers[layer][name].values for layer, name in counted]
        return total / weights + 0.5 * alpha * sum(np.sum(one**2) for one in penalised)

    if loss == "poisson":
        trials = [Trial(t.data, np.abs(t.target), t.weight) for t in trials]
        objective = Objective(model, trials, LOSSES[loss](), alpha)
        model.layers["dexp"].set_parameter_values(base=[0.1])
        vector = model.get_parameter_vector()
    value, gradient = objective.values_and_gradient(vector)
    (value,) = value
    assert objective.value(vector) == pytest.approx(value, rel=1e-12)
    value, gradient = value * objective.scale, gradient * objective.scale
    assert value == pytest.approx(by_hand(vector), rel=1e-12)
    numeric = approx_fprime(vector, by_hand, 1e-7)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-5)


def test_frozen_values_are_not_in_the_vector():
    model = make_model()
    model.layers["wc"].freeze_parameters()
    objective = Objective(model, trials_of(), SquaredError(), 1.0)
    value, gradient = objective.values_and_gradient(model.get_parameter_vector())
    assert gradient.shape == (6 + 1 + 4,)
    everything = Objective(make_model(), trials_of(), SquaredError(), 1.0)
    other = everything.values_and_gradient(make_model().get_parameter_vector())
    np.testing.assert_allclose(gradient, other[1][8:], rtol=1e-10)
    assert other[0][0] > value[0]  # the penalty counts what is free


def test_trials_have_no_history():
    """Trials of one length, evaluated together, equal trials evaluated one by one."""
    model, trials = make_model(), trials_of((40, 40, 40))
    together = Objective(model, trials, SquaredError())
    prediction = together.predict(together.groups[0].data).detach().numpy()
    for trial, found in zip(trials, prediction, strict=True):
        np.testing.assert_allclose(found, model.predict(trial.data), rtol=1e-12)


def test_poisson_is_the_log_likelihood_of_counts():
    rng = np.random.default_rng(0)
    counts, rate = rng.poisson(3.0, (50, 2)).astype(float), rng.uniform(1, 5, (50, 2))
    logs = np.log(np.where(counts > 0, counts, 1))
    constant = np.mean(poisson_distribution.logpmf(counts, counts) + counts - counts * logs)
    found = Poisson().pointwise(*map(torch.tensor, (counts, rate, np.ones(2)))).mean()
    assert -float(found) + constant == pytest.approx(
        poisson_distribution.logpmf(counts, rate).mean(), rel=1e-10
    )


def test_components_are_outputs_that_share_parameters():
    trial = trials_of((60,), n_outputs=3)[0]
    for text, components in (
        ("fir.3x4x3-lvl.3", 3),
        ("wc.4x1x3-fir.3x1x3-dexp.3", 3),
        ("wc.4x2-fir.3x2x3-lvl.3", 1),
        ("wc.4x1x2-fir.3x1x2-wc.2x3-dexp.3", 1),
    ):
        objective = Objective(make_model(text), [trial], SquaredError())
        assert len(set(objective.component)) == components
        values, gradient = objective.values_and_gradient(objective.model.get_parameter_vector())
        assert values.shape == (components,)
        assert objective.value(objective.model.get_parameter_vector()) == pytest.approx(
            values.mean()
        )
        assert np.isfinite(gradient).all()


def test_penalty_of_each_output_counts_what_it_depends_on():
    trial = trials_of((60,), n_outputs=2)[0]
    model = make_model("wc.4x1-fir.3x1x2")
    objective = Objective(model, [trial], SquaredError(), [1.0, 5.0])
    shared, own = np.full(4, (1.0 + 5.0) / 2), np.tile([0.5, 2.5], 3)
    np.testing.assert_allclose(objective.penalty, np.concatenate([shared, own]))


# Fits


def test_linear_models_end_at_least_squares_with_or_without_a_closed_form():
    X = stimulus()
    y = np.convolve(X[:, 0], [0, 1, -0.5])[: len(X)] + 0.3 + 0.1 * stimulus(seed=1)[:, 0]
    lags = [np.vstack([np.zeros((lag, 4)), X[: len(X) - lag]]) for lag in range(3)]
    design = np.column_stack([*lags, np.ones(len(X))])
    solution, *_ = np.linalg.lstsq(design, y, rcond=None)
    residual = np.mean((y - design @ solution) ** 2)
    # Behind the second there is a layer that does nothing.
    for text, closed, close in (("fir.3x4-lvl.1", True, 1e-12), ("fir.3x4-lvl.1-cat", False, 1e-5)):
        fitted = Model(from_keywords(text)).fit(X, y, verbose=0, tol=1e-15, history="zeros")
        assert (fitted.results.message == "Solved in closed form.") == closed
        found = fitted.layers["fir"]["coefficients"].values.ravel()
        np.testing.assert_allclose(found, solution[:-1], atol=close)
        np.testing.assert_allclose(fitted.layers["lvl"]["shift"].values, solution[-1:], atol=close)
        assert fitted.results.final_error == pytest.approx(residual, rel=1e-8)
        assert fitted.results.converged
        assert fitted.results.exact_gradients
        history = fitted.results.history
        assert np.all(np.diff(history) < 1e-12)
        assert (len(history) == 1) == closed


def test_the_penalty_gives_the_ridge_solution():
    X = stimulus(n_samples=60)
    y = X @ [1.0, 0, -1, 0.5] + 0.1 * stimulus(60, 1, seed=1)[:, 0]
    ridge = np.linalg.solve(X.T @ X / 60 + 0.25 * np.eye(4), X.T @ y / 60)
    for text in ("wc.4x1", "wc.4x1-cat"):
        model = Model(from_keywords(text)).fit(X, y, alpha=0.5, verbose=0, tol=1e-15)
        np.testing.assert_allclose(model.get_parameter_vector(), ridge, atol=1e-6)


def test_fits_end_where_an_iteration_brings_less_than_a_millionth():
    """As a mean over five, in units of the loss of a constant prediction."""
    X = stimulus()
    y = np.tanh(X @ [[1.0], [0.2], [-0.5], [0.3]])
    y[1:] += 0.5 * y[:-1] + 0.1 * stimulus(399, 1, seed=1)
    fitted = make_model().fit(X, y, verbose=0, history="zeros")
    progress = -np.diff(fitted.results.history)
    means = np.convolve(progress, np.ones(5) / 5, "valid") / y.var()
    assert means[-1] <= 2e-6
    assert fitted.results.converged


def test_weights_of_zero_leave_samples_out():
    X = stimulus()
    y = X @ [1.0, 0, -1, 0.5]
    weight = np.ones(len(X))
    weight[100:200], spoiled = 0, y.copy()
    spoiled[100:200] = 1e3
    model = Model(from_keywords("wc.4x1"))
    fitted = model.fit(X, spoiled, sample_weight=weight, verbose=0, tol=1e-15)
    np.testing.assert_allclose(fitted.get_parameter_vector(), [1.0, 0, -1, 0.5], atol=1e-6)
    # One response of two.
    pair = np.column_stack([spoiled, y])
    both = np.column_stack([weight, np.ones(len(X))])
    two = Model(from_keywords("wc.4x2")).fit(X, pair, sample_weight=both, verbose=0, tol=1e-15)
    np.testing.assert_allclose(
        two.layers[0]["coefficients"].values.T, [[1.0, 0, -1, 0.5]] * 2, atol=1e-6
    )


def test_trials_along_the_first_axis():
    X = stimulus(300).reshape(3, 100, 4)
    model = make_model("wc.4x1-fir.3x1")
    y = model.predict(X, trials=True)
    assert y.shape == (3, 100, 1)
    fitted = make_model("wc.4x1-fir.3x1", seed=1).fit(X, y, trials=True, verbose=0, tol=1e-14)
    np.testing.assert_allclose(fitted.predict(X, trials=True), y, atol=1e-4)
    assert fitted.score(X, y, trials=True) == pytest.approx(1.0)


def test_bounds_hold():
    class Scale(Layer):
        def initial_parameters(self):
            return Phi(Parameter("factor", prior=Uniform(0, 1), bounds=(0, 1)))

        def evaluate(self, values):
            return self.get_parameter_values()[0] * values

    X = stimulus(n_channels=1)
    fitted = Model([Scale()]).fit(X, 3 * X, verbose=0)
    assert fitted.layers[0]["factor"].values == 1.0
    assert Model([Scale()]).fit(X, 0.4 * X, verbose=0).layers[0]["factor"].values == pytest.approx(
        0.4
    )


def test_the_model_is_copied_or_fitted_in_place():
    X = stimulus()
    model = make_model("wc.4x1")
    before = model.get_parameter_vector()
    fitted = model.fit(X, X[:, 0], verbose=0)
    assert fitted is not model
    np.testing.assert_array_equal(model.get_parameter_vector(), before)
    assert model.results is None
    np.testing.assert_array_equal(fitted.results.initial_parameters, before)
    np.testing.assert_array_equal(fitted.results.final_parameters, fitted.get_parameter_vector())
    assert fitted.results.n_parameters == 4
    assert model.fit(X, X[:, 0], verbose=0, in_place=True) is model
    np.testing.assert_array_equal(model.get_parameter_vector(), fitted.get_parameter_vector())


@pytest.mark.filterwarnings("ignore:The fit has not converged")
def test_sizes_left_out_and_nothing_to_fit():
    X = stimulus()
    model = Model(from_keywords("wc.x2-fir.3-lvl")).fit(X, X[:, 0], verbose=0, max_iter=3)
    assert model.layers[0].shape == (4, 2)
    assert not model.results.converged
    frozen = Model(from_keywords("wc.4x1"))
    frozen.freeze_layers()
    same = frozen.fit(X, X[:, 0], verbose=0)
    assert same == frozen


@pytest.mark.filterwarnings("ignore:The fit has not converged")
def test_nothing_of_the_callers_is_changed():
    X, y = stimulus(), stimulus(seed=1)[:, 0]
    for array in (X, y):
        array.flags.writeable = False
    data = {"input": X}
    make_model("wc.4x1-fir.3x1").fit(data, y, verbose=0, max_iter=3)
    assert set(data) == {"input"}


@pytest.mark.filterwarnings("ignore:The fit has not converged")
def test_a_loss_of_ones_own():
    def absolute(target, prediction, weight):
        return (weight * (prediction - target).abs()).mean()

    X = np.ones((101, 1))
    y = np.arange(101.0) ** 2
    fitted = Model(from_keywords("wc.1x1")).fit(X, y, loss=absolute, verbose=0, max_iter=500)
    assert fitted.layers[0]["coefficients"].values.item() == pytest.approx(np.median(y), rel=0.05)


# Gradients that torch cannot follow


class Detached(Layer):
    """Leaves torch without an error."""

    def initial_parameters(self):
        return Phi(Parameter("a"), Parameter("b"))

    def evaluate(self, values):
        a, b = self.get_parameter_values()
        return a * values + (b.detach() if torch.is_tensor(b) else b)


class Rounded(Layer):
    def initial_parameters(self):
        return Phi(Parameter("a"))

    def evaluate(self, values):
        return float(self.get_parameter_values()[0]) * values


class InNumPy(Layer):
    def initial_parameters(self):
        return Phi(Parameter("a"))

    def evaluate(self, values):
        return np.interp(values[:, 0], [-9, 9], [-9, 9]) * self.get_parameter_values()[0]


@pytest.mark.parametrize("kind", [Detached, Rounded, InNumPy])
def test_a_wrong_gradient_is_never_used(kind):
    X = stimulus(n_channels=1)
    layers = [*from_keywords("wc.1x1"), kind()]
    y = 2 * X[:, 0] + (0.7 if kind is Detached else 0)
    model = Model(layers).sample_from_priors(random_state=1)
    with pytest.warns(UserWarning, match=f"cannot follow the layer '{kind.__name__}'") as caught:
        fitted = model.fit(X, y, verbose=0)
    assert len(caught) == 1
    assert not fitted.results.exact_gradients
    np.testing.assert_allclose(fitted.predict(X)[:, 0], y, atol=1e-4)


def test_a_layer_of_ones_own_that_torch_follows_gives_no_warning():
    class Power(Layer):
        def initial_parameters(self):
            return Phi(Parameter("exponent", prior=Uniform(1, 3)))

        def evaluate(self, values):
            return abs(values) ** self.get_parameter_values()[0]

    X = stimulus(n_channels=1)
    fitted = Model([Power()]).fit(X, np.abs(X) ** 1.5, verbose=0)
    assert fitted.results.exact_gradients
    assert fitted.layers[0]["exponent"].values == pytest.approx(1.5, abs=1e-5)


# Errors


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        (np.ones((400, 2)), {}, r"\(400, 1\).*\(400, 2\); change the last"),
        (np.ones(400), {"sample_weight": np.zeros(400)}, "sample_weight are zero"),
        (np.ones(400), {"sample_weight": -np.ones(400)}, "at least 0"),
        (np.ones(400), {"sample_weight": np.ones(3)}, r"shape \(3,\)"),
        (np.ones(400), {"loss": "huber"}, "'loss' parameter.*'squared_error'"),
        (np.ones(300), {}, "300 rows for 400"),
        (np.full(400, np.nan), {}, "NaN"),
    ],
)
def test_errors_say_what_came_and_what_was_expected(target, options, message):
    with pytest.raises(ValueError, match=message):
        make_model("wc.4x1").fit(stimulus(), target, verbose=0, **options)


def test_nothing_is_printed_unless_asked(capsys):
    X = stimulus()
    model = make_model("wc.4x1")
    model.fit(X, X[:, 0], verbose=0)
    assert not capsys.readouterr().out
    model.fit(X, X[:, 0])
    assert "Fit successful: True" in capsys.readouterr().out


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
def test_losses_are_told_in_units_of_a_constant_prediction(loss):
    trials = [Trial(t.data, np.abs(t.target), t.weight) for t in trials_of(n_outputs=2)]
    target, weight = (np.concatenate([getattr(t, k) for t in trials]) for k in ("target", "weight"))
    mean = np.average(target, axis=0, weights=weight[:, 0])
    wanted = {
        "squared_error": np.average((target - mean) ** 2, axis=0, weights=weight[:, 0]).mean(),
        "poisson": mean.mean(),
    }
    sizes = Sizes.of(LOSSES[loss](), trials)
    assert sizes.share @ sizes.scale == pytest.approx(wanted[loss], rel=1e-12)
    silent = Sizes.of(LOSSES[loss](), [Trial(t.data, 0 * t.target, t.weight) for t in trials])
    assert silent.share @ silent.scale == 1


@pytest.mark.filterwarnings("ignore:The fit has not converged")
def test_the_solver_is_that_of_the_settings():
    trials = [Trial(t.data, np.abs(t.target), t.weight) for t in trials_of()]
    options = {**DEFAULTS, "init": "given", "history": "zeros", "max_iter": 150, "tol": 0}
    ends = {}
    for solver in ("lbfgs", "adam"):
        options |= {"solver": solver, "random_state": 0, "learning_rate": 0.05}
        fitted = fit_trials(make_model("wc.4x1-srelu.1"), trials, options)
        ends[solver] = fitted.results.final_error
    assert ends["adam"] == pytest.approx(ends["lbfgs"], rel=1e-2)


def test_counts_without_weight_may_be_anything():
    """As they may be NaN."""
    X = stimulus()
    y, weight = np.abs(X[:, 0]), np.ones(len(X))
    y[5], weight[5] = -1.0, 0.0
    fitted = make_model("wc.4x1-srelu.1").fit(X, y, loss="poisson", sample_weight=weight, verbose=0)
    assert np.isfinite(fitted.results.final_error)


@pytest.mark.parametrize("unit", [1e-4, 1e4])
def test_the_unit_of_the_response_does_not_matter(unit):
    X = stimulus()
    y = np.abs(1 + X @ [[1.0], [0.2], [-0.5], [0.3]]) + 0.1
    text = "wc.4x1-lvl.1"
    plain = Model(from_keywords(text)).fit(X, y, verbose=0, tol=1e-12)
    scaled = Model(from_keywords(text)).fit(X, unit * y, verbose=0, tol=1e-12)
    np.testing.assert_allclose(
        scaled.get_parameter_vector() / unit, plain.get_parameter_vector(), atol=1e-3
    )


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
def test_trials_without_weight_or_without_counts(loss):
    """A group of trials of one length may have neither."""
    trials = [Trial(t.data, np.abs(t.target), t.weight) for t in trials_of((50, 30, 20))]
    silent = Trial(trials[1].data, np.zeros((30, 1)), trials[1].weight)
    masked = Trial(trials[2].data, np.full((20, 1), 1e9), np.zeros((20, 1)))
    model = make_model("wc.4x1-lvl.1")
    vector = model.get_parameter_vector()
    found = [
        Objective(model, some, LOSSES[loss]()).values_and_gradient(vector)
        for some in ([trials[0], silent, masked], [trials[0], silent])
    ]
    assert np.isfinite(found[0][0]).all()
    assert np.isfinite(found[0][1]).all()
    # In units of the scale, to which what has no weight adds nothing either.
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-12)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-10)
