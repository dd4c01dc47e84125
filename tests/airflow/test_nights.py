"""Nights under a real Airflow, several at the same time: each waits here for its end."""

from concurrent.futures import Future

import pytest

from tests.airflow.conftest import NIGHTS, Night

pytestmark = pytest.mark.airflow


def _proves(night: Night, key: str) -> pytest.MarkDecorator:
    return pytest.mark.proves(key, (night.__doc__ or "").strip())


@pytest.mark.parametrize(
    "night",
    [pytest.param(night, marks=_proves(night, key), id=night.__name__) for night, key in NIGHTS.items()],
)
def test_a_night(nights: dict[Night, Future[None]], night: Night) -> None:
    """What its own docstring says."""
    nights[night].result()
