"""scikit-learn's common checks of estimators, including those that check_estimator skips."""

import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from skdyn import DyNeMoEstimator, ModeMatcher, NEMSRegressor
from skdyn.preprocessing import (
    AmplitudeEnvelope,
    BadSegments,
    BandpassFilter,
    CovarianceAligner,
    Downsampler,
    GammatoneFilterbank,
    LogCompressor,
    MovingAverage,
    NotchFilter,
    RangeScaler,
    SessionPCA,
    SessionScaler,
    SignAligner,
    Spectrogram,
    TimeDelayEmbedder,
    TimeDelayPCA,
)

DYNEMO = DyNeMoEstimator(
    n_modes=2,
    sequence_length=10,
    inference_n_units=4,
    model_n_units=4,
    n_epochs=2,
    n_refinement_steps=3,
)
FILTER = NEMSRegressor("fir.3xx-lvl")
NONLINEAR = NEMSRegressor("wc.x-lvl-dexp", max_iter=5)
# Bands of a waveform, of as many rows.
BANDS = {"low": 0.1, "high": 0.4, "sampling_frequency": 1.0, "new_sampling_frequency": 1.0}
# The output for a row depends on its neighbours, or on its whole session.
OF_SESSIONS = [
    TimeDelayEmbedder(3),
    TimeDelayPCA(3, 2),
    BandpassFilter(0.1, 0.4, order=2),
    NotchFilter(0.2, width=0.1),
    AmplitudeEnvelope(),
    MovingAverage(3),
    Spectrogram(2, **BANDS),
    GammatoneFilterbank(2, relative_bandwidth=0.5, **BANDS),
]
SCALERS, DOWNSAMPLER = [SessionScaler(), CovarianceAligner()], Downsampler()
TRANSFORMERS = [
    *(DYNEMO, ModeMatcher(), *OF_SESSIONS, *SCALERS, SignAligner(random_state=0)),
    *(Downsampler(1.0), SessionPCA(1), LogCompressor(), RangeScaler()),
]
ESTIMATORS = [*TRANSFORMERS, DOWNSAMPLER, BadSegments(), NEMSRegressor(), FILTER, NONLINEAR]

# Not needed for models that map rows independently.
WITH_MEMORY = {
    "check_methods_sample_order_invariance": (
        "rows are time: what a row gives depends on its neighbours"
    ),
    "check_methods_subset_invariance": (
        "rows are time: a part of a recording gives a row less context than the whole"
    ),
}
OF_HISTORY = {
    **WITH_MEMORY,
    "check_sample_weight_equivalence_on_dense_data": (
        "rows are time: one that is left out or repeated is other history for those after it"
    ),
}
FEWER_ROWS = "a downsampler gives fewer rows than it takes"
EXPECTED_FAILURES = {
    **{repr(transformer): WITH_MEMORY for transformer in OF_SESSIONS},
    **{
        repr(scaler): {
            "check_methods_subset_invariance": "a part of a session has statistics of its own",
        }
        for scaler in SCALERS
    },
    repr(DOWNSAMPLER): {
        **WITH_MEMORY,
        "check_transformer_data_not_an_array": FEWER_ROWS,
        "check_transformer_general": FEWER_ROWS,
    },
    repr(DYNEMO): OF_HISTORY,
    repr(FILTER): OF_HISTORY,
}
# Checks that check_estimator skips, for all estimators and for transformers.
MORE_CHECKS = ["check_param_validation", "check_dataframe_column_names_consistency"]
TRANSFORMER_CHECKS = [
    "check_set_output_transform",
    "check_set_output_transform_pandas",
    "check_global_output_transform_pandas",
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
]

pytestmark = [
    pytest.mark.usefixtures("short_search"),
    pytest.mark.filterwarnings(
        f"ignore::{ConvergenceWarning.__module__}.{ConvergenceWarning.__qualname__}",
        # scikit-learn's checks of pandas output fit to a DataFrame and then give an array, or
        # reverse.
        "ignore:X (does not have valid|has) feature names:UserWarning",
        # Their data have offsets.
        "ignore:The means of the channels:UserWarning",
    ),
]


@parametrize_with_checks(
    ESTIMATORS,
    expected_failed_checks=lambda estimator: EXPECTED_FAILURES.get(repr(estimator), {}),
)
def test_check_estimator(estimator, check):
    check(estimator)


@pytest.mark.parametrize("name", MORE_CHECKS)
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_more_checks(estimator, name):
    getattr(estimator_checks, name)(type(estimator).__name__, estimator)


@pytest.mark.parametrize("name", TRANSFORMER_CHECKS)
@pytest.mark.parametrize("estimator", TRANSFORMERS, ids=repr)
def test_more_checks_of_transformers(estimator, name):
    getattr(estimator_checks, name)(type(estimator).__name__, estimator)
