"""Devices other than the CPU are not asked, nor sent anything, while an epoch is under way."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from skdyn.core import gaussian, training, windows
from skdyn.dynemo import objective
from skdyn.dynemo import training as dynemo_training
from skdyn.dynemo.objective import FreeEnergy

# Tiny fits explain little, and say so.
pytestmark = pytest.mark.filterwarnings(
    "ignore:(The (bound|mixing|modes)|Training ended):sklearn.exceptions.ConvergenceWarning"
)

QUESTIONS = {"_local_scalar_dense", "is_nonzero", "nonzero", "equal", "_unique2", "masked_select"}


@pytest.fixture
def elsewhere(monkeypatch):
    """The CPU is taken for a device that is not the host."""
    for module in (dynemo_training, gaussian, objective, training, windows):
        monkeypatch.setattr(module, "is_host", lambda device: False)


class Watch(TorchDispatchMode):
    """Notes questions, and where NumPy's numbers enter."""

    def __init__(self):
        super().__init__()
        self.notes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in QUESTIONS:
            self.notes.append(name)
        return func(*args, **(kwargs or {}))


def noting(watch, function, before=None, after=None):
    def noted(*args, **kwargs):
        watch.notes.append(before)
        result = function(*args, **kwargs)
        watch.notes.append(after)
        return result

    return noted


@pytest.mark.parametrize("n_channels", [5, 30])
def test_no_question_between_the_steps_of_an_epoch(
    small_dynemo, recording, elsewhere, monkeypatch, n_channels
):
    watch = Watch()
    monkeypatch.setattr(
        FreeEnergy, "training_terms", noting(watch, FreeEnergy.training_terms, before="first")
    )
    monkeypatch.setattr(training._Run, "_step", noting(watch, training._Run._step, after="last"))
    monkeypatch.setattr(
        windows.torch, "from_numpy", noting(watch, torch.from_numpy, before="numbers sent")
    )
    X = np.random.default_rng(0).standard_normal((400, n_channels))
    X[:, :5] = recording[:400]
    model = small_dynemo(n_epochs=2, gradient_clip=1.0, inference_dropout=0.1, learn_means=True)
    with watch:
        model.fit(X)
    notes = [note for note in watch.notes if note is not None]
    starts = [i for i, note in enumerate(notes) if note == "first"]
    ends = [i for i, note in enumerate(notes) if note == "last" and i > starts[0]]
    n_steps = len(starts) // 2
    assert n_steps > 1
    assert len(ends) == len(starts)
    for epoch in (slice(0, n_steps), slice(n_steps, None)):
        inside = notes[starts[epoch][0] : ends[epoch][-1]]
        assert set(inside) == {"first", "last"}
    # The watcher sees all transfers: epochs end with a question and begin with numbers.
    between = notes[ends[n_steps - 1] : starts[n_steps]]
    assert "_local_scalar_dense" in between
    assert "numbers sent" in between


def test_the_fit_is_the_same_as_on_the_host(small_dynemo, recording, request):
    sessions = [recording[:400], recording[400:430], recording[430:]]
    here = small_dynemo().fit(sessions)
    request.getfixturevalue("elsewhere")
    there = small_dynemo().fit(sessions)
    np.testing.assert_allclose(here.history_["loss"], there.history_["loss"], rtol=1e-6)
    np.testing.assert_allclose(here.covariances_, there.covariances_, rtol=1e-5, atol=1e-6)


def test_recordings_that_are_too_large_are_read_as_needed(
    small_dynemo, recording, elsewhere, monkeypatch, same_fit
):
    whole = small_dynemo().fit(recording)
    monkeypatch.setattr(windows, "RESIDENT_SIZE", 4 * recording.size - 1)
    monkeypatch.delattr(windows.WindowLoader, "_resident")
    assert same_fit(whole, small_dynemo().fit(recording))


def test_an_epoch_that_needs_a_rescue_is_repeated_with_it(
    small_dynemo, recording, elsewhere, monkeypatch
):
    """At the same rate, and from then on no epoch is repeated."""
    asked = []
    swept = gaussian._swept

    def breaks(*args, use_jitter):
        asked.append(use_jitter)
        log_prob, *others = swept(*args, use_jitter=use_jitter)
        return log_prob if use_jitter else log_prob + np.nan, *others

    monkeypatch.setattr(gaussian, "_swept", breaks)
    model = small_dynemo(n_epochs=3, init_method="random").fit(recording)
    # The first check of the start, and of the end, are made with a use_jitter, too.
    asked = asked[asked.index(False) :]
    n_steps = asked.index(True)
    asked = asked[: 4 * n_steps]
    assert asked == [False] * n_steps + [True] * 3 * n_steps
    np.testing.assert_allclose(model.history_["learning_rate"][0], 0.01)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("n_channels", [5, 30])
def test_cuda_agrees_with_the_cpu(small_dynemo, recording, n_channels):
    X = np.random.default_rng(0).standard_normal((len(recording), n_channels))
    X[:, :5] = recording
    model = small_dynemo().fit(X)
    alpha, bound = model.transform(X), model.score_samples(X)
    model.set_params(device="cuda")
    np.testing.assert_allclose(model.transform(X), alpha, atol=1e-4)
    np.testing.assert_allclose(model.score_samples(X), bound, rtol=1e-4, atol=1e-3)
    fitted = small_dynemo(device="cuda").fit(X)
    assert fitted.free_energy(X) == pytest.approx(-bound.mean(), abs=0.1)
