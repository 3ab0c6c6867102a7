"""A description of a fitted model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def summary_of(parameters: Mapping[str, Any], fitted: Mapping[str, Any]) -> str:
    """Describe a fitted model.

    Parameters
    ----------
    parameters, fitted : mapping
        Parameters and fitted attributes of a `DyNeMoEstimator`, by name.

    Returns
    -------
    str
        One line per part: data, networks, training, and each mode's share of the variance.
    """
    p, f = parameters, fitted
    n_weights = sum(w.numel() for w in f["network_"].parameters() if w.requires_grad)
    last = {name: values[-1] for name, values in f["history_"].items()}
    starts = ", ".join(f"{name} {bound:.3f}" for name, bound in f["starts_"].items())
    scales = np.outer(f["channel_scale_"], f["channel_scale_"])
    power = np.trace(f["covariances_"] / scales, axis1=1, axis2=2)
    modes = " ".join(f"{share:.2f}" for share in power / f["n_features_in_"])
    stopped = "was asked to stop" if f["n_iter_"] < p["n_epochs"] else "ran to its last epoch"
    stopped = "stopped early, without progress" if f["converged_"] else stopped
    noun = "mode" if p["n_modes"] == 1 else "modes"
    return "\n".join(
        [
            f"DyNeMo with {p['n_modes']} {noun} of {f['n_features_in_']} channels",
            f"  inference  {p['inference_n_layers']} x {p['inference_n_units']} "
            f"{p['inference_rnn']}, both directions, windows of {p['sequence_length']} rows",
            f"  prior      {p['model_n_layers']} x {p['model_n_units']} {p['model_rnn']}",
            f"  weights    {n_weights} trained",
            f"  training   {f['n_iter_']} of {p['n_epochs']} epochs, {stopped}, "
            f"loss {last['loss']:.4f} = {last['ll_loss']:.4f} + "
            f"{last['kl_factor']:.2f} x {last['kl_loss']:.4f}",
            f"  start      {starts} (lower bound per row held out; the first one was taken)",
            f"  softmax    temperature {f['alpha_temperature_']:.3f}",
            f"  modes      variance relative to the data: {modes}",
            f"  check      {f['problem_'] or 'nothing found'}",
        ]
    )
