import pytest
from sklearn.base import BaseEstimator, clone

import skdyn
from skdyn import model_selection, nems, plotting, preprocessing
from skdyn.discovery import KINDS, all_estimators


def test_all_estimators_are_those_of_the_public_modules():
    found = dict(all_estimators())
    assert {"DyNeMoEstimator", "NEMSRegressor", "ModeMatcher", "SessionFeatures"} <= set(found)
    public = {
        name
        for module in (skdyn, preprocessing, model_selection, nems, plotting)
        for name in module.__all__
        if isinstance(getattr(module, name), type)
        and issubclass(getattr(module, name), BaseEstimator)
        and hasattr(getattr(module, name), "fit")
    }
    assert public <= set(found)
    assert list(found) == sorted(found)


@pytest.mark.parametrize("kind", KINDS)
def test_all_estimators_of_a_kind_are_a_part_of_all(kind):
    found = all_estimators(kind)
    assert found
    assert set(found) < set(all_estimators())
    assert all(issubclass(one, KINDS[kind]) for _, one in found)


def test_all_estimators_without_required_arguments_can_be_cloned():
    for _, one in all_estimators():
        if not getattr(one, "_required_parameters", ()):
            try:
                estimator = one()
            except TypeError:  # has required arguments
                continue
            assert clone(estimator).get_params().keys() == estimator.get_params().keys()


def test_an_unknown_kind_of_estimator_is_refused_by_name():
    with pytest.raises(ValueError, match="type_filter must be one of"):
        all_estimators("clusterer")
