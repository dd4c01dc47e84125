"""The table of bad inputs: of tables, of times, of files, of configs and command lines, and of models."""

from tests.faults import configs, files, inputs, models, moments

CASES = [*inputs.cases(), *moments.cases(), *files.cases(), *configs.cases(), *models.cases()]
