"""The table of bad inputs: of tables, of times, of files, of configs and command lines, and of models."""

import tempfile
from pathlib import Path

from tests.faults import configs, files, inputs, models, moments
from tests.faults.ground import complaint
from tests.night.shop import Shop

CASES = [*inputs.cases(), *moments.cases(), *files.cases(), *configs.cases(), *models.cases()]


def complaint_of(shop: Shop, number: int) -> str:
    """Try one case of the table in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        return complaint(CASES[number], shop, Path(folder))
