"""What a fitted encoding model can say of a stimulus, and of itself."""

from __future__ import annotations

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_is_fitted

from skdyn._sklearn import DocumentedMixin, _BaseComposition
from skdyn.core.runtime import one_thread
from skdyn.nems.layers.base import Layer
from skdyn.sessions import Sessions, check_sessions, check_targets, check_weights


class FittedNEMS(DocumentedMixin, RegressorMixin, _BaseComposition):
    """The methods of a `NEMSRegressor` that need a fitted model."""

    __metadata_request__predict = {"sessions": True}  # noqa: RUF012
    __metadata_request__score = {"sessions": True}  # noqa: RUF012

    def predict(self, X, *, sessions=None, preceding=None):
        """Predict the response.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            The stimulus.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X.
        preceding : array-like of shape (n_preceding, n_channels), or list of such, default=None
            Rows right before X, or before each session of a list or a 3-D array, as history. None
            for zeros.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs), or as X
            The predicted response.
        """
        check_is_fitted(self)
        stimulus = check_sessions(self, X, sessions, reset=False)
        outputs = self._outputs(stimulus, self._check_preceding(stimulus, preceding))
        return stimulus.like_input(
            [output if self._has_output_axis else output[:, 0] for output in outputs]
        )

    def _outputs(self, stimulus: Sessions, before: list[np.ndarray]) -> list[np.ndarray]:
        """Predictions (n_samples, n_outputs) of checked sessions."""
        with one_thread():
            return [
                self.model_.predict(np.concatenate([rows, array]))[len(rows) :]
                for rows, array in zip(before, stimulus.arrays, strict=True)
            ]

    def _check_preceding(self, stimulus: Sessions, preceding) -> list[np.ndarray]:
        if preceding is None:
            return [array[:0] for array in stimulus.arrays]
        given = [preceding] if stimulus.container == "array" else list(preceding)
        if len(given) != len(stimulus.arrays):
            raise ValueError(
                f"Got preceding rows for {len(given)} sessions and X with "
                f"{len(stimulus.arrays)}, expected as many; give a list with an array per session, "
                "and X as a list, too."
            )
        return [
            check_sessions(self, rows, reset=False).arrays[0]
            if len(rows)
            else stimulus.arrays[0][:0]
            for rows in given
        ]

    def score(self, X, y, sample_weight=None, *, sessions=None):
        """Coefficient of determination of the prediction, the mean over outputs.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_channels), list of such, or array of shape \
                (n_sessions, n_samples, n_channels)
            The stimulus.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), list of such, or array of \
                shape (n_sessions, n_samples) or (n_sessions, n_samples, n_outputs)
            The response. Where it has no weight it may be NaN.
        sample_weight : array-like of shape (n_samples,), or like y, default=None
            Weights.
        sessions : array-like of shape (n_samples,), default=None
            Label of each row of a 2-D X.

        Returns
        -------
        float
            R^2, at most 1.
        """
        check_is_fitted(self)
        stimulus, targets, weights = self._check(X, y, sample_weight, sessions, reset=False)
        target, weight = (
            np.concatenate([part.reshape(len(part), -1) for part in parts])
            for parts in (targets, weights)
        )
        if target.shape[1] != self.n_outputs_:
            raise ValueError(
                f"Got y with {target.shape[1]} outputs, expected {self.n_outputs_}, as in fit."
            )
        prediction = np.concatenate(self._outputs(stimulus, self._check_preceding(stimulus, None)))
        weight = np.broadcast_to(weight, target.shape)
        if not weight.any():
            raise ValueError("Got sample weights that are all zero, expected some above zero.")
        target = np.where(weight > 0, target, 0.0)
        return float(
            np.mean(
                [
                    r2_score(target[:, n], prediction[:, n], sample_weight=weight[:, n])
                    for n in np.flatnonzero(weight.any(axis=0))
                ]
            )
        )

    def summary(self):
        """The fitted model in words.

        Returns
        -------
        str
            A line per layer: its shape, how many numbers it has, and their range. Then one on the
            fit: how long it took, and the loss.
        """
        check_is_fitted(self)
        layers = [_in_words(layer) for layer in self.model_.layers]
        widths = [max(map(len, column)) for column in zip(*layers, strict=True)]
        lines = [
            "  ".join(word.ljust(width) for word, width in zip(words, widths, strict=True)).rstrip()
            for words in layers
        ]
        unit = "epochs" if self.solver == "adam" else "iterations"
        stopped = "was asked to stop" if self.n_iter_ < self.max_iter else "ran to the last one"
        stopped = "stopped by itself" if self.converged_ else stopped
        loss = self.loss if isinstance(self.loss, str) else "loss"
        return "\n".join(
            [
                f"NEMS of {_count(len(layers), 'layer')}, from "
                f"{_count(self.n_features_in_, 'channel')} to {_count(self.n_outputs_, 'output')}",
                *(f"  {line}" for line in lines),
                f"  training: {self.n_iter_} of {self.max_iter} {unit} of {self.solver}, "
                f"{stopped}, {loss} {self.loss_:.4g}",
            ]
        )

    def _check(self, X, y, sample_weight, sessions, *, reset: bool):
        """Sessions, responses and weights that go together."""
        stimulus = check_sessions(self, X, sessions, reset=reset)
        targets = check_targets(self, stimulus, y)
        return stimulus, targets, check_weights(stimulus, targets, sample_weight)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.target_tags.multi_output = True
        return tags


def _count(number: int, name: str) -> str:
    return f"{number} {name}" + ("" if number == 1 else "s")


def _in_words(layer: Layer) -> tuple[str, str, str, str]:
    """Name, shape, how many numbers, and their range by parameter."""
    parameters = dict(layer.parameters.items())
    n_values = sum(parameter.size for parameter in parameters.values())
    n_frozen = sum(one.size for one in parameters.values() if one.is_frozen)
    count = _count(n_values, "value") + (f", {n_frozen} frozen" if n_frozen else "")
    ranges = [
        f"{name} {np.min(one.values):.3g} to {np.max(one.values):.3g}"
        if one.size > 1
        else f"{name} {np.ravel(one.values)[0]:.3g}"
        for name, one in parameters.items()
        if one.size
    ]
    return str(layer.name), str(layer.shape), count, ", ".join(ranges)
