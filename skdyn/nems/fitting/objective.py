"""The loss of a model as a function of the vector of its parameters."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from skdyn.nems.fitting.penalties import Norms, quadratic_penalties, sparse_penalties
from skdyn.nems.fitting.trials import Trial, output_in_pieces
from skdyn.nems.layers.base import Layer
from skdyn.nems.losses import Loss
from skdyn.nems.model import Model
from skdyn.nems.penalties import diagonal_array

CPU = torch.device("cpu")

# Numbers of random values and noise rows used to find the parameters that an output depends on.
N_PROBES, N_PROBE_ROWS = 4, 64


@dataclass(frozen=True)
class Group:
    """Trials of equal length, which are computed together.

    Attributes
    ----------
    given : sequence of dict of ndarray of shape (n_samples, ...)
        Inputs of the model for each trial.
    target : Tensor of shape (n_trials, n_rows, n_outputs)
        The response.
    weight : Tensor of shape (n_trials, n_rows, 1) or (n_trials, n_rows, n_outputs)
        Weights.
    share : float, default=1.0
        Factor of the loss of the group.
    """

    given: Sequence[dict[str, np.ndarray]]
    target: Tensor
    weight: Tensor
    share: float = 1.0

    @cached_property
    def data(self) -> dict[str, Tensor]:
        """Inputs as tensors (n_trials, n_samples, ...), copied on first access."""
        return {
            name: stack([data[name] for data in self.given], self.target.device).to(self.target)
            for name in self.given[0]
        }

    def of_type(self, dtype: torch.dtype) -> Group:
        """Return the group in another precision."""
        return replace(self, target=self.target.to(dtype), weight=self.weight.to(dtype))

    def part(self, trials: Sequence[int], share: float = 1.0) -> Group:
        """Return a subset of the trials, with their share of the loss."""
        chosen = torch.as_tensor(trials, device=self.target.device)
        given = [self.given[number] for number in trials]
        part = Group(given, _chosen(self.target, chosen), _chosen(self.weight, chosen), share)
        if "data" in self.__dict__:
            part.__dict__["data"] = {name: _chosen(one, chosen) for name, one in self.data.items()}
        return part


@dataclass(frozen=True)
class Sizes:
    """Scales of the losses, from all data.

    Attributes
    ----------
    typical : ndarray of shape (n_outputs,)
        A typical size of each output, see `Loss.typical`.
    scale : ndarray of shape (n_outputs,) or (1,)
        Size of the loss of each output.
    share : ndarray like scale
        Share of each output in the loss; their sum is 1.
    """

    typical: np.ndarray
    scale: np.ndarray
    share: np.ndarray

    @classmethod
    def of(cls, loss: Loss, trials: Sequence[Trial]) -> Sizes:
        """Compute the sizes from all trials."""
        target = np.concatenate([trial.target for trial in trials])
        weight = np.concatenate(
            [np.broadcast_to(trial.weight, trial.target.shape) for trial in trials]
        )
        typical = loss.typical(target, weight)
        scale = loss.scale(target, weight, typical)
        total = weight.sum(axis=0) if loss.is_per_output else np.ones(1)
        return cls(typical, scale, total / total.sum())


class Objective:
    """The loss of a model as a function of the vector of its values that are not frozen.

    The loss of output n is L_n + alpha_n / 2 times the sum of squares of the penalised values that
    it depends on, with further penalties of the layers, and the loss of the model is the weighted
    mean over outputs. Outputs that share parameters, directly or through others, form a component.
    Solvers minimise `values`, the loss of each component relative to its size. The minimum is the
    same, but `values` do not depend on units or other components.

    Parameters
    ----------
    model : Model
        The model, with known sizes of all layers.
    trials : sequence of Trial
        The trials to predict.
    loss : Loss
        The loss to minimise.
    alpha : float or ndarray of shape (n_outputs,)
        Weight of the penalty of layers without an `l2`.
    device : torch.device, default=torch.device("cpu")
        Device that computes gradients.
    sizes : Sizes, default=None
        Scales of the losses; None computes them from the trials.
    reach : ndarray of bool of shape (n_outputs, n_free), default=None
        Which values each output depends on; None computes it.
    """

    def __init__(
        self,
        model: Model,
        trials: Sequence[Trial],
        loss: Loss,
        alpha=0.0,
        device: torch.device = CPU,
        *,
        sizes: Sizes | None = None,
        reach: np.ndarray | None = None,
    ):
        self.model, self.loss, self.device = model, loss, device
        self.trials = trials
        self.sizes = Sizes.of(loss, trials) if sizes is None else sizes
        self.alpha = np.broadcast_to(np.asarray(alpha, float), (self.n_outputs,))
        self.n_evaluations = 0
        if reach is not None:
            self.reach = reach

    @property
    def n_outputs(self) -> int:
        """Number of outputs."""
        return self.trials[0].target.shape[1]

    @cached_property
    def groups(self) -> list[Group]:
        """The trials, as tensors."""
        return self._group([trial.weight for trial in self.trials])

    @cached_property
    def single_groups(self) -> list[Group]:
        """The trials in single precision."""
        return [group.of_type(torch.float32) for group in self.groups]

    @property
    def dtype(self) -> torch.dtype:
        """The precision of gradients."""
        return torch.float32 if self.is_single else torch.float64

    @cached_property
    def held_out(self) -> list[Group]:
        """The trials with held-out weights; empty without held-out data."""
        weights = [trial.held_out for trial in self.trials if trial.held_out is not None]
        return self._group(weights) if weights else []

    # ---------------------------------------------------------------------------- structure

    @cached_property
    def reach(self) -> np.ndarray:
        """Which values each output depends on, of shape (n_outputs, n_free)."""
        n_free = len(self.model.get_parameter_vector())
        if self.n_outputs == 1 or not self.loss.is_per_output or not self.is_exact:
            return np.ones((self.n_outputs, n_free), dtype=bool)
        return find_reach(self.model, self.trials[0], self.n_outputs)

    @cached_property
    def owner(self) -> np.ndarray:
        """The one output that depends on each value; n_outputs if several do, -1 if none."""
        n_reached = self.reach.sum(axis=0)
        owner = np.where(n_reached > 1, self.n_outputs, self.reach.argmax(axis=0))
        return np.where(n_reached > 0, owner, -1)

    @cached_property
    def alike(self) -> list[np.ndarray]:
        """Labels of each parameter's entries, equal if the same outputs depend on them."""
        marks = np.random.RandomState(0).random_sample(self.n_outputs) @ self.reach
        places = parameter_slices(self.model)
        return [np.unique(marks[place], return_inverse=True)[1] for place in places]

    @cached_property
    def component(self) -> np.ndarray:
        """Index of the component of each output; outputs that share parameters form one."""
        if not self.loss.is_per_output:
            return np.zeros(1, dtype=int)
        reach = self.reach.astype(np.float32)
        return connected_components(reach @ reach.T > 0, directed=False)[1]

    @cached_property
    def counts(self) -> np.ndarray:
        """Weight of a penalty of each value in the loss: the share of its outputs."""
        return self._share @ self._reached

    @property
    def _share(self) -> np.ndarray:
        per_output = self.loss.is_per_output
        return self.sizes.share if per_output else np.full(self.n_outputs, 1 / self.n_outputs)

    @property
    def _reached(self) -> np.ndarray:
        """Which values outputs depend on; unreached values count as shared by all outputs."""
        return self.reach | ~self.reach.any(axis=0)

    @cached_property
    def penalty(self) -> np.ndarray:
        """Weight of half the square of each value in the loss, of shape (n_free,)."""
        is_penalised, own = _penalties(self.model)
        from_alpha = self._share * self.alpha @ self._reached
        return is_penalised * np.where(np.isnan(own), from_alpha, own * self.counts)

    @cached_property
    def coupling(self) -> sparse.csr_array | None:
        """Matrix S of further penalties in the loss, v' S v / 2 of all values v; None if zero."""
        return quadratic_penalties(self.model, self.counts)

    @cached_property
    def norms(self) -> Norms | None:
        """Norms of groups of values whose weighted sum counts in the loss; None if there are none.

        Only solvers with `handles_norms` use them.
        """
        return sparse_penalties(self.model, self.counts, self.alike)

    @cached_property
    def factors(self) -> np.ndarray:
        """Factors of the output losses relative to their components, like `Sizes.scale`."""
        share, component = self.sizes.share, self.component
        sizes = np.bincount(component, share * self.sizes.scale)
        sizes = np.where(sizes > 0, sizes, 1.0)  # components with zero weight
        return share / sizes[component]

    @cached_property
    def component_of_value(self) -> np.ndarray:
        """The component of each value, of shape (n_free,); the first one for unreached values."""
        if not self.loss.is_per_output:
            return np.zeros(self.reach.shape[1], dtype=int)
        return self.component[self.reach.argmax(axis=0)]

    @cached_property
    def to_values(self) -> np.ndarray:
        """Factor of a penalty of each value in `values`, relative to that in the loss."""
        if not self.loss.is_per_output:
            return np.full(self.reach.shape[1], self.factors[0])
        ratio = np.zeros(self.component.max(initial=0) + 1)
        share = self.sizes.share
        ratio[self.component] = self.factors / np.where(share > 0, share, 1.0)
        return ratio[self.component_of_value]

    @cached_property
    def value_penalty(self) -> np.ndarray:
        """Weight of half the square of each value in `values`, of shape (n_free,)."""
        return self.penalty * self.to_values

    @cached_property
    def value_coupling(self) -> sparse.csr_array | None:
        """Matrix of `coupling` in units of `values`."""
        if self.coupling is None:
            return None
        return sparse.csr_array(diagonal_array(self.to_values) @ self.coupling)

    def penalty_gradient(self, vector: np.ndarray) -> np.ndarray:
        """Return the gradient of the quadratic penalty in `values`."""
        gradient = self.value_penalty * vector
        return gradient if self.value_coupling is None else gradient + self.value_coupling @ vector

    def squares(self, vector: np.ndarray) -> np.ndarray:
        """Return the terms of the quadratic penalty in `values`, one per value."""
        return 0.5 * vector * self.penalty_gradient(vector)

    @cached_property
    def component_share(self) -> np.ndarray:
        """Share of each component in `value`, that of its outputs, of shape (n_components,)."""
        counts = np.bincount(self.component)
        return counts / counts.sum()

    @property
    def scale(self) -> float:
        """Size of the loss of all outputs together."""
        return float(self.sizes.share @ self.sizes.scale)

    # ------------------------------------------------------------------------------- values

    def error(self, vector: np.ndarray) -> float:
        """Return the loss without the penalty, computed by the layers on arrays.

        Parameters
        ----------
        vector : ndarray of shape (n_free,)
            Values.

        Returns
        -------
        float
            The loss.
        """
        self.n_evaluations += 1
        return float(self.sizes.share @ self.errors(vector))

    def held_out_error(self, vector: np.ndarray) -> float:
        """Return the loss of held-out data, without the penalty.

        Parameters
        ----------
        vector : ndarray of shape (n_free,)
            Values.

        Returns
        -------
        float
            The loss.
        """
        return float(self.sizes.share @ self.errors(vector, self.held_out))

    def with_penalty(self, error: float, vector: np.ndarray) -> float:
        """Add the penalty to a loss."""
        error = error + 0.5 * float(self.penalty @ vector**2)
        if self.coupling is not None:
            error += 0.5 * float(vector @ (self.coupling @ vector))
        return error if self.norms is None else error + float(self.norms.values(vector).sum())

    def errors(self, vector: np.ndarray, groups: list[Group] | None = None) -> np.ndarray:
        """Return the loss of each output without the penalty, like `Sizes.scale`.

        Parameters
        ----------
        vector : ndarray of shape (n_free,)
            Values.
        groups : list of Group, default=None
            Groups to evaluate; None for all training data.

        Returns
        -------
        ndarray of shape (n_outputs,) or (1,)
            The losses.
        """
        groups = self.groups if groups is None else groups
        self.model.set_parameter_vector(vector, ignore_bounds=True)
        total = np.zeros(len(self.sizes.share))
        for group in groups:
            with np.errstate(all="ignore"):  # non-finite values are checked afterwards
                pieces = [output_in_pieces(self.model, data) for data in group.given]
            prediction = torch.as_tensor(np.stack(pieces), device=self.device)
            total += self.losses(group, prediction).cpu().numpy()
        return total

    def losses(self, group: Group, prediction: Tensor) -> Tensor:
        """Return the losses of the predictions of a group, without the penalty.

        Parameters
        ----------
        group : Group
            The group.
        prediction : Tensor of shape (n_trials, n_rows, n_outputs)
            Predictions.

        Returns
        -------
        Tensor of shape (n_outputs,) or (1,)
            The losses, like `Sizes.scale`.
        """
        if prediction.shape != group.target.shape:
            raise ValueError(
                f"The output of the model has the shape {tuple(prediction.shape[1:])}, but the "
                f"response has {tuple(group.target.shape[1:])}; change the last layer."
            )
        typical = torch.as_tensor(self.sizes.typical, device=prediction.device)
        typical = typical.to(prediction.dtype)
        return group.share * self.loss.values(group.target, prediction, group.weight, typical)

    def values(self, vector: np.ndarray) -> np.ndarray:
        """Return the loss of each component with the penalty, relative to its size.

        Parameters
        ----------
        vector : ndarray of shape (n_free,)
            Values.

        Returns
        -------
        ndarray of shape (n_components,)
            The losses.
        """
        self.n_evaluations += 1
        return self._values(self.errors(vector), vector)

    def value(self, vector: np.ndarray) -> float:
        """Return the mean of `values` over outputs."""
        return float(self.component_share @ self.values(vector))

    def _values(self, errors: np.ndarray, vector: np.ndarray) -> np.ndarray:
        self.last_errors = errors
        n_components = len(self.component_share)
        values = np.bincount(self.component, self.factors * errors, n_components)
        return values + np.bincount(self.component_of_value, self.squares(vector), n_components)

    def values_and_gradient(self, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the loss of each component with the penalty, and the gradient of their sum.

        Parameters
        ----------
        vector : ndarray of shape (n_free,)
            Values.

        Returns
        -------
        values : ndarray of shape (n_components,)
            The losses, relative to their sizes.
        gradient : ndarray of shape (n_free,)
            Derivatives of the loss of each value's component.
        """
        self.n_evaluations += 1
        theta = torch.tensor(vector, dtype=torch.float64, device=self.device, requires_grad=True)
        total = torch.zeros(len(self.factors), dtype=torch.float64, device=self.device)
        factors = torch.as_tensor(self.factors, device=self.device)
        with tensors_of(self.model, theta.to(self.dtype)):
            for group in self.single_groups if self.is_single else self.groups:
                losses = self.losses(group, self.predict(group.data)).double()
                (factors @ losses).backward()
                total += losses.detach()
        assert theta.grad is not None
        gradient = theta.grad.cpu().numpy() + self.penalty_gradient(vector)
        return self._values(total.cpu().numpy(), vector), gradient

    # --------------------------------------------------------------------------- predictions

    def predict(self, data: dict[str, Tensor]) -> Tensor:
        """Return the predictions for trials of equal length.

        Parameters
        ----------
        data : dict of Tensor of shape (n_trials, n_samples, ...)
            Inputs by name.

        Returns
        -------
        Tensor of shape (n_trials, n_rows, n_outputs)
            The predictions.
        """
        n_trials = len(next(iter(data.values())))
        if n_trials == 1:
            return self.model.output({name: values[0] for name, values in data.items()})[None]
        if self.model.joins_trials:
            joined = {name: values.flatten(0, 1) for name, values in data.items()}
            with self.model.joined(n_trials):
                return self.model.output(joined).unflatten(0, (n_trials, -1))
        if self.is_looped:
            return torch.stack(
                [
                    self.model.output({name: values[i] for name, values in data.items()})
                    for i in range(n_trials)
                ]
            )
        return torch.func.vmap(self.model.output)(data)

    # Whether trials are computed one at a time, because a layer cannot be vectorised; whether
    # autograd can trace all layers; and whether gradients are computed in single precision.
    is_looped = False
    is_exact = True
    is_single = False

    def curvature(self, group: Group, prediction: Tensor) -> Tensor:
        """Return second derivatives of the loss with respect to each prediction.

        Parameters
        ----------
        group : Group
            The response.
        prediction : Tensor of shape (n_trials, n_rows, n_outputs)
            Predictions.

        Returns
        -------
        Tensor of shape (n_trials, n_rows, n_outputs)
            Nonnegative second derivatives in the units of `values`; those of the squared error if
            the loss has none, as the absolute error.
        """
        factors = torch.as_tensor(self.factors, device=prediction.device).to(prediction)
        rows = prediction.shape[0] * prediction.shape[1]
        size = torch.as_tensor(self.sizes.typical, device=prediction.device).to(prediction)
        flat = (2 / rows / size**2).expand_as(prediction)
        at = prediction.detach().requires_grad_()
        losses = factors @ self.losses(group, at)
        (slope,) = torch.autograd.grad(losses, at, create_graph=True)
        if not slope.requires_grad:
            return flat
        (curvature,) = torch.autograd.grad(slope.sum(), at)
        curvature = curvature.clamp_min(0)
        usable = torch.isfinite(curvature).all() & curvature.any()
        return curvature if usable else flat

    def _group(self, weights: Sequence[np.ndarray]) -> list[Group]:
        """Stack trials of equal length along a new first axis."""
        # Trials with a total weight of zero are left out, because weights are normalised.
        pairs = zip(self.trials, weights, strict=True)
        counting = [(trial, weight) for trial, weight in pairs if weight.any()]
        total = sum(np.broadcast_to(w, t.target.shape).sum(axis=0) for t, w in counting)
        lengths = sorted({(_n_samples(trial), len(trial.target)) for trial, _ in counting})
        return [
            self._make_group(
                [one for one in counting if (_n_samples(one[0]), len(one[0].target)) == length],
                np.asarray(total),
            )
            for length in lengths
        ]

    def _make_group(self, same: list[tuple[Trial, np.ndarray]], total: np.ndarray) -> Group:
        target = stack([trial.target for trial, _ in same], self.device)
        weight = stack([weight for _, weight in same], self.device)
        given = [trial.data for trial, _ in same]
        if self.loss.is_per_output:
            n_rows = target.shape[0] * target.shape[1]
            each = np.where(total > 0, total, 1.0)
            if np.all(each == each[0]):
                each = each[:1]
            return Group(given, target, weight * torch.as_tensor(n_rows / each, device=self.device))
        mean = float(weight.mean())
        share = mean * target.numel() / float(total.sum())
        return Group(given, target, weight / mean, share)


def stack(arrays: Sequence[np.ndarray], device: torch.device = CPU) -> Tensor:
    """Stack arrays of one shape into a double tensor with time last in memory.

    Parameters
    ----------
    arrays : sequence of ndarray of shape (n_samples, ...)
        One array per trial.
    device : torch.device, default=torch.device("cpu")
        Device of the tensor.

    Returns
    -------
    Tensor of shape (n_trials, n_samples, ...)
        Tensor with copied values.
    """
    first = arrays[0]
    stacked = np.empty((*first.shape[1:], len(arrays), len(first)))
    for number, array in enumerate(arrays):
        stacked[..., number, :] = np.moveaxis(array, 0, -1)
    return torch.from_numpy(stacked).to(device).movedim((-2, -1), (0, 1))


def _chosen(values: Tensor, trials: Tensor) -> Tensor:
    """Return some trials, with time last in memory, as in `stack`."""
    return values.movedim((0, 1), (-2, -1)).index_select(-2, trials).movedim((-2, -1), (0, 1))


def _n_samples(trial: Trial) -> int:
    return len(next(iter(trial.data.values())))


def _penalties(model: Model) -> tuple[np.ndarray, np.ndarray]:
    """Return whether each free value is penalised, and the `l2` of its layer, NaN without one."""
    counts, own = [np.zeros(0)], [np.zeros(0)]
    for layer in model.layers:
        for name, parameter in layer.parameters.items():
            if not parameter.is_frozen:
                counted = layer.penalised is None or name in layer.penalised
                counts.append(np.full(parameter.size, float(counted)))
                own.append(np.full(parameter.size, np.nan if layer.l2 is None else layer.l2))
    return np.concatenate(counts), np.concatenate(own)


def find_reach(model: Model, trial: Trial, n_outputs: int) -> np.ndarray:
    """Find which values each output depends on, by derivatives at random values and inputs.

    Parameters
    ----------
    model : Model
        The model.
    trial : Trial
        A trial, which determines the shapes of the inputs.
    n_outputs : int
        Number of outputs.

    Returns
    -------
    ndarray of bool of shape (n_outputs, n_free)
        Mask of dependencies; all True if autograd cannot trace the model.
    """
    rng = np.random.RandomState(0)
    model = _without_statistics(model)
    reach = np.zeros((n_outputs, len(model.get_parameter_vector())), dtype=bool)
    n_rows = min(_n_samples(trial), N_PROBE_ROWS + (model.n_past or N_PROBE_ROWS))
    for probe in range(N_PROBES):
        theta = torch.tensor(_random_values(model, rng), requires_grad=True)
        noise = {
            name: rng.standard_normal((n_rows, *array.shape[1:]))
            for name, array in trial.data.items()
        }
        # Inputs of both signs, so that no rectifier is always off; or positive, for logarithms.
        data = {k: torch.from_numpy(np.abs(x) if probe % 2 else x) for k, x in noise.items()}
        try:
            with tensors_of(model, theta), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                prediction = model.output(data)
            row = torch.linspace(1.0, 2.0, len(prediction), dtype=torch.float64)
            starts = row[:, None] * torch.eye(n_outputs, dtype=torch.float64)[:, None]
            gradients = batched_gradients(prediction, theta, starts)
        except Exception:  # a custom layer may raise any error for tensors
            return np.ones_like(reach)
        before, reach = reach, reach | (gradients != 0).numpy()
        if reach.any(axis=0).all() and np.array_equal(before, reach):
            break  # further values and inputs revealed no dependency
    return reach


def _without_statistics(model: Model) -> Model:
    """Return a model whose layers expect inputs of about unit size."""
    if not any(layer.statistics for layer in model.layers):
        return model
    model = model.copy()
    for layer in model.layers:
        default = layer.initial_parameters() if layer.statistics else {}
        for name in layer.statistics:
            layer[name].values = default[name].values
    return model


def batched_gradients(output: Tensor, source: Tensor, starts: Tensor) -> Tensor:
    """Backpropagate several vectors together, including through custom autograd functions.

    Parameters
    ----------
    output, source : Tensor
        Tensor to differentiate, and variable of the derivative.
    starts : Tensor of shape (n_starts, ...)
        Vectors of the shape of the output.

    Returns
    -------
    Tensor of shape (n_starts, ...)
        Gradients of the shape of the source; the graph is retained.
    """

    def backwards(start: Tensor) -> Tensor:
        return torch.autograd.grad(output, source, start, retain_graph=True)[0]

    with warnings.catch_warnings():
        # Warnings about operations without a vectorised backward pass.
        warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
        return torch.func.vmap(backwards)(starts)


def _random_values(model: Model, rng: np.random.RandomState) -> np.ndarray:
    """Draw values within the bounds at which all signals have about unit size."""
    low, high = model.get_bounds_vector()
    parts = [np.zeros(0)]
    for layer in model.layers:
        for parameter in layer.parameters.free:
            fan_in = parameter.size / (parameter.shape[-1] if parameter.shape else 1)
            size = rng.choice([-1.0, 1.0], parameter.size) / np.sqrt(max(fan_in, 1.0))
            parts.append(size * rng.uniform(0.5, 1.5, parameter.size))
    values = np.concatenate(parts)
    # Half a typical size, or half the distance to the other bound, inside the bounds.
    with np.errstate(invalid="ignore"):
        room = np.minimum(np.abs(values), np.where(np.isfinite(high - low), (high - low) / 2, 1.0))
    values = np.where(values <= low, low + room, values)
    return np.where(values >= high, high - room, values)


@contextmanager
def tensors_of(model: Model, theta: Tensor) -> Iterator[None]:
    """Make the layers use the values of a tensor.

    Parameters
    ----------
    model : Model
        The model.
    theta : Tensor of shape (n_free,)
        Values that are not frozen.

    Yields
    ------
    None
        The previous values are restored on exit.
    """
    sizes = [one.size for layer in model.layers for one in layer.parameters.free]
    parts = iter(theta.split(sizes) if sizes else ())  # whose gradient is one concatenation
    with ExitStack() as stack:
        for layer in model.layers:
            tensors = {}
            for name, parameter in layer.parameters.items():
                if parameter.is_frozen:
                    tensors[name] = torch.from_numpy(parameter.values).to(theta)
                else:
                    tensors[name] = next(parts).reshape(parameter.shape)
            stack.enter_context(layer.tensors(tensors))
        yield


def layer_of(model: Model, place: int) -> Layer:
    """Return the layer of a free value, by its index in the vector."""
    ends = np.cumsum([sum(p.size for p in layer.parameters.free) for layer in model.layers])
    return model.layers[int(np.searchsorted(ends, place, side="right"))]


def parameter_slices(model: Model) -> list[slice]:
    """Return the slice of each unfrozen parameter in the vector of free values."""
    sizes = [p.size for layer in model.layers for p in layer.parameters.free]
    ends = np.cumsum(sizes)
    return [slice(int(end - size), int(end)) for size, end in zip(sizes, ends, strict=True) if size]
