"""Shares and draws for any number of processes; tests/test_distributed.py tests communication."""

import numpy as np
import pytest
import torch

from skdyn.core import distributed
from skdyn.core.distributed import (
    Draws,
    by_first,
    gathered,
    is_first,
    n_processes,
    share,
    start_together,
)
from skdyn.core.training import TrainingSettings, train


@pytest.fixture
def process(monkeypatch):
    """Lets this process take itself for one of several."""

    def be(rank, size):
        monkeypatch.setattr(distributed, "n_processes", lambda: size)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)

    return be


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("n_windows", [1, 2, 3, 7, 20])
def test_shares_make_up_the_batch(process, size, n_windows):
    shares = []
    for rank in range(size):
        process(rank, size)
        shares.append(share(n_windows))
    windows = np.arange(n_windows)
    counted = [windows[one.rows] for one in shares if one.n_counted]
    np.testing.assert_array_equal(np.concatenate(counted), windows)
    assert [len(part) for part in counted] == [one.n_counted for one in shares if one.n_counted]
    assert np.ptp([one.n_counted for one in shares]) <= 1
    assert all(len(windows[one.rows]) >= 1 for one in shares)
    assert sum(one.weight for one in shares) == pytest.approx(1, rel=1e-15)


@pytest.mark.parametrize("name", ["normal", "uniform"])
def test_each_window_gets_the_numbers_that_it_gets_in_one_process(process, name):
    like = torch.zeros(7, 4, 3, dtype=torch.float64)

    def draw(rank, size):
        process(rank, size)
        draws = Draws(torch.Generator().manual_seed(0), share(7))
        # Twice, as a second draw shows if the first one has taken as many numbers.
        return [getattr(draws, name)(like[draws.windows.rows]) for _ in range(2)]

    alone = draw(0, 1)
    parts = [draw(rank, 3) for rank in range(3)]
    for number, whole in enumerate(alone):
        assert torch.equal(torch.cat([part[number] for part in parts]), whole)
    expected = {"normal": torch.randn, "uniform": torch.rand}[name]
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(alone[0], expected(7, 4, 3, generator=generator, dtype=torch.float64))


def test_a_process_without_a_group_is_alone():
    assert n_processes() == 1
    assert is_first()
    own = torch.ones(3, requires_grad=True)
    assert gathered(own, share(3)) is own
    assert by_first(lambda: 7, torch.device("cpu")) == 7


@pytest.mark.parametrize(
    ("backend", "device"), [("cuda:nccl", "cpu"), ("cpu:gloo,cuda:gloo", "mps")]
)
def test_a_backend_that_does_not_serve_the_device_is_refused(process, monkeypatch, backend, device):
    process(0, 2)
    monkeypatch.setattr(torch.distributed, "get_backend_config", lambda: backend)
    message = f"backend '{backend}', which does not serve devices of type '{device}'"
    with pytest.raises(ValueError, match=message):
        start_together({}, [], np.random.RandomState(0), torch.device(device))


def test_alone_nothing_is_sent(monkeypatch):
    def send(*args, **kwargs):
        raise AssertionError("something was sent")

    for name in ("all_reduce", "broadcast", "broadcast_object_list"):
        monkeypatch.setattr(torch.distributed, name, send)
    module = torch.nn.Linear(2, 1, bias=False)

    class Squares:
        def training_terms(self, batch, epoch):
            return {"loss": module(batch).square().mean()}

        def held_out_loss(self):
            return 0.0

        def begin_jitter(self):
            return False

    with torch.no_grad():
        module.weight.fill_(1.0)
    settings = TrainingSettings(2, lambda epoch: 0.1, n_iter_no_change=1)
    done = train(module, Squares(), lambda: [torch.ones(4, 2)], settings)
    assert done.history["loss"][0] == 4
