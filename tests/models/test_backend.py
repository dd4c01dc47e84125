import os
import subprocess
import sys


def python(code, **environment):
    inherited = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    return subprocess.run(
        [sys.executable, "-c", code], env=inherited | environment, capture_output=True, text=True, check=False
    )


def test_the_backend_is_torch_and_the_environment_is_left_alone():
    """Keras runs on torch without a setting; a process that is started later inherits none."""
    code = "import os; from models.backend import keras; print(keras.backend.backend(), 'KERAS_BACKEND' in os.environ)"
    assert python(code).stdout.split() == ["torch", "False"]


def test_another_backend_is_refused_by_name():
    """Keras that was imported on another backend before is an error that says what to do."""
    other = (
        "import sys, types; sys.modules['keras'] = types.SimpleNamespace(backend=types.SimpleNamespace(backend=str))"
    )
    finished = python(other.replace("backend=str", "backend=lambda: 'jax'") + "; import models.backend")
    assert finished.returncode != 0
    assert "found it imported on jax; set KERAS_BACKEND=torch" in finished.stderr
