"""
From xarray and pandas, and back: results that know their times
===============================================================

Arrays with names of axes go in by their values, so the order of the axes is what counts: sessions,
time, channels. `transpose` puts them in that order by name, and `copy(data=...)` of the response
gives the prediction its times and sessions. DataFrames with a time index go in as they are, one or
a list of sessions; names of channels are kept and compared.

Here a neuron that hears six bands of sound is imaged. Its model is fitted to eleven days and
predicts the twelfth.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from skdyn import NEMSRegressor
from skdyn.plotting import linear_filter

try:
    import pandas as pd
    import xarray as xr
except ImportError as error:
    raise SystemExit(f"{error.name} is required; run `pip install xarray pandas`.") from None

SAMPLING_FREQUENCY = 100


def simulate(n_samples):
    """Sound in sessions by bands by time, and a response to two bands, some 40 ms later."""
    rng = np.random.default_rng(0)
    coords = {
        "session": [f"day {day}" for day in range(1, 13)],
        "frequency": ("frequency", np.arange(1.0, 7.0), {"units": "kHz"}),
        "time": ("time", np.arange(n_samples) / SAMPLING_FREQUENCY, {"units": "s"}),
    }
    sound = xr.DataArray(rng.gamma(0.5, size=(12, 6, n_samples)), coords, list(coords))
    drive = sound.sel(frequency=2, drop=True) - 0.5 * sound.sel(frequency=3, drop=True)
    drive = drive.rolling(time=3, min_periods=1).mean().shift(time=3, fill_value=0)
    noise = 0.1 * rng.standard_normal(drive.shape)
    response = np.maximum(drive - 0.1, 0) + noise
    return sound, response.assign_attrs(long_name="Fluorescence", units="dF/F")


def to_frames(sound, response):
    """The same as lists of DataFrames and Series with a time index."""
    index = pd.to_timedelta(sound["time"].values, unit="s")
    names = [f"{frequency:.0f} kHz" for frequency in sound["frequency"].values]
    stimuli = [pd.DataFrame(one.values, index, columns=names) for one in sound]
    return stimuli, [pd.Series(one.values, index) for one in response]


def filter_of(model, sound):
    """What the model has learned, with its lags and frequencies."""
    filters, lags = linear_filter(model)
    seconds = ("lag", lags / SAMPLING_FREQUENCY, {"units": "s"})
    coords = {"lag": seconds, "frequency": sound["frequency"]}
    return xr.DataArray(filters[..., 0], coords, ("lag", "frequency"), "Filter")


def draw(response, prediction, learned):
    """Draw two seconds of the response, and the filter."""
    fig, (course, bands) = plt.subplots(
        1, 2, figsize=(9, 3), width_ratios=(2, 1), layout="constrained"
    )
    for one, label, color in ((response, "Measured", "silver"), (prediction, "Predicted", "C0")):
        one.sel(time=slice(2, 4)).plot(ax=course, label=label, color=color)
    course.legend(frameon=False)
    course.spines[["top", "right"]].set_visible(False)
    learned.plot(ax=bands, x="lag")
    bands.set_title("")
    return fig


def main():
    parser = argparse.ArgumentParser(description="NEMS on arrays with names of axes.")
    parser.add_argument("--figures", type=Path, default=Path("figures"), help="folder to fill")
    parser.add_argument("--quick", action="store_true", help="little data")
    arguments = parser.parse_args()

    sound, response = simulate(n_samples=500 if arguments.quick else 3000)
    sound = sound.transpose("session", "time", "frequency")
    training, held_out = {"session": slice(11)}, {"session": slice(11, None)}
    model = NEMSRegressor("wc.x1-fir.10-lvl-relu", random_state=0)
    model.fit(sound.isel(training), response.isel(training))
    measured = response.isel(held_out)
    prediction = measured.copy(data=model.predict(sound.isel(held_out)))
    print(f"correlation on {measured.session.item()}: {xr.corr(measured, prediction).item():.3f}")

    # The same from frames: a list of sessions goes in, a list of arrays comes out.
    stimuli, responses = to_frames(sound, response)
    model.fit(stimuli[:11], responses[:11])
    print("channels:", *model.feature_names_in_)
    (predicted,) = model.predict(stimuli[11:])
    series = pd.Series(predicted, stimuli[11].index)
    print("mean of each second:", series.resample("1s").mean().head().round(3), sep="\n")
    assert np.array_equal(series, prediction[0])

    arguments.figures.mkdir(parents=True, exist_ok=True)
    path = arguments.figures / "from_xarray.png"
    figure = draw(measured[0], prediction[0], filter_of(model, sound))
    figure.savefig(path, dpi=150, bbox_inches="tight")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
