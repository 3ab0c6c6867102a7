"""From settings and a recording to a trained network.

The flow: find a start, set the modes, pretrain the encoder and the prior on its mixing, train all
on the evidence lower bound, and check the result.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from skdyn.core.checkpoint import Checkpoint, Saver, load_together
from skdyn.core.distributed import by_first, n_processes, start_together
from skdyn.core.runtime import is_host, make_generator
from skdyn.core.training import (
    NO_CALLBACK,
    FitDivergedError,
    Objective,
    Training,
    TrainingSettings,
    Watcher,
    exponential_decay,
    linear_decay,
    train,
)
from skdyn.core.windows import (
    Batch,
    WindowLoader,
    Windows,
    batches,
    cut_windows,
    disjoint,
    gaps,
    jitter,
)
from skdyn.dynemo.inference import (
    encode,
    lower_bounds,
    mixing,
    refine,
)
from skdyn.dynemo.network import DyNeMoNetwork, empty_network
from skdyn.dynemo.objective import EncoderPretraining, FreeEnergy, PriorPretraining, Thinning
from skdyn.dynemo.settings import FitSettings
from skdyn.dynemo.start import (
    Start,
    draw,
    find_start,
    logits_of,
    read_pieces,
    set_modes,
    spread_over,
)

# Epochs of training for one epoch of pretraining, of the encoder and of the prior.
EPOCHS_PER_PRETRAINING = {"encoder": 5, "prior": 8}

# Learning rate of a warm start, relative to that of a new fit.
WARM_RATE = 0.1

# Stride of the rows whose likelihood is computed, other ones in each step, and the last share of
# the epochs, in which all rows count.
STRIDE, FULL_SHARE = 4, 0.2

# Gradient steps of refinement, and rows, for the final check.
CHECK_STEPS, CHECKED_ROWS = 10, 4096

# Nats per row by which a training must be worse than its start to be reported.
NOTICEABLE = 0.02

# Smallest variance of a single Gaussian, of standardised rows.
SMALLEST_VARIANCE = 1e-12

# Standard deviation of mixing coefficients below which they count as constant, and the mean below
# which a mode counts as unused.
STILL, UNUSED = 0.01, 0.002

# Share of the variance of the mixing coefficients between sessions that is worth a report, and the
# sessions, and windows of each, that it is estimated from.
APART, SESSIONS_COMPARED, WINDOWS_COMPARED = 0.4, (3, 24), 4

# Beginnings of the names of the weights that are trained in a pretraining.
WEIGHTS_OF = {
    "encoder": ("inference_rnn", "smoothed_mean", "posterior", "log_smoothing"),
    "prior": ("model_rnn", "prior", "persistence"),
}

ADVICE = (
    "Try a smaller learning_rate, a smaller gradient_clip, a larger covariances_epsilon, or look "
    "for duplicated channels."
)


@dataclass(frozen=True)
class Fit:
    """The result of a training.

    Attributes
    ----------
    network : DyNeMoNetwork
        The network, on the CPU and in evaluation mode.
    training : Training
        The history of the training proper.
    start : Start
        The start.
    problem : str
        Problem of the fit, and the first thing to try; empty if there is none.
    """

    network: DyNeMoNetwork
    training: Training
    start: Start
    problem: str = ""


def fit_network(
    settings: FitSettings,
    loader: WindowLoader,
    random_state: np.random.RandomState,
    watcher: Watcher = NO_CALLBACK,
    previous: Fit | None = None,
    checkpoint: Checkpoint | None = None,
) -> Fit:
    """Train a network on a recording, alone or together with other processes.

    Parameters
    ----------
    settings : FitSettings
        The settings of the fit.
    loader : WindowLoader
        The recording.
    random_state : numpy.random.RandomState
        Source of all randomness.
    watcher : Watcher, default=NO_CALLBACK
        Called before and after each epoch of the training proper.
    previous : Fit, default=None
        A fit to continue from; None starts a new one.
    checkpoint : Checkpoint, default=None
        Checkpoint of the fit; it is read if the fit was interrupted before.

    Returns
    -------
    Fit
        The trained network and its history.
    """
    earlier = load_together(checkpoint, loader.device)
    if earlier is not None:
        random_state.set_state(earlier["random_state"])
    first_state = random_state.get_state(legacy=False)
    trainer = Trainer(settings, loader, random_state)
    if previous is not None:
        trainer.take_over(previous.network)
    if earlier is not None:
        start, before = Start(**earlier["start"]), earlier["before"]
        trainer.go_on(earlier)
        random_state.set_state(earlier["last_random_state"])
    elif previous is not None:
        start, before = previous.start, None
    else:
        start, before = trainer.begin(random_state)
    whole = {
        "random_state": first_state,
        "last_random_state": random_state.get_state(legacy=False),
        "start": {name: getattr(start, name) for name in ("name", "bound", "others")},
        "before": before,
    }
    saver = Saver(
        watcher,
        checkpoint,
        None if earlier is None else earlier["training"],
        lambda training: {**whole, **trainer.whole(), "training": training},
        together=True,
    )
    if earlier is None:
        saver.write(None)
    training = trainer.train(saver, at_end=previous is not None)
    set_first_row(trainer.network, loader, settings.sequence_length)
    if previous is not None:
        return Fit(trainer.network.cpu(), training, previous.start)
    return trainer.checked(training, start, before)


class Trainer:
    """A network and its training data.

    Parameters
    ----------
    settings : FitSettings
        The settings of the fit.
    loader : WindowLoader
        The recording.
    random_state : numpy.random.RandomState
        Source of all randomness.
    """

    def __init__(
        self, settings: FitSettings, loader: WindowLoader, random_state: np.random.RandomState
    ):
        _start_together(settings, loader, random_state)
        self.settings = settings
        self.generator = make_generator(random_state, loader.device)
        self.recording = loader
        self.loader, held_out = _hold_out(loader, settings, random_state)
        length = settings.sequence_length
        self.windows = cut_windows(self.loader.n_rows, length, length)
        self.batch_size = settings.windows_per_batch(len(self.windows))
        self.network = empty_network(settings.network, loader.device)
        is_sum = settings.loss_calc == "sum"
        weight = self.loader.total_weight(self.windows) / len(self.windows)
        self.objective = FreeEnergy(
            self.network,
            self.generator,
            loader,
            held_out if settings.n_iter_no_change is not None else _some(held_out),
            1.0 if is_sum else weight,
            settings.annealing,
            use_jitter=is_host(loader.device),
        )

    def epoch(self, windows: Windows, loader: WindowLoader) -> Iterator[Batch]:
        """Batches of some windows, in random order and moved at random within their sessions."""
        moved = jitter(windows, loader.n_rows, self.generator)
        return loader.read(moved, batches(moved, self.batch_size, self.generator))

    def begin(self, random_state: np.random.RandomState) -> tuple[Start, dict[str, Tensor] | None]:
        """Find a start, set the modes, and pretrain.

        Parameters
        ----------
        random_state : numpy.random.RandomState
            Source of randomness.

        Returns
        -------
        start : Start
            The start.
        before : dict of Tensor or None
            The weights after pretraining; None if the start has no mixing.
        """
        # The search draws from random_state, and all processes have to draw alike.
        start, state = by_first(
            lambda: (
                find_start(self.settings, read_pieces(self.loader), random_state),
                random_state.get_state(),
            ),
            self.loader.device,
        )
        random_state.set_state(state)
        if self.settings.init_method == "random_subset":
            self.best_of_draws(random_state)
        else:
            set_modes(self.network, start, self.generator)
        if start.mixing is None:
            return start, None
        self.pretrain(start.mixing)
        return start, copy.deepcopy(self.network.state_dict())

    def whole(self) -> dict:
        """The state of the training that the epoch loop does not hold."""
        return {
            "weights": self.network.state_dict(),
            "generator": self.generator.get_state(),
            "objective": {
                name: value
                for name, value in vars(self.objective).items()
                if isinstance(value, bool | int | float)
            },
        }

    def go_on(self, earlier: dict) -> None:
        """Restore a state that `whole` returned."""
        self.network.load_state_dict(earlier["weights"])
        self.generator.set_state(earlier["generator"])
        vars(self.objective).update(earlier["objective"])

    def take_over(self, network: DyNeMoNetwork) -> None:
        """Continue from the weights of a fitted network."""
        if network.settings != self.settings.network:
            raise ValueError(
                "warm_start is True, but the network differs from the fitted one: the parameters "
                f"give {self.settings.network}, and the fitted one has {network.settings}. Set "
                "warm_start=False, or use a new estimator."
            )
        self.network.load_state_dict(network.state_dict())
        # Weights that the caller has frozen stay frozen.
        pairs = zip(self.network.parameters(), network.parameters(), strict=True)
        for own, given in pairs:
            own.requires_grad_(given.requires_grad)

    def best_of_draws(self, random_state: np.random.RandomState) -> None:
        """Draw modes several times, train each briefly, and keep the one with the lowest loss."""
        settings = self.settings
        short = self._options(settings.n_init_epochs, label="start")
        best_loss, best_weights, divergence = np.inf, None, None
        for _ in range(settings.n_init):
            set_modes(self.network, draw(settings, random_state), self.generator)
            n_taken = max(1, round(settings.init_take * len(self.windows)))
            taken = self.windows[np.sort(random_state.permutation(len(self.windows))[:n_taken])]
            try:
                training = train(
                    self.network,
                    self.objective,
                    partial(self.epoch, taken, self.loader),
                    short,
                )
            except FitDivergedError as error:
                divergence = error
                continue
            loss = training.history["loss"][-1]
            if best_weights is None or loss < best_loss:
                best_loss = loss
                best_weights = copy.deepcopy(self.network.state_dict())
        if best_weights is None:
            assert divergence is not None
            raise divergence
        self.network.load_state_dict(best_weights)

    def pretrain(self, mixing: list[np.ndarray]) -> None:
        """Pretrain the encoder to the mixing of a start, then the prior to the result."""
        settings, pieces = self.settings, read_pieces(self.loader)
        temperature = settings.network.initial_alpha_temperature
        sessions = [
            np.hstack([rows, logits_of(one, temperature)])
            for rows, one in zip(pieces.rows, mixing, strict=True)
        ]
        loader = replace(
            self.loader,
            sessions=sessions,
            center=0.0,
            scale=np.ones(sessions[0].shape[1]),
            weights=None,
        )
        length = settings.sequence_length
        windows = cut_windows(loader.n_rows, length, length)
        encoder = EncoderPretraining(self.network, self.generator, loader, _some(windows))
        prior = PriorPretraining(
            self.network,
            self.generator,
            self.loader,
            self.windows,
            self.loader.total_weight(self.windows) / len(self.windows),
        )
        parts: dict[str, tuple[Objective, WindowLoader, Windows]] = {
            "encoder": (encoder, loader, windows),
            "prior": (prior, self.loader, self.windows),
        }
        for name, (objective, some, those) in parts.items():
            n_epochs = max(1, settings.n_epochs // EPOCHS_PER_PRETRAINING[name])
            options = self._options(n_epochs, label=f"pretraining of the {name}")
            with only(self.network, name):
                train(
                    self.network,
                    objective,
                    partial(self.epoch, those, some),
                    options,
                )

    def train(self, watcher: Watcher, *, at_end: bool = False) -> Training:
        """Train everything on the evidence lower bound.

        Parameters
        ----------
        watcher : Watcher
            Called before and after each epoch.
        at_end : bool, default=False
            Whether the learning rate is low, as at the end of a training, and nothing is annealed.

        Returns
        -------
        Training
            The history.
        """
        settings = self.settings
        options = replace(self._options(settings.n_epochs, at_end=at_end), watcher=watcher)
        if at_end:
            self.objective.annealing = replace(self.objective.annealing, n_epochs=0)
        else:
            n_thinned = round((1 - FULL_SHARE) * settings.n_epochs)
            self.objective.thinning = Thinning(STRIDE, n_thinned)
        options = replace(
            options,
            n_iter_no_change=settings.n_iter_no_change,
            tol=settings.tol,
            first_watched_epoch=self.objective.annealing.n_epochs,
            verbose=settings.verbose,
        )
        return train(
            self.network, self.objective, lambda: self.epoch(self.windows, self.loader), options
        )

    def _options(self, n_epochs: int, label: str = "DyNeMo", *, at_end=False) -> TrainingSettings:
        settings = self.settings
        n_constant = settings.annealing.n_epochs
        rate, decay = settings.learning_rate, settings.lr_decay
        if at_end:
            rate, n_constant = rate * WARM_RATE, 0

        def learning_rate(epoch: int) -> float:
            if decay == "linear":
                return linear_decay(epoch, rate, n_epochs, min(n_constant, n_epochs))
            return exponential_decay(epoch, rate, float(decay), n_constant)

        return TrainingSettings(
            advice=ADVICE,
            n_epochs=n_epochs,
            learning_rate=learning_rate,
            gradient_clip=settings.gradient_clip,
            verbose=max(0, settings.verbose - 1),
            label=label,
        )

    # ------------------------------------------------------------------------------ the check

    def checked(self, training: Training, start: Start, before: dict | None) -> Fit:
        """Compare the fit with its start and with one Gaussian, and keep the better one.

        Parameters
        ----------
        training : Training
            The training that has ended.
        start : Start
            Its start.
        before : dict of Tensor or None
            The weights after pretraining.

        Returns
        -------
        Fit
            The fit and its problem.
        """
        network = self.network
        bound, alpha = self._bound()
        problem = ""
        if before is not None and np.isfinite(start.bound):
            after = copy.deepcopy(network.state_dict())
            network.load_state_dict(before)
            set_first_row(network, self.recording, self.settings.sequence_length)
            first_bound, first_alpha = self._bound()
            if first_bound > bound:
                if first_bound > bound + NOTICEABLE:
                    problem = (
                        f"Training ended at a bound of {bound:.3f} nats per row, below that of its "
                        f"start, {first_bound:.3f}, which is kept; try a smaller learning_rate"
                    )
                bound, alpha = first_bound, first_alpha
            else:
                network.load_state_dict(after)
        problem = problem or self._collapse(bound, alpha) or self._apart()
        return Fit(network.cpu(), training, replace(start, mixing=None), problem)

    def _bound(self) -> tuple[float, np.ndarray]:
        """Refined lower bound per row of some rows, and their mixing coefficients."""
        length = self.settings.sequence_length
        loader = subsample(self.loader, length)
        posterior = refine(
            self.network, loader, encode(self.network, loader, length), length, CHECK_STEPS
        )
        bounds = lower_bounds(
            self.network, loader, posterior, length, np.random.RandomState(0), n_draws=2
        )
        weights = loader.weights
        flat = np.concatenate([one.mean(axis=0) for one in bounds])
        weight = None if weights is None else np.concatenate(weights)
        return float(np.average(flat, weights=weight)), np.concatenate(
            mixing(self.network, posterior)
        )

    def _collapse(self, bound: float, alpha: np.ndarray) -> str:
        """Describe the problem of the mixing; empty if there is none."""
        if self.settings.network.n_modes == 1:
            return ""
        static, chance = self._static(), self._chance()
        spread, used = alpha.std(axis=0).mean(), alpha.mean(axis=0)
        if spread < STILL:
            return (
                f"The mixing coefficients hardly change (standard deviation {spread:.4f}): the "
                "model found no dynamics. Try another init_method, fewer modes, or a longer "
                "recording"
            )
        if bound < static + chance:
            return (
                f"The bound, {bound:.3f} nats per row, is not above the log-likelihood of a single "
                f"Gaussian, {static:.3f}, by more than the parameters of the modes gain by chance, "
                f"{chance:.3f}: nothing shows that the modes are there. Try fewer modes, another "
                "init_method, or a longer recording"
            )
        unused = np.flatnonzero(used < UNUSED)
        if len(unused):
            return (
                f"The modes {unused.tolist()} have hardly any weight (less than {UNUSED} on "
                f"average); try n_modes={len(used) - len(unused)}"
            )
        return ""

    def _apart(self) -> str:
        """Describe a mixing that separates sessions; empty if it does not."""
        share = self._between_sessions()
        if share <= APART:
            return ""
        return (
            f"{share:.0%} of the variance of the mixing coefficients is between sessions: modes "
            "describe how sessions differ more than what changes in them. Unless the sessions are "
            "conditions to be compared, align them with skdyn.preprocessing.CovarianceAligner"
        )

    def _between_sessions(self) -> float:
        """Share of the variance of the mixing coefficients that is between sessions.

        The variance of session means less what the means of windows add to it by chance, in an
        analysis of variance; zero if there are too few sessions of several windows.
        """
        length = self.settings.sequence_length
        n_rows = np.array(self.recording.n_rows)
        long = np.flatnonzero(n_rows >= WINDOWS_COMPARED * length)
        least, most = SESSIONS_COMPARED
        if len(long) < least:
            return 0.0
        places = [
            (session, start, length)
            for session in long[spread_over(len(long), most)]
            for start in spread_over(n_rows[session] - length + 1, WINDOWS_COMPARED)
        ]
        loader = _cut(self.recording, places)
        alphas = mixing(self.network, encode(self.network, loader, length))
        means = np.array([one.mean(axis=0) for one in alphas])
        means = means.reshape(-1, WINDOWS_COMPARED, means.shape[1])
        chance = means.var(axis=1, ddof=1).mean(axis=0) / WINDOWS_COMPARED
        between = means.mean(axis=1).var(axis=0, ddof=1) - chance
        total = np.concatenate(alphas).var(axis=0)
        return float(np.maximum(between, 0).sum() / total.sum())

    def _chance(self) -> float:
        """Nats per row that the parameters of all modes but one add to rows of one Gaussian.

        The criterion of Akaike (1974): one nat of the sum over rows for each parameter.
        """
        network, loader = self.settings.network, self.loader
        n_channels = network.n_channels
        n_each = n_channels if network.diagonal_covariances else n_channels * (n_channels + 1) // 2
        n_each *= network.learn_covariances
        n_each += network.learn_means * n_channels
        weights = loader.weights
        n_rows = sum(loader.n_rows) if weights is None else sum(float(w.sum()) for w in weights)
        return (network.n_modes - 1) * n_each / n_rows

    def _static(self) -> float:
        """Log-likelihood per row of one Gaussian, fitted to the rows that `subsample` gives."""
        loader = subsample(self.loader, self.settings.sequence_length)
        rows = np.concatenate(read_pieces(loader).rows).astype(float)
        network = self.settings.network
        center = 0.0 if network.zero_means else rows.mean(axis=0)
        second = (rows - center).T @ (rows - center) / len(rows)
        variances = np.diag(second) if network.diagonal_covariances else np.linalg.eigvalsh(second)
        # The most likely covariance none of whose variances is below epsilon.
        fitted = np.maximum(variances, max(network.covariances_epsilon, SMALLEST_VARIANCE))
        return -0.5 * float(np.sum(np.log(2 * np.pi * fitted) + variances / fitted))


def set_first_row(network: DyNeMoNetwork, loader: WindowLoader, sequence_length: int) -> None:
    """Set the prior of the first row of a session to the distribution of theta over rows.

    Parameters
    ----------
    network : DyNeMoNetwork
        The network, whose `first_mean` and `first_std` are set.
    loader : WindowLoader
        The recording, of which some rows are taken.
    sequence_length : int
        Rows of a window.
    """
    windows = subsample(loader, sequence_length)
    posterior = encode(network, windows, sequence_length)
    values = np.concatenate(
        [np.hstack(pair) for pair in zip(posterior.mean, posterior.std, strict=True)]
    )
    if windows.weights is not None:
        counted = np.concatenate(windows.weights) > 0
        values = values[counted] if counted.any() else values
    mean, std = torch.from_numpy(values).to(network.first_mean.device).double().chunk(2, dim=1)
    with torch.no_grad():
        own = network.stationary_std(std.square().mean(dim=0).sqrt())
        network.first_mean.copy_(mean.mean(dim=0))
        network.first_std.copy_((own.square() + mean.var(dim=0, correction=0)).sqrt())


def subsample(loader: WindowLoader, sequence_length: int) -> WindowLoader:
    """Take about `CHECKED_ROWS` rows of a recording, as windows that are separate sessions.

    Parameters
    ----------
    loader : WindowLoader
        The recording.
    sequence_length : int
        Rows of a window.

    Returns
    -------
    WindowLoader
        The windows.
    """
    some = _some(cut_windows(loader.n_rows, sequence_length, sequence_length))
    places = list(zip(some.session, some.start, some.length, strict=True))
    return _cut(loader, places)


def _cut(loader: WindowLoader, places: list[tuple[int, int, int]]) -> WindowLoader:
    """Stretches of sessions (session, first row, rows), as separate sessions."""
    sessions = [loader.sessions[s][start : start + n] for s, start, n in places]
    weights = loader.weights
    if weights is not None:
        weights = [weights[s][start : start + n] for s, start, n in places]
    return replace(loader, sessions=sessions, weights=weights)


def _some(windows: Windows) -> Windows:
    """Windows of about `CHECKED_ROWS` rows, spread over all, between those of a start."""
    n_taken = max(1, CHECKED_ROWS // int(windows.length.max()))
    spread = spread_over(len(windows), n_taken)
    if 2 * n_taken <= len(windows):
        spread = (spread[:-1] + spread[1:]) // 2 if n_taken > 1 else np.array([len(windows) // 2])
    return windows[spread]


@contextmanager
def only(network: DyNeMoNetwork, part: str) -> Iterator[None]:
    """Freeze all weights except those of one part.

    Parameters
    ----------
    network : DyNeMoNetwork
        The network.
    part : {"encoder", "prior"}
        The part that is trained.

    Yields
    ------
    None
        At the end, the weights that were trained before are trained again.
    """
    named = {name: w for name, w in network.named_parameters() if w.requires_grad}
    others = [w for name, w in named.items() if not name.startswith(WEIGHTS_OF[part])]
    for weight in others:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in others:
            weight.requires_grad_(True)


def _start_together(
    settings: FitSettings, loader: WindowLoader, random_state: np.random.RandomState
) -> None:
    """Check that all processes that share the training have the same data and settings."""
    networks = settings.network.inference, settings.network.model
    if n_processes() > 1 and "batch" in [network.normalization for network in networks]:
        raise ValueError(
            "The normalization 'batch' cannot be used in a training that several processes share, "
            "because each of them sees only a part of a batch. Use 'layer' or None."
        )
    data = [*loader.scale, *loader.n_rows]
    plain = {k: v for k, v in vars(settings).items() if k not in ("means", "covariances")}
    start_together(plain, data, random_state, loader.device)


def _hold_out(
    loader: WindowLoader, settings: FitSettings, random_state: np.random.RandomState
) -> tuple[WindowLoader, Windows]:
    """The rows to train on, and the windows that early stopping watches."""
    length = settings.sequence_length
    windows = cut_windows(loader.n_rows, length, length)
    fraction, n_held_out = settings.validation_fraction, 0
    # A window that overlaps another one would leave too short a rest of a session.
    candidates = np.flatnonzero(disjoint(windows))
    if settings.n_iter_no_change is not None and fraction is not None:
        wanted = max(1, round(fraction * len(windows)))
        n_held_out = min(wanted, len(candidates), len(windows) - 1)
    if n_held_out == 0:
        return loader, windows
    held_out = windows[np.sort(random_state.choice(candidates, n_held_out, replace=False))]
    rest = gaps(held_out, loader.n_rows)
    places = list(zip(rest.session, rest.start, rest.length, strict=True))
    return _cut(loader, places), held_out
