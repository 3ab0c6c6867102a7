"""Signs of channels: flips that are known are undone; against trying out all signs."""

from itertools import product

import numpy as np
import pytest

from skdyn.preprocessing import SignAligner, TimeDelayEmbedder
from skdyn.preprocessing.signs import _correlations


def alike_sessions(n_sessions=6, n_channels=5, common=3.0, difference=0.2, seed=0):
    """Sessions with similar correlations between channels."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((n_channels, n_channels))
    # A source that all channels see.
    mixing[0] += common * np.sqrt(n_channels) * rng.choice([-2, -1, 1, 2], size=n_channels)
    return [
        rng.standard_normal((400, n_channels))
        @ (mixing + difference * rng.standard_normal(mixing.shape))
        for _ in range(n_sessions)
    ]


def flips_of(X, seed=1):
    rng = np.random.default_rng(seed)
    return rng.choice([-1, 1], size=(len(X), X[0].shape[1]))


def flipped(X, signs):
    return [one * sign for one, sign in zip(X, signs, strict=True)]


def up_to_all(signs):
    """Signs relative to that of the first channel."""
    return signs * signs[:, :1]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("n_channels", [2, 5, 40])
def test_sign_aligner_undoes_flips(seed, n_channels):
    X = alike_sessions(n_channels=n_channels, seed=seed)
    flips = flips_of(X, seed)
    aligner = SignAligner(random_state=seed)
    found = aligner.fit_transform(flipped(X, flips))
    # The remaining flips are equal in all sessions: those of the template session.
    left = up_to_all(aligner.signs_ * flips)
    np.testing.assert_array_equal(left, np.tile(left[:1], (len(X), 1)))
    assert np.all((aligner.signs_ < 0).sum(axis=1) <= n_channels / 2)
    for one, given, signs in zip(found, flipped(X, flips), aligner.signs_, strict=True):
        np.testing.assert_array_equal(one, given * signs)


def test_sign_aligner_leaves_agreement_alone():
    X = alike_sessions()
    aligner = SignAligner(random_state=0).fit(X)
    np.testing.assert_array_equal(aligner.signs_, 1)
    one = SignAligner().fit(X[0])
    np.testing.assert_array_equal(one.signs_, 1)


def test_sign_aligner_flips_new_sessions():
    *X, new = alike_sessions(7)
    aligner = SignAligner(random_state=0).fit(X)
    signs = np.array([1, -1, 1, 1, -1])
    np.testing.assert_array_equal(aligner.transform(new * signs), new)
    # Fewest flips: the other way round stays the other way round.
    np.testing.assert_array_equal(aligner.transform(new * -signs), -new)


def test_sign_aligner_flips_the_fewer_channels():
    X = alike_sessions(2, n_channels=4)
    aligner = SignAligner(random_state=0).fit(X)
    np.testing.assert_array_equal(aligner.transform(X[0] * -1), X[0] * -1)
    kept_first = aligner.transform(X[0] * [-1, -1, 1, 1])
    np.testing.assert_array_equal(kept_first, X[0] * -1)


@pytest.mark.parametrize("seed", range(20))
def test_sign_aligner_finds_the_best_signs(seed):
    """Sessions that have little in common, so that the search is hard."""
    X = alike_sessions(2, n_channels=8, common=0, difference=3, seed=seed)
    aligner = SignAligner(n_embeddings=3, random_state=0).fit(X[0])
    found = aligner.transform(X[1])

    def agreement(session):
        correlations = _correlations(session, 3)
        return (correlations * aligner.template_).sum()

    best = max(agreement(X[1] * np.array([1, *signs])) for signs in product([-1, 1], repeat=7))
    np.testing.assert_allclose(agreement(found), best)


@pytest.mark.parametrize("n_embeddings", [1, 5])
def test_sign_aligner_compares_correlations_of_the_embedding(n_embeddings):
    X = alike_sessions(1)[0]
    expected = np.corrcoef(TimeDelayEmbedder(n_embeddings).fit_transform(X), rowvar=False)
    channel = np.repeat(np.arange(5), n_embeddings)
    expected[channel[:, np.newaxis] == channel] = 0
    template = SignAligner(n_embeddings).fit(X).template_
    np.testing.assert_allclose(template, expected, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_sign_aligner_template_is_the_mean_of_the_aligned(seed):
    X = alike_sessions(20, n_channels=8, common=0.3, difference=1.5, seed=seed)
    given = flipped(X, flips_of(X))
    aligner = SignAligner(random_state=0)
    found = aligner.fit_transform(given)
    expected = np.mean([_correlations(one, 1) for one in found], axis=0)
    np.testing.assert_allclose(aligner.template_, expected, atol=1e-12)


def test_sign_aligner_uses_lags():
    rng = np.random.default_rng(0)

    def delayed(n_samples=2000):
        noise = rng.standard_normal(n_samples + 1)
        return np.column_stack([noise[1:], noise[:-1]])

    X = [delayed() for _ in range(4)]
    flips = np.array([[1, 1], [1, -1], [1, 1], [1, -1]])
    aligner = SignAligner(3, random_state=0).fit(flipped(X, flips))
    left = up_to_all(aligner.signs_ * flips)
    np.testing.assert_array_equal(left, np.tile(left[:1], (4, 1)))


def test_sign_aligner_takes_a_template():
    X = alike_sessions()
    template = SignAligner(random_state=0).fit(X).template_
    flips = flips_of(X)
    aligner = SignAligner(template=template, random_state=0).fit(flipped(X, flips)[:2])
    np.testing.assert_array_equal(aligner.template_, template)
    assert not np.shares_memory(aligner.template_, template)
    left = up_to_all(aligner.signs_ * flips[:2])
    np.testing.assert_array_equal(left, 1)
    covariance = SignAligner(template=np.cov(X[0], rowvar=False), random_state=0)
    np.testing.assert_array_equal(up_to_all(covariance.fit(flipped(X, flips)).signs_ * flips), 1)


def test_sign_aligner_does_not_depend_on_units():
    X = alike_sessions()
    flips = flips_of(X)
    gains = np.array([1e-6, 1, 1e6, 30, 1e-3])
    expected = SignAligner(random_state=0).fit(flipped(X, flips)).signs_
    found = SignAligner(random_state=0).fit([one * gains for one in flipped(X, flips)])
    np.testing.assert_array_equal(found.signs_, expected)


@pytest.mark.parametrize("seed", range(5))
def test_sign_aligner_is_not_led_by_one_odd_session(seed):
    X = alike_sessions(difference=0.4, seed=seed)
    odd = alike_sessions(1, common=0, seed=seed + 100)
    aligner = SignAligner(random_state=0).fit([*odd, *X])
    np.testing.assert_array_equal(aligner.signs_[1:], 1)


def test_sign_aligner_takes_rounding_for_constant():
    rounded = np.tile([[0.1 + 0.2] * 2, [0.3] * 2], (200, 1))
    X = np.column_stack([rounded, alike_sessions()[0]])
    template = SignAligner().fit(X).template_
    np.testing.assert_array_equal(template[:2], 0)
    np.testing.assert_array_equal(template[:, :2], 0)


def test_sign_aligner_leaves_constants_alone():
    X = alike_sessions(30, n_channels=12, common=0, difference=3)
    for one in X:
        one[:, :3] = 0.1
    aligner = SignAligner(random_state=0).fit([*X, X[0][:1]])
    assert np.any(aligner.signs_[:, 3:] < 0)
    np.testing.assert_array_equal(aligner.signs_[:, :3], 1)
    assert np.all((aligner.signs_ < 0).sum(axis=1) <= 9 / 2)
    np.testing.assert_array_equal(aligner.signs_[-1], 1)


@pytest.mark.parametrize("random_state", [0, None, np.random.RandomState(3)])
def test_sign_aligner_is_the_same_for_the_same_session(random_state):
    X = alike_sessions(common=0, difference=3)
    aligner = SignAligner(3, random_state=random_state).fit(X)
    for _ in range(3):
        for one, given, signs in zip(aligner.transform(X), X, aligner.signs_, strict=True):
            np.testing.assert_array_equal(one, given * signs)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_embeddings": 2}, "n_embeddings is 2, but an odd number"),
        ({"template": np.eye(4)}, r"template has shape \(4, 4\), but \(5, 5\) was expected"),
        ({"template": np.full((5, 5), np.nan)}, "template: Input contains NaN"),
        ({"n_init": -1}, "'n_init'"),
    ],
)
def test_sign_aligner_refuses_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        SignAligner(**parameters).fit(alike_sessions())
