"""scikit-learn's own checks of an estimator, those that it runs by itself and those it does not."""

import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from skdyn import DyNeMoEstimator, ModeMatcher

DYNEMO = DyNeMoEstimator(
    n_modes=2,
    sequence_length=10,
    inference_n_units=4,
    model_n_units=4,
    n_epochs=2,
    n_init=1,
    n_init_epochs=1,
)
ESTIMATORS = [DYNEMO, ModeMatcher()]
EXPECTED_FAILURES = {
    "DyNeMoEstimator": {
        "check_methods_sample_order_invariance": (
            "rows are time: the mixing coefficients of a row depend on its neighbours"
        ),
        "check_methods_subset_invariance": (
            "rows are time: a part of a recording gives a row less context than the whole"
        ),
    }
}
# What check_estimator leaves out.
MORE_CHECKS = [
    "check_param_validation",
    "check_set_output_transform",
    "check_set_output_transform_pandas",
    "check_global_output_transform_pandas",
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
    "check_dataframe_column_names_consistency",
]

pytestmark = pytest.mark.filterwarnings(
    f"ignore::{ConvergenceWarning.__module__}.{ConvergenceWarning.__qualname__}",
    # scikit-learn's checks of pandas output fit to a DataFrame and then give an array, or reverse.
    "ignore:X (does not have valid|has) feature names:UserWarning",
)


@parametrize_with_checks(
    ESTIMATORS,
    expected_failed_checks=lambda estimator: EXPECTED_FAILURES.get(type(estimator).__name__, {}),
    xfail_strict=True,
)
def test_check_estimator(estimator, check):
    check(estimator)


@pytest.mark.parametrize("name", MORE_CHECKS)
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda estimator: type(estimator).__name__)
def test_more_checks(estimator, name):
    getattr(estimator_checks, name)(type(estimator).__name__, estimator)
