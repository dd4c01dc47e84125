"""The marks of tests that need a GPU: skipped, with the reason, where none can be used."""

import pytest

from artifacts.errors import DeviceError
from batch.profile import choose_device


def _why_none() -> str:
    """Say why no GPU can be used here; nothing if one can."""
    try:
        choose_device("gpu")
    except DeviceError as error:
        return str(error)
    return ""


NEED_GPU = [pytest.mark.gpu, pytest.mark.skipif(bool(_why_none()), reason=_why_none())]
