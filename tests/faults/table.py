"""The table of bad inputs: of tables, of configs and command lines, and of models."""

from tests.faults import configs, inputs, models

CASES = [*inputs.cases(), *configs.cases(), *models.cases()]
