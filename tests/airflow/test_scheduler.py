"""The scheduler dies, when no other night is on its way."""

from concurrent.futures import Future
from concurrent.futures import wait as ended

import pytest

from tests.airflow.conftest import Night
from tests.airflow.deaths import killed_scheduler
from tests.airflow.surfaces import Stage

pytestmark = pytest.mark.airflow


@pytest.mark.proves("killed_scheduler", killed_scheduler.__doc__)
def test_the_night_outlives_its_scheduler(stage: Stage, nights: dict[Night, Future[None]]) -> None:
    ended(nights.values())
    killed_scheduler(stage)
