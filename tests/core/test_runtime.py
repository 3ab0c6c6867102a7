import numpy as np
import pytest
import torch

from skdyn.core.runtime import check_device, make_generator, one_thread


def test_the_cpu_is_there():
    assert check_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("device", ["cuda:99", "no such device"])
def test_a_device_that_is_not_there_says_what_to_do(device):
    with pytest.raises(ValueError, match=r"device is .*cannot use.*Use 'cpu'") as caught:
        check_device(device)
    assert repr(device) in str(caught.value)


def test_generators_follow_the_random_state():
    def draws(seed):
        random_state = np.random.RandomState(seed)
        made = [make_generator(random_state, torch.device("cpu")) for _ in range(2)]
        return [torch.rand(5, generator=generator) for generator in made]

    first, second = draws(0)
    assert not torch.equal(first, second)
    for one, again in zip((first, second), draws(0), strict=True):
        assert torch.equal(one, again)
    assert not torch.equal(first, draws(1)[0])


def test_the_global_generators_are_neither_read_nor_moved():
    before = torch.get_rng_state()
    numpy_before = np.random.get_state()  # noqa: NPY002
    generator = make_generator(np.random.RandomState(0), torch.device("cpu"))
    torch.rand(5, generator=generator)
    assert torch.equal(before, torch.get_rng_state())
    for one, other in zip(numpy_before, np.random.get_state(), strict=True):  # noqa: NPY002
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def threads():
    """A setter of the number of threads, undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("number", [1, 2])
def test_one_thread_gives_the_callers_number_back(threads, number):
    threads(number)
    with one_thread():
        assert torch.get_num_threads() == 1
        with one_thread():
            pass
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == number


@pytest.mark.parametrize("number", [1, 2])
def test_one_thread_gives_the_callers_number_back_after_an_error(threads, number):
    threads(number)
    with pytest.raises(KeyError), one_thread():
        raise KeyError
    assert torch.get_num_threads() == number
