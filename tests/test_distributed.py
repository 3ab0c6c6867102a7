"""Two processes that share a fit get the result of a single process.

These processes run this file as a script: every scenario, in one order.
"""

import contextlib
import io
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from torch import distributed

from skdyn import DyNeMoEstimator, NEMSRegressor
from skdyn._callbacks import FitTask
from skdyn.core.checkpoint import Saver
from skdyn.core.training import FitDivergedError
from skdyn.core.windows import WindowLoader
from skdyn.dynemo import start
from skdyn.dynemo.network import DyNeMoNetwork
from skdyn.dynemo.objective import FreeEnergy

N_PROCESSES = 2

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


def is_last():
    return not distributed.is_initialized() or distributed.get_rank() == N_PROCESSES - 1


# ------------------------------------------------------------------------------ scenarios


def recording(lengths=(330, 130, 20), n_channels=4):
    """Sessions with windows that do not divide evenly; the last one is a batch of one window."""
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((2, n_channels, n_channels))
    return [
        np.concatenate(
            [rng.standard_normal((10, n_channels)) @ mixing[t % 2] for t in range(n // 10)]
        )
        for n in lengths
    ]


def dynemo(**parameters):
    settings = {
        "n_modes": 2,
        "sequence_length": 30,
        "inference_n_units": 6,
        "model_n_units": 6,
        "batch_size": 5,
        "n_epochs": 4,
        "random_state": 0,
    }
    return DyNeMoEstimator(**(settings | parameters))


@contextlib.contextmanager
def double_precision():
    """Rounding of single precision grows from step to step; without it, equal means equal."""
    load = WindowLoader.__call__

    def load_double(*args):
        batch = load(*args)
        weight = None if batch.weight is None else batch.weight.double()
        return replace(batch, rows=batch.rows.double(), weight=weight)

    with (
        mock.patch.object(DyNeMoNetwork, "float", DyNeMoNetwork.double),
        mock.patch.object(WindowLoader, "__call__", load_double),
    ):
        yield


def fitted(model):
    history = {name: model.history_[name] for name in model.history_ if name != "seconds"}
    weights = {name: value.numpy() for name, value in model.network_.state_dict().items()}
    return {
        "covariances_": model.covariances_,
        "n_iter_": model.n_iter_,
        "converged_": model.converged_,
        **weights,
        **history,
    }


def in_double_precision(**parameters):
    with double_precision():
        return fitted(dynemo(**parameters).fit(recording()))


def with_dropout():
    return in_double_precision(inference_dropout=0.2, model_dropout=0.3, learn_means=True)


def batches_of_one():
    """One window is held out, too, so that one process always has nothing to do."""
    watched = {"n_iter_no_change": 2, "validation_fraction": 0.05}
    return in_double_precision(batch_size=1, loss_calc="sum", n_epochs=2, **watched)


def from_random_subsets():
    return in_double_precision(init_method="random_subset", n_init=3, init_take=0.7)


def stopped_early():
    return in_double_precision(n_iter_no_change=2, tol=5.0, n_epochs=20, n_kl_annealing_epochs=1)


def in_single_precision():
    return fitted(dynemo().fit(recording()))


def spoiled(n_times):
    """A fit in which the last process, and no other, meets numbers that are not finite."""
    terms, left = FreeEnergy.training_terms, [n_times]

    def spoil(self, batch, epoch):
        found = terms(self, batch, epoch)
        if epoch == 2 and is_last() and left[0]:
            left[0] -= 1
            # Once in two times only the loss is not finite, and its gradient is.
            found["loss"] = found["loss"] * np.nan if left[0] % 2 else found["loss"] + np.inf
        return found

    with mock.patch.object(FreeEnergy, "training_terms", spoil):
        return in_double_precision()


def not_finite_in_one():
    return spoiled(2)


def with_other_arithmetic():
    """The last of two processes finds other modes, and other weights, before it trains."""
    initialise, look = DyNeMoNetwork.initialise, start._compare
    differs = distributed.is_initialized() and is_last()

    def other_weights(network, *args):
        initialise(network, *args)
        with torch.no_grad():
            network.posterior_mean.bias += differs

    def other_modes(*args):
        if differs:
            raise np.linalg.LinAlgError
        return look(*args)

    with (
        mock.patch.object(DyNeMoNetwork, "initialise", other_weights),
        mock.patch.object(start, "_compare", other_modes),
    ):
        return in_double_precision()


def asked_to_stop_in_one():
    """Callbacks of the last process want no more epochs, nor starts."""
    end = FitTask.end

    def ask(self, *attributes):
        end(self, *attributes)
        return is_last()

    with mock.patch.object(FitTask, "end", ask):
        found = nems(n_init=2, init="prior_sample")
        return found | {"epochs": in_double_precision()["n_iter_"]}


def never_finite_in_one():
    return said(lambda: spoiled(1000), FitDivergedError)


def without_random_state():
    return fitted(dynemo(random_state=None).fit(recording()))


def with_own_random_states():
    seed = 3 if not is_last() else 4
    return fitted(dynemo(random_state=np.random.RandomState(seed)).fit(recording()))


def shown():
    with contextlib.redirect_stderr(io.StringIO()) as text:
        dynemo(verbose=1, n_epochs=1, init_method="random").fit(recording())
    return {"anything": bool(text.getvalue())}


def said(fit, kind=ValueError):
    try:
        fit()
    except kind as error:
        return {"message": str(error)}
    return {"message": ""}


def other_data():
    return said(lambda: dynemo().fit(recording((330 - 30 * is_last(), 130, 20))))


def other_parameters():
    return said(lambda: dynemo(n_epochs=3 + is_last()).fit(recording()))


def batch_normalization():
    return said(lambda: dynemo(model_normalization="batch").fit(recording()))


def response():
    sessions = recording((1500, 400, 310))
    rng = np.random.default_rng(1)
    rates = [np.maximum(X[:, :1] - X[:, 1:2], 0.0) for X in sessions]
    return sessions, [rng.poisson(rate).astype(float) for rate in rates]


def correlation_loss(target, prediction, weight):
    """A loss that is not a mean over numbers: for a batch it is not the mean over its parts."""
    target, prediction = (a - (weight * a).mean() for a in (target, prediction))
    power = (weight * target**2).mean() * (weight * prediction**2).mean()
    return 1 - (weight * target * prediction).mean() / (power + 1e-9) ** 0.5


def nems(**parameters):
    settings = {
        "solver": "adam",
        "max_iter": 6,
        "n_iter_no_change": 10,
        "batch_size": 3,
        "random_state": 0,
    }
    model = NEMSRegressor("wc.4x2-fir.3x2-lvl.1-relu.1", **(settings | parameters))
    model.fit(*response())
    return {
        "values": model.model_.get_parameter_vector(),
        "n_iter_": model.n_iter_,
        "loss_": model.loss_,
        **model.history_,
    }


def nems_squared_error():
    return nems(alpha=0.1, batch_size=4)


def nems_poisson():
    return nems(loss="poisson", alpha=0.1)


def nems_batches_of_one():
    return nems(batch_size=1, max_iter=2)


def nems_any_loss():
    return nems(loss=correlation_loss)


def nems_stopped_early():
    return nems(early_stopping=True, n_iter_no_change=2, tol=1.0, max_iter=50)


def nems_from_several_starts():
    return nems(n_init=2, init="prior_sample")


def nems_without_random_state():
    return nems(random_state=None, early_stopping=True, n_init=2)


def nems_other_data():
    sessions, responses = response()
    if is_last():
        responses = [one + 1 for one in responses]
    return said(lambda: NEMSRegressor(solver="adam").fit(sessions, responses))


def from_a_checkpoint():
    """Killed after a write of the first process, and called again."""
    if not distributed.is_initialized():
        return in_double_precision()
    options = {"checkpoint": Path(sys.argv[-1], "checkpoint"), "checkpoint_every": 1}
    n_left, write = [3], Saver.keep

    def stop(self, *arguments, **named):
        write(self, *arguments, **named)
        n_left[0] -= 1
        if not n_left[0]:
            raise KeyboardInterrupt

    with mock.patch.object(Saver, "keep", stop), contextlib.suppress(KeyboardInterrupt):
        in_double_precision(**options)
    distributed.barrier()
    return in_double_precision(**options)


def alone_amid_others():
    """Fits without gradient descent: the last process would hang if they communicated."""
    if not is_last():
        return {}
    model = NEMSRegressor("wc.4x2-fir.3x2-lvl.1-relu.1", random_state=0).fit(*response())
    return {"values": model.model_.get_parameter_vector()}


SAME = [
    *(with_dropout, batches_of_one, from_random_subsets, stopped_early, not_finite_in_one),
    *(
        with_other_arithmetic,
        asked_to_stop_in_one,
        nems_squared_error,
        nems_poisson,
        nems_batches_of_one,
    ),
    *(nems_any_loss, nems_stopped_early, nems_from_several_starts, from_a_checkpoint),
]
OTHERS = [
    *(in_single_precision, never_finite_in_one, without_random_state, with_own_random_states),
    *(shown, other_data, other_parameters, batch_normalization, nems_without_random_state),
    *(nems_other_data, alone_amid_others),
]


def short_search():
    """Few gradient steps in the search for a start: the same path, in less time."""
    return mock.patch.multiple(start, STEPS_PER_ROUND=(1, 2), N_ROUNDS=2)


@pytest.fixture(scope="module", autouse=True)
def short_search_here():
    with short_search():
        yield


def run(rank, folder):
    """Run all scenarios in one of the processes."""
    distributed.init_process_group(
        "gloo",
        init_method=(folder / "meeting").as_uri(),
        rank=rank,
        world_size=N_PROCESSES,
        timeout=timedelta(seconds=60),
    )
    with short_search():
        results = {scenario.__name__: scenario() for scenario in SAME + OTHERS}
    (folder / f"{rank}.pickle").write_bytes(pickle.dumps(results))
    distributed.destroy_process_group()


# ---------------------------------------------------------------------------------- tests


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Results of each of two processes, by scenario."""
    folder = tmp_path_factory.mktemp("processes")
    paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    with contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-W", "ignore", __file__, str(rank), str(folder)],
                    env=environment,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            for rank in range(N_PROCESSES)
        ]
        # If one process has failed, the other would wait for it.
        for process in started:
            stack.callback(process.kill)
        for process in started:
            _, errors = process.communicate(timeout=600)
            assert process.returncode == 0, errors
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(N_PROCESSES)]


def of(together, scenario):
    return [results[scenario.__name__] for results in together]


def assert_same(found, expected, rtol):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        size = np.max(np.abs(values), initial=1e-300)
        np.testing.assert_allclose(found[name], values, rtol=rtol, atol=rtol * size, err_msg=name)


def assert_identical(found, expected):
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.mark.parametrize("scenario", SAME, ids=lambda scenario: scenario.__name__)
def test_two_processes_come_to_what_one_comes_to(together, scenario):
    first, second = of(together, scenario)
    assert_identical(first, second)
    # Measured: 3e-14.
    assert_same(first, scenario(), rtol=1e-11)


def test_in_single_precision_they_come_as_close_as_rounding_lets_them(together):
    first, second = of(together, in_single_precision)
    assert_identical(first, second)
    alone = in_single_precision()
    seen = {"covariances_", "loss", "ll_loss", "kl_loss"}
    # Measured: 3e-6 for weights of the networks, 1e-7 for the rest.
    assert_same(first, alone, rtol=1e-4)
    assert_same({k: first[k] for k in seen}, {k: alone[k] for k in seen}, rtol=1e-5)


def test_the_scenarios_are_what_they_say(together):
    (early, _), (nems_early, _) = of(together, stopped_early), of(together, nems_stopped_early)
    assert early["converged_"]
    assert early["n_iter_"] < 20
    assert nems_early["n_iter_"] < 50
    assert "validation_loss" in nems_early
    asked = of(together, asked_to_stop_in_one)[0]
    assert asked["n_iter_"] == asked["epochs"] == 1
    rates = of(together, not_finite_in_one)[0]["learning_rate"]
    whole = of(together, in_single_precision)[0]["learning_rate"]
    np.testing.assert_allclose(np.divide(rates, whole), [1, 1, 0.25, 0.25])


def test_all_give_up_if_one_never_finds_finite_numbers(together):
    first, second = of(together, never_finite_in_one)
    assert first == second
    assert "diverged in epoch 2" in first["message"]


@pytest.mark.parametrize(
    "scenario", [without_random_state, with_own_random_states, nems_without_random_state]
)
def test_the_random_numbers_are_those_of_the_first(together, scenario):
    assert_identical(*of(together, scenario))


def test_a_generator_of_the_first_process_is_the_one_that_counts(together):
    expected = fitted(dynemo(random_state=np.random.RandomState(3)).fit(recording()))
    assert_same(of(together, with_own_random_states)[0], expected, rtol=1e-4)


def test_fresh_random_numbers_differ_from_fit_to_fit(together):
    again = without_random_state()
    found = of(together, without_random_state)[0]
    assert not np.allclose(found["prior_mean.weight"], again["prior_mean.weight"], atol=1e-3)


def test_only_the_first_shows_progress(together):
    assert of(together, shown) == [{"anything": True}, {"anything": False}]


@pytest.mark.parametrize("scenario", [other_data, other_parameters, nems_other_data])
def test_processes_that_bring_different_things_are_told_so(together, scenario):
    first, second = of(together, scenario)
    assert first == second
    assert "of 1 of 2 processes differ" in first["message"]


def test_batch_normalization_is_refused(together):
    first, second = of(together, batch_normalization)
    assert first == second
    assert "Use 'layer' or None" in first["message"]
    # In one process it is allowed.
    assert batch_normalization() == {"message": ""}


def test_what_is_not_trained_by_steps_is_not_shared(together):
    assert_same(of(together, alone_amid_others)[1], alone_amid_others(), rtol=1e-7)


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(int(sys.argv[1]), Path(sys.argv[2]))
