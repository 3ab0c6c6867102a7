"""Simulated recordings whose modes are known, and surrogates of recordings without dynamics."""

from numbers import Integral, Real
from typing import Any

import numpy as np
from scipy.fft import irfft, rfft
from scipy.special import softmax
from sklearn.utils import check_random_state

from skdyn.sessions import as_numbers, check_columns
from skdyn.similarity import check_positive_definite

__all__ = ["MixedSineMVN", "phase_randomized"]

# Floats in one chunk of instantaneous covariances: small enough to stay in the processor's cache.
_CHUNK_FLOATS = 2**18


class MixedSineMVN:
    r"""Soft mixture of Gaussian modes, mixed by sinusoids.

    The logits of the mixing coefficients are sinusoids around an offset, the
    mixing coefficients their softmax, and each sample is drawn independently
    from a Gaussian whose mean and covariance are mixed with those coefficients:

    .. math::

        \theta_{jt} &= r_j + A_j \sin(2 \pi f_j t / f_s + \phi_j),
        \qquad \phi_j \sim U(0, 2 \pi) \\
        \alpha_{jt} &= \exp(\theta_{jt}) / \textstyle\sum_k \exp(\theta_{kt}) \\
        x_t &\sim N(\textstyle\sum_j \alpha_{jt} \mu_j,
        \textstyle\sum_j \alpha_{jt} D_j + \sigma^2 I)

    Time and memory grow linearly with `n_samples`.

    Parameters
    ----------
    n_samples : int
        Number of samples, at least 1.
    n_modes : int
        Number of modes, at least 1.
    n_channels : int
        Number of channels, at least 1.
    relative_activation : array-like of shape (n_modes,)
        Offset of each logit, r.
    amplitudes : array-like of shape (n_modes,)
        Amplitude of each sinusoid, A.
    frequencies : array-like of shape (n_modes,)
        Frequency of each sinusoid in Hz, f.
    sampling_frequency : float
        Sampling frequency in Hz, greater than 0.
    means : {"zero", "random"} or array-like of shape (n_modes, n_channels), default="zero"
        Mean vectors of the modes. "zero": all zero; "random": every entry drawn
        from N(0, 0.2²); an array is copied and used.
    covariances : {"random"} or array-like of shape (n_modes, n_channels, n_channels), \
            default="random"
        Covariance matrices of the modes. "random": see Notes; an array is
        copied and used, and must hold symmetric positive definite matrices.
    n_covariances_act : int, default=1
        Number of activations that a random covariance is the sum of, at least 1.
        Ignored if covariances are given as an array.
    observation_error : float, default=0.0
        Standard deviation of white noise added to every channel, at least 0.
    random_state : int, RandomState instance, Generator instance or None, default=None
        Source of the random numbers. An int gives the same bits on every call;
        None draws fresh entropy. NumPy's global generator is never used.

    Attributes
    ----------
    time_series : ndarray of shape (n_samples, n_channels)
        The recording, float64.
    mode_time_course : ndarray of shape (n_samples, n_modes)
        Mixing coefficients; every row sums to one.
    logits : ndarray of shape (n_samples, n_modes)
        Logits of the mixing coefficients.
    phases : ndarray of shape (n_modes,)
        Phases of the sinusoids in radians, within [0, 2 pi).
    means : ndarray of shape (n_modes, n_channels)
        Mean vectors of the modes.
    covariances : ndarray of shape (n_modes, n_channels, n_channels)
        Covariance matrices of the modes, without the observation error.
    observation_error : float or ndarray of shape (n_channels,)
        Standard deviation of the white noise; one per channel after `standardize`.

    Raises
    ------
    ValueError
        If an argument lies outside its range, has the wrong shape, or is not finite.

    Notes
    -----
    A random covariance is :math:`D_j = W_j W_j^T + 10^{-6} I`. The entries of
    the square matrix W are drawn from N(0, 0.1²); then, for each of
    `n_covariances_act` strengths s evenly spaced from 1 to 5, s / n_channels is
    added to a random set of at most max(1, 2 n_channels // n_modes) rows of W,
    so that those channels vary together.

    The numbers are drawn in this order: means, covariances, phases, samples,
    observation error. Means and covariances that are given need no draws.

    References
    ----------
    .. [1] C. Gohil et al., "Mixtures of large-scale dynamic functional brain
       network modes", NeuroImage 263, 119595, 2022.

    Examples
    --------
    >>> from skdyn.simulation import MixedSineMVN
    >>> simulation = MixedSineMVN(
    ...     n_samples=1000,
    ...     n_modes=3,
    ...     n_channels=5,
    ...     relative_activation=[1, 0.5, 0.5],
    ...     amplitudes=[6, 2, 4],
    ...     frequencies=[1, 4, 6],
    ...     sampling_frequency=250,
    ...     random_state=0,
    ... )
    >>> simulation.time_series.shape
    (1000, 5)
    >>> simulation.mode_time_course.sum(axis=1).round(12).tolist() == [1.0] * 1000
    True
    """

    def __init__(
        self,
        n_samples,
        n_modes,
        n_channels,
        relative_activation,
        amplitudes,
        frequencies,
        sampling_frequency,
        means="zero",
        covariances="random",
        n_covariances_act=1,
        observation_error=0.0,
        random_state=None,
    ):
        self.n_samples = _check_count("n_samples", n_samples)
        self.n_modes = _check_count("n_modes", n_modes)
        self.n_channels = _check_count("n_channels", n_channels)
        self.relative_activation = self._check_per_mode("relative_activation", relative_activation)
        self.amplitudes = self._check_per_mode("amplitudes", amplitudes)
        self.frequencies = self._check_per_mode("frequencies", frequencies)
        self.sampling_frequency = _check_real("sampling_frequency", sampling_frequency)
        if self.sampling_frequency == 0:
            raise ValueError(
                "sampling_frequency is 0, but a number of Hz greater than 0 was expected. Pass the "
                "number of samples per second."
            )
        self.n_covariances_act = _check_count("n_covariances_act", n_covariances_act)
        self.observation_error: Any = _check_real("observation_error", observation_error)
        rng = _random_generator(random_state)

        self.means = self._draw_means(means, rng)
        self.covariances = self._draw_covariances(covariances, rng)
        self.phases = rng.uniform(0, 2 * np.pi, size=self.n_modes)
        seconds = np.arange(self.n_samples)[:, np.newaxis] / self.sampling_frequency
        self.logits = self.relative_activation + self.amplitudes * np.sin(
            2 * np.pi * self.frequencies * seconds + self.phases
        )
        self.mode_time_course = softmax(self.logits, axis=1)
        self.time_series = self._draw_samples(rng)

    def standardize(self):
        """Give every channel zero mean and unit variance.

        `means`, `covariances` and `observation_error` are transformed with the
        data, so that each sample still follows their mixture. The weights of a
        sample sum to one, so subtracting the mean of a channel from every mode
        subtracts it exactly once from the mixture. The arrays are replaced, not
        overwritten: references to the earlier ones stay valid.

        Returns
        -------
        MixedSineMVN
            The simulation itself.

        Raises
        ------
        ValueError
            If a channel is constant.

        Examples
        --------
        >>> from skdyn.simulation import MixedSineMVN
        >>> simulation = MixedSineMVN(100, 2, 3, [0, 0], [1, 1], [1, 2], 100, random_state=0)
        >>> simulation.standardize().time_series.std(axis=0).round(12)
        array([1., 1., 1.])
        """
        center = self.time_series.mean(axis=0)
        scale = self.time_series.std(axis=0)
        if np.any(scale == 0):
            raise ValueError(
                f"Channels {np.flatnonzero(scale == 0).tolist()} are constant, but every channel "
                "has to vary. Simulate more samples."
            )
        self.time_series = (self.time_series - center) / scale
        self.means = (self.means - center) / scale
        self.covariances = self.covariances / np.outer(scale, scale)
        self.observation_error = self.observation_error / scale
        return self

    def _check_per_mode(self, name, values):
        return _check_array(name, values, (self.n_modes,), "one finite number per mode")

    def _draw_means(self, means, rng):
        shape = (self.n_modes, self.n_channels)
        if isinstance(means, str):
            if means == "zero":
                return np.zeros(shape)
            if means == "random":
                return rng.normal(0, 0.2, size=shape)
            raise ValueError(
                f"means is {means!r}, but 'zero', 'random' or an array of shape {shape} was "
                "expected."
            )
        return _check_array("means", means, shape, "one finite mean vector per mode")

    def _draw_covariances(self, covariances, rng):
        shape = (self.n_modes, self.n_channels, self.n_channels)
        if not isinstance(covariances, str):
            given = _check_array("covariances", covariances, shape, "one finite matrix per mode")
            for mode, covariance in enumerate(given):
                check_positive_definite(covariance, f"covariances[{mode}]")
            return given
        if covariances != "random":
            raise ValueError(
                f"covariances is {covariances!r}, but 'random' or an array of shape {shape} was "
                "expected."
            )
        factors = rng.normal(0, 0.1, size=shape)
        # RandomState.randint is called Generator.integers.
        draw_integers = getattr(rng, "integers", None) or rng.randint
        n_rows = max(1, 2 * self.n_channels // self.n_modes)
        for strength in np.linspace(1, 5, self.n_covariances_act):
            for factor in factors:
                active = np.unique(draw_integers(0, self.n_channels, size=n_rows))
                factor[active] += strength / self.n_channels
        return factors @ factors.transpose(0, 2, 1) + 1e-6 * np.eye(self.n_channels)

    def _draw_samples(self, rng):
        weights = self.mode_time_course
        flat_covariances = self.covariances.reshape(self.n_modes, -1)
        samples = weights @ self.means
        step = max(1, _CHUNK_FLOATS // self.n_channels**2)
        for start in range(0, self.n_samples, step):
            chunk = slice(start, start + step)
            mixed = (weights[chunk] @ flat_covariances).reshape(-1, *self.covariances.shape[1:])
            noise = rng.standard_normal((len(mixed), self.n_channels, 1))
            samples[chunk] += (np.linalg.cholesky(mixed) @ noise)[..., 0]
        if self.observation_error > 0:
            samples += rng.normal(0, self.observation_error, size=samples.shape)
        return samples


def phase_randomized(X, sessions=None, *, random_state=None):
    r"""Draw a stationary recording with the spectra and cross-spectra of another one.

    The phases of all frequencies are drawn anew, the same for all channels:

    .. math::

        \hat{s}_c(f) = \hat{x}_c(f) \, e^{i \phi(f)}, \qquad \phi(f) \sim U(0, 2 \pi)

    with the discrete Fourier transform over the rows of a session. Means, covariances and lagged
    covariances of a session stay (lags are circular), but no moment differs from another except by
    chance: a surrogate for the hypothesis of one linear, stationary, Gaussian process. The rows of
    such a process are correlated in time, so that their covariance differs from window to window,
    and a mixture of modes describes them better than one Gaussian. If a model gains no more on a
    recording than on its surrogates, nothing shows that the recording has dynamics.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
            (n_sessions, n_samples, n_channels)
        The recording; rows are time.
    sessions : array-like of shape (n_samples,), default=None
        Label of each row of a 2-D X. Each session has its own phases.
    random_state : int, RandomState, Generator or None, default=None
        Source of the phases. None draws other phases each time.

    Returns
    -------
    ndarray of shape (n_samples, n_channels), or like X
        The surrogate.

    Raises
    ------
    ValueError
        If X has missing values or another number of channels in some sessions.

    References
    ----------
    Prichard, D., & Theiler, J. (1994). Generating surrogate data for time series with several
    simultaneously measured variables. Physical Review Letters, 73(7), 951-954.

    Examples
    --------
    >>> import numpy as np
    >>> from skdyn.simulation import phase_randomized
    >>> X = np.cumsum(np.random.default_rng(0).standard_normal((500, 3)), axis=0)
    >>> surrogate = phase_randomized(X, random_state=0)
    >>> np.allclose(np.cov(surrogate.T), np.cov(X.T)), np.allclose(surrogate, X)
    (True, False)
    """
    rng = _random_generator(random_state)
    advice = "All sessions must have the same channels."
    recording = check_columns(X, sessions, n_columns=None, advice=advice)
    return recording.like_input([_with_new_phases(one, rng) for one in recording.arrays])


def _with_new_phases(rows, rng):
    spectrum = rfft(rows, axis=0)
    phases = rng.uniform(0, 2 * np.pi, len(spectrum))
    phases[0] = 0  # the mean
    if len(rows) % 2 == 0:
        phases[-1] = 0  # real, as is the highest frequency of an even number of rows
    spectrum *= np.exp(1j * phases)[:, np.newaxis].astype(spectrum.dtype)
    return irfft(spectrum, len(rows), axis=0)


def _random_generator(random_state):
    if random_state is np.random:
        raise ValueError(
            "random_state is numpy.random, but None, an int, a RandomState or a Generator was "
            "expected. The global generator is never used."
        )
    if random_state is None:
        return np.random.RandomState()
    if isinstance(random_state, np.random.Generator):
        return random_state
    return check_random_state(random_state)


def _check_count(name, value):
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} is {value!r}, but an integer of at least 1 was expected.")
    return int(value)


def _check_real(name, value):
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < np.inf:
        raise ValueError(
            f"{name} is {value!r}, but a finite number that is not negative was expected."
        )
    return float(value)


def _check_array(name, values, shape, meaning):
    array = as_numbers(values, name).copy()
    if array.shape != shape:
        raise ValueError(
            f"{name} has shape {array.shape}, but {shape} was expected. Pass {meaning}."
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has NaN or infinite values. Pass {meaning}.")
    return array
