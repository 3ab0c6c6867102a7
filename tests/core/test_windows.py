import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skdyn.core import windows as module
from skdyn.core.windows import (
    MOST_PADDED,
    WindowLoader,
    Windows,
    batches,
    cut_windows,
    disjoint,
    gaps,
    jitter,
    kept_rows,
    stitch,
)

check = settings(max_examples=60, deadline=None, derandomize=True)


@st.composite
def layouts(draw, min_length=1):
    n_rows = draw(st.lists(st.integers(1, 60), min_size=1, max_size=5))
    length = draw(st.integers(min_length, 25))
    stride = draw(st.integers(1, length))
    return n_rows, length, stride


@st.composite
def halved(draw):
    n_rows = draw(st.lists(st.integers(1, 120), min_size=1, max_size=4))
    length = draw(st.integers(2, 30))
    return n_rows, length, length // 2


def each(windows):
    """Session, start, first and last kept row of the session, length of each window."""
    for session, start, length, kept in zip(
        windows.session, windows.start, windows.length, kept_rows(windows), strict=True
    ):
        yield session, start, start + kept.start, start + kept.stop, length


@check
@given(layouts())
def test_windows_stay_within_their_session_and_have_the_length_asked_for(layout):
    n_rows, length, stride = layout
    windows = cut_windows(n_rows, length, stride)
    assert sorted(set(windows.session.tolist())) == list(range(len(n_rows)))
    for session, start, n in zip(windows.session, windows.start, windows.length, strict=True):
        assert n == min(length, n_rows[session])
        assert 0 <= start <= start + n <= n_rows[session]


@check
@given(layouts())
def test_windows_advance_by_the_stride_and_the_last_ends_with_the_session(layout):
    n_rows, length, stride = layout
    windows = cut_windows(n_rows, length, stride)
    for session, n in enumerate(n_rows):
        starts = windows.start[windows.session == session]
        assert starts[0] == 0
        assert starts[-1] == max(0, n - length)
        steps = np.diff(starts)
        assert (steps[:-1] == stride).all()
        assert ((steps > 0) & (steps <= stride)).all()
    order = np.lexsort((windows.start, windows.session))
    assert (order == np.arange(len(windows))).all()


@check
@given(layouts())
def test_every_row_is_kept_exactly_once_and_in_order(layout):
    n_rows, length, stride = layout
    kept = [[] for _ in n_rows]
    for session, start, first, last, n in each(cut_windows(n_rows, length, stride)):
        assert start <= first < last <= start + n
        kept[session] += range(first, last)
    assert kept == [list(range(n)) for n in n_rows]


@check
@given(layouts())
def test_a_row_is_kept_by_the_window_whose_edges_are_farthest(layout):
    n_rows, length, stride = layout
    windows = cut_windows(n_rows, length, stride)

    def depth(row, start, end, n):
        # The edge of the session itself takes nothing away.
        return min(row - start if start else n, end - 1 - row if end < n else n)

    for session, start, first, last, size in each(windows):
        own, n = windows.session == session, n_rows[session]
        for row in range(first, last):
            best = max(
                depth(row, one, one + size, n)
                for one in windows.start[own]
                if one <= row < one + size
            )
            # The seam lies in the middle to the nearest row.
            assert depth(row, start, start + size, n) >= best - 1


@check
@given(halved())
def test_half_overlap_gives_a_quarter_of_a_window_on_both_sides(layout):
    n_rows, length, stride = layout
    before, after = -(-length // 4), (length + 1) // 2 // 2
    for session, start, first, last, n in each(cut_windows(n_rows, length, stride)):
        for row in range(first, last):
            assert row - start >= min(row, before)
            assert start + n - 1 - row >= min(n_rows[session] - 1 - row, after)


def test_the_quarter_is_attained():
    windows = cut_windows([40], 8, 4)
    assert kept_rows(windows)[3] == slice(2, 6)


@check
@given(layouts(min_length=2))
def test_with_overlap_only_a_sessions_first_row_is_the_first_of_its_window(layout):
    n_rows, length, stride = layout
    for _, start, first, _, _ in each(cut_windows(n_rows, length, min(stride, length - 1))):
        assert first == 0 or first > start


@check
@given(layouts())
def test_disjoint_against_brute_force(layout):
    windows = cut_windows(*layout)
    rows = [
        {(session, row) for row in range(start, start + n)}
        for session, start, n in zip(windows.session, windows.start, windows.length, strict=True)
    ]
    expected = [
        not any(mine & other for k, other in enumerate(rows) if k != j)
        for j, mine in enumerate(rows)
    ]
    assert disjoint(windows).tolist() == expected


def test_disjoint_windows_by_hand():
    # 25 rows in windows of 10: the last two overlap; 7 rows: alone; 20 rows: two that touch.
    windows = cut_windows([25, 7, 20], 10, 10)
    assert windows.start.tolist() == [0, 10, 15, 0, 0, 10]
    assert windows.length.tolist() == [10, 10, 10, 7, 10, 10]
    assert disjoint(windows).tolist() == [True, False, False, True, True, True]


@check
@given(layouts(), st.data())
def test_gaps_hold_every_row_that_is_in_no_window_and_are_as_long_as_possible(layout, data):
    n_rows, length, stride = layout
    windows = cut_windows(n_rows, length, stride)
    candidates = np.flatnonzero(disjoint(windows)).tolist()
    chosen = (
        data.draw(st.lists(st.sampled_from(candidates), unique=True)) if len(candidates) else []
    )
    taken = windows[np.sort(np.array(chosen, dtype=int))]
    found = gaps(taken, n_rows)
    marks = [np.zeros(n, dtype=int) for n in n_rows]
    for some in (taken, found):
        for session, start, n in zip(some.session, some.start, some.length, strict=True):
            assert n > 0
            marks[session][start : start + n] += 1
    assert all((mark == 1).all() for mark in marks)
    same = found.session[1:] == found.session[:-1]
    ends = found.start[:-1] + found.length[:-1]
    assert (found.start[1:][same] > ends[same]).all()


def test_gaps_by_hand():
    windows = cut_windows([30, 5, 12], 10, 10)
    taken = windows[np.array([1, 3])]
    assert taken.start.tolist() == [10, 0]
    found = gaps(taken, [30, 5, 12])
    assert found.session.tolist() == [0, 0, 2]
    assert found.start.tolist() == [0, 20, 0]
    assert found.length.tolist() == [10, 10, 12]
    assert len(gaps(windows[:1], [10])) == 0
    assert found.session.dtype.kind == "i"


@check
@given(layouts(), st.integers(0, 100))
def test_jittered_windows_stay_in_their_session_and_move_by_half_a_window_at_most(layout, seed):
    n_rows, length, stride = layout
    windows = cut_windows(n_rows, length, stride)
    start = windows.start.copy()
    moved = jitter(windows, n_rows, torch.Generator().manual_seed(seed))
    assert (windows.start == start).all()
    assert (moved.session == windows.session).all()
    assert (moved.length == windows.length).all()
    assert (moved.start >= 0).all()
    assert (moved.start + moved.length <= np.asarray(n_rows)[moved.session]).all()
    assert (np.abs(moved.start - windows.start) <= (windows.length + 1) // 2).all()
    assert moved.start.dtype.kind == "i"


def test_jitter_moves_evenly_and_follows_its_generator():
    n = 4000
    windows = Windows(np.zeros(n, int), np.full(n, 500), np.full(n, 100))
    before = torch.get_rng_state()
    moved = jitter(windows, [2000], torch.Generator().manual_seed(0))
    shifts = moved.start - 500
    assert shifts.min() < -45
    assert shifts.max() > 45
    # Uniform on 100 places around -1/2; five standard errors.
    assert abs(shifts.mean() + 0.5) < 5 * np.sqrt((100**2 - 1) / 12 / n)
    again = jitter(windows, [2000], torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(moved.start, again.start)
    other = jitter(windows, [2000], torch.Generator().manual_seed(1))
    assert (moved.start != other.start).any()
    assert torch.equal(before, torch.get_rng_state())


def test_windows_can_be_selected():
    windows = cut_windows([25, 7], 10, 10)
    some = windows[np.array([3, 1])]
    assert isinstance(some, Windows)
    assert len(some) == 2
    assert some.session.tolist() == [1, 0]
    assert some.start.tolist() == [0, 10]
    assert some.length.tolist() == [7, 10]


# Batches.


@check
@given(layouts(), st.integers(1, 7), st.booleans())
def test_batches_cover_each_window_once_with_little_padding(layout, batch_size, shuffled):
    windows = cut_windows(*layout)
    generator = torch.Generator().manual_seed(0) if shuffled else None
    made = list(batches(windows, batch_size, generator))
    assert sorted(np.concatenate(made).tolist()) == list(range(len(windows)))
    n_padded = sum(len(index) * windows.length[index].max() for index in made)
    assert all(1 <= len(index) <= batch_size for index in made)
    assert n_padded <= max(MOST_PADDED, 2) * windows.length.sum()
    n_sizes = len(set(np.frexp(windows.length)[1]))
    assert len(made) < len(windows) / batch_size + n_sizes


def test_without_a_generator_the_order_is_kept():
    windows = cut_windows([50], 10, 5)
    assert np.concatenate(list(batches(windows, 4))).tolist() == list(range(len(windows)))


def test_shuffling_is_reproducible_and_moves_windows_and_batches():
    windows = cut_windows([400, 403, 6, 6, 6], 10, 10)
    before = torch.get_rng_state()

    def order(generator):
        return np.concatenate(list(batches(windows, 4, generator))).tolist()

    first = torch.Generator().manual_seed(5)
    one, two = order(first), order(first)
    assert one != two
    assert sorted(one) == sorted(two)
    second = torch.Generator().manual_seed(5)
    assert [order(second), order(second)] == [one, two]
    # The batches of the shortest windows do not always come first, nor always last.
    windows = cut_windows([400, 403, *[2] * 90], 10, 10)
    places = set()
    for seed in range(10):
        made = list(batches(windows, 4, torch.Generator().manual_seed(seed)))
        places.add(next(i for i, index in enumerate(made) if windows.length[index[0]] == 2))
    assert len(places) > 2
    assert torch.equal(before, torch.get_rng_state())


# Reading and stitching.


@check
@given(layouts(), st.integers(1, 5))
def test_what_is_read_is_stitched_back(layout, batch_size):
    n_rows, length, stride = layout
    rng = np.random.default_rng(0)
    sessions = [rng.standard_normal((n, 3)).astype(np.float32) for n in n_rows]
    windows = cut_windows(n_rows, length, stride)
    loader = WindowLoader(sessions, np.ones(3), torch.device("cpu"))
    results = [None] * len(windows)
    for index in batches(windows, batch_size, torch.Generator().manual_seed(1)):
        batch = loader(windows[index])
        for place, result in zip(index, batch.rows.numpy(), strict=True):
            results[place] = result[: windows.length[place]]
            assert not result[windows.length[place] :].any()
        if batch.lengths is not None:
            assert batch.lengths.tolist() == windows.length[index].tolist()
            assert batch.weight.sum(1).tolist() == windows.length[index].tolist()
    for back, session in zip(stitch(windows, results, n_rows), sessions, strict=True):
        np.testing.assert_array_equal(back, session)
    per_row = [result[:, 0] for result in results]
    for back, session in zip(stitch(windows, per_row, n_rows), sessions, strict=True):
        np.testing.assert_array_equal(back, session[:, 0])


def int16_memmap(values, path):
    np.save(path / "session.npy", np.round(1000 * values).astype(np.int16))
    return np.load(path / "session.npy", mmap_mode="r")


def read_only(values, path):
    values = values.astype(np.float32)
    values.flags.writeable = False
    return values


KINDS = {
    "int16 memory map": int16_memmap,
    "read-only float32": read_only,
    "Fortran order": lambda values, path: np.asfortranarray(values),
    "strided view": lambda values, path: np.repeat(values, 2, axis=0)[::2],
    "float16": lambda values, path: values.astype(np.float16),
    "big-endian": lambda values, path: values.astype(">f8"),
    "bool": lambda values, path: values > 0,
}


@pytest.mark.parametrize("kind", KINDS)
def test_loader_reads_any_array_and_changes_none(kind, tmp_path):
    values = np.random.default_rng(0).standard_normal((20, 3))
    session = KINDS[kind](values, tmp_path)
    other = KINDS[kind](values[::-1], tmp_path) if "memory" not in kind else session
    before = np.array(session)
    scale = np.array([1.0, 2.0, 0.5])
    loader = WindowLoader([session, other], scale, torch.device("cpu"))
    read = loader(Windows(np.array([0, 1, 0]), np.array([3, 0, 13]), np.array([7, 7, 7]))).rows
    assert read.dtype == torch.float32
    assert read.shape == (3, 7, 3)
    wanted = np.stack([session[3:10], other[0:7], session[13:20]]).astype(np.float64) / scale
    np.testing.assert_array_equal(read.numpy(), wanted.astype(np.float32))
    read += 1
    np.testing.assert_array_equal(np.array(session), before)


@pytest.mark.parametrize("host", [True, False])
def test_batches_are_read_as_single_ones_are(monkeypatch, host):
    monkeypatch.setattr(module, "is_host", lambda device: host)
    n_rows = (23, 4, 1, 30)
    rng = np.random.default_rng(0)
    sessions = [rng.standard_normal((n, 3)) for n in n_rows]
    loader = WindowLoader(sessions, np.array([1.0, 2.0, 0.5]), torch.device("cpu"))
    windows = jitter(cut_windows(n_rows, 7, 7), n_rows, torch.Generator().manual_seed(0))
    parts = list(batches(windows, 2, torch.Generator().manual_seed(1)))
    read = list(loader.read(windows, iter(parts)))
    assert len(read) == len(parts)
    for batch, part in zip(read, parts, strict=True):
        wanted = loader(windows[part])
        assert torch.equal(batch.rows, wanted.rows)
        assert (batch.lengths is None) == (wanted.lengths is None)


def test_rows_of_weight_zero_are_read_as_zeros():
    X = np.arange(1.0, 31.0).reshape(10, 3)
    weight = np.r_[np.ones(4), 0, 0.5, np.ones(4)]
    loader = WindowLoader([X], np.ones(3), torch.device("cpu"), 1.0, [weight])
    windows = Windows(np.array([0, 0]), np.array([2, 0]), np.array([5, 3]))
    batch = loader(windows)
    np.testing.assert_array_equal(batch.weight, [[1, 1, 0, 0.5, 1], [1, 1, 1, 0, 0]])
    np.testing.assert_array_equal(batch.rows[0], [*(X[2:4] - 1), [0, 0, 0], *(X[5:7] - 1)])
    assert loader.total_weight(windows) == 6.5
    part = batch.part(slice(1, 2))
    assert torch.equal(part.rows, batch.rows[1:])
    assert part.lengths.tolist() == [3]
