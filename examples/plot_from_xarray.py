"""
From xarray and pandas, and back
================================

Arrays with named axes are accepted by their values, so their order matters: sessions, time,
channels. ``transpose`` sorts the axes by name, and ``copy(data=...)`` of the response gives the
prediction its times and sessions. DataFrames with a time index are accepted as they are, alone or
as a list of sessions; their column names are kept and checked.

The example images a simulated neuron that responds to two of six bands of sound. The model is
fitted to eleven days and predicts the twelfth. It needs ``pip install xarray pandas``.
"""

# %%
# Simulate sound and response
# ---------------------------
#
# The neuron is excited at 2 kHz and suppressed at 3 kHz, with a delay of about 40 ms.

import os

import numpy as np
import pandas as pd
import xarray as xr

QUICK = os.environ.get("SKDYN_EXAMPLES") == "quick"  # less data, for tests
SAMPLING_FREQUENCY = 100
n_samples = 500 if QUICK else 3000

rng = np.random.default_rng(0)
coords = {
    "session": [f"day {day}" for day in range(1, 13)],
    "frequency": ("frequency", np.arange(1.0, 7.0), {"units": "kHz"}),
    "time": ("time", np.arange(n_samples) / SAMPLING_FREQUENCY, {"units": "s"}),
}
sound = xr.DataArray(rng.gamma(0.5, size=(12, 6, n_samples)), coords, list(coords))
drive = sound.sel(frequency=2, drop=True) - 0.5 * sound.sel(frequency=3, drop=True)
drive = drive.rolling(time=3, min_periods=1).mean().shift(time=3, fill_value=0)
response = np.maximum(drive - 0.1, 0) + 0.1 * rng.standard_normal(drive.shape)
response = response.assign_attrs(long_name="Fluorescence", units="dF/F")

# %%
# Fit and predict
# ---------------

from skdyn import NEMSRegressor

sound = sound.transpose("session", "time", "frequency")
training, held_out = {"session": slice(11)}, {"session": slice(11, None)}
model = NEMSRegressor("wc.x1-fir.10-lvl-relu", random_state=0)
model.fit(sound.isel(training), response.isel(training))

measured = response.isel(held_out)
prediction = measured.copy(data=model.predict(sound.isel(held_out)))
print(f"correlation on {measured.session.item()}: {xr.corr(measured, prediction).item():.3f}")

# %%
# The prediction has the coordinates of the response, so it is drawn over time in seconds.

import matplotlib.pyplot as plt

fig, ax = plt.subplots(figsize=(7, 3), layout="constrained")
for one, label, color in ((measured, "Measured", "silver"), (prediction, "Predicted", "C0")):
    one[0].sel(time=slice(2, 4)).plot(ax=ax, label=label, color=color)
ax.legend(frameon=False)
ax.spines[["top", "right"]].set_visible(False)

# %%
# The filter, with its lags and frequencies as coordinates:

from skdyn.plotting import linear_filter

filters, lags = linear_filter(model)
lag = ("lag", lags / SAMPLING_FREQUENCY, {"units": "s"})
learned = xr.DataArray(
    filters[..., 0], {"lag": lag, "frequency": sound["frequency"]}, ("lag", "frequency"), "Filter"
)
fig, ax = plt.subplots(figsize=(5, 3), layout="constrained")
learned.plot(ax=ax, x="lag")

# %%
# The same with pandas
# --------------------
#
# A list of DataFrames, one per session, and a list of Series.

index = pd.to_timedelta(sound["time"].values, unit="s")
names = [f"{frequency:.0f} kHz" for frequency in sound["frequency"].values]
stimuli = [pd.DataFrame(one.values, index, columns=names) for one in sound]
responses = [pd.Series(one.values, index) for one in response]

model.fit(stimuli[:11], responses[:11])
print("channels:", *model.feature_names_in_)
(predicted,) = model.predict(stimuli[11:])
series = pd.Series(predicted, stimuli[11].index)
print(series.resample("1s").mean().head().round(3))
print("as before:", np.array_equal(series, prediction[0]))

# sphinx_gallery_thumbnail_number = 2
