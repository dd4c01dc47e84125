"""The doctor: what it calls a problem, from what is installed elsewhere."""

import json

import pytest

from artifacts.errors import DeviceError
from nightrec import doctor
from nightrec.doctor import Finding, cuda_majors, faiss_gpus, one_wheel
from nightrec.main import execute

ORT_13 = ["numpy>=1.21", "nvidia-cublas~=13.0 ; extra == 'cuda'", "nvidia-cudnn-cu13~=9.0 ; extra == 'cudnn'"]
ORT_12 = ["nvidia-cublas-cu12~=12.0 ; extra == 'cuda'", "nvidia-cudnn-cu12~=9.0 ; extra == 'cudnn'"]
FAISS_12 = ["numpy<3.0", "nvidia-cuda-runtime-cu12<13,>=12.6", "nvidia-cublas-cu12<13,>=12.6"]
GPU_WHEELS = {"onnxruntime-gpu": "1.26.0", "faiss-gpu": "1.15.1"}


def test_one_wheel_is_well() -> None:
    """Exactly one of the wheels that share their files is what is wanted."""
    finding = one_wheel("ONNX Runtime", ("onnxruntime", "onnxruntime-gpu"), {"onnxruntime": "1.32.0"})

    assert finding == Finding("ONNX Runtime", "onnxruntime 1.32.0")


def test_both_wheels_are_a_problem_with_a_remedy() -> None:
    """Pip says nothing of it; we name both, and how to be rid of them."""
    versions = {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.26.0"}

    problem = one_wheel("ONNX Runtime", ("onnxruntime", "onnxruntime-gpu"), versions).problem

    assert "onnxruntime 1.32.0 and onnxruntime-gpu 1.26.0" in problem
    assert "pip uninstall onnxruntime onnxruntime-gpu" in problem


def test_no_wheel_is_a_problem() -> None:
    """Without a runtime there is no night."""
    assert "nightrec[cpu]" in one_wheel("FAISS", ("faiss-cpu", "faiss-gpu"), {}).problem


@pytest.mark.parametrize(
    ("requirements", "versions", "mismatched"),
    [
        (
            {"onnxruntime-gpu": ORT_13, "faiss-gpu": FAISS_12},
            {"onnxruntime-gpu": "1.31.1", "faiss-gpu": "1.15.1"},
            True,
        ),
        (
            {"onnxruntime-gpu": ORT_12, "faiss-gpu": FAISS_12},
            {"onnxruntime-gpu": "1.26.0", "faiss-gpu": "1.15.1"},
            False,
        ),
        ({"torch": [], "faiss-gpu": FAISS_12}, {"torch": "2.13.0+cu130", "faiss-gpu": "1.15.1"}, True),
        ({"torch": [], "faiss-gpu": FAISS_12}, {"torch": "2.13.0+cpu", "faiss-gpu": "1.15.1"}, False),
        ({"torch": []}, {"torch": "2.13.0"}, False),
    ],
)
def test_two_majors_of_cuda_are_a_problem(
    requirements: dict[str, list[str]], versions: dict[str, str], mismatched: bool
) -> None:
    """Libraries built for CUDA 12 and 13 do not share one process; the message names who wants which."""
    finding = cuda_majors(requirements, versions)

    assert bool(finding.problem) == mismatched
    if mismatched:
        assert "for CUDA 12" in finding.problem
        assert "for CUDA 13" in finding.problem


def test_a_faiss_for_gpus_that_sees_none_is_a_problem() -> None:
    """It would search on the CPU, as if nothing were wrong."""
    assert "sees no GPU" in faiss_gpus(0).problem
    assert faiss_gpus(2) == Finding("FAISS GPUs", "2")


def test_a_problem_ends_with_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is not well is not called healthy."""
    monkeypatch.setattr(doctor, "examine", lambda: [Finding("FAISS", "none", "install it")])

    with pytest.raises(DeviceError, match="FAISS: install it"):
        doctor.doctor()


def test_machines_are_told_every_finding_of_a_machine_that_is_not_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With `--json` a problem ends with code 1 too, and the one object holds all that was found."""
    monkeypatch.setattr(doctor, "examine", lambda: [Finding("python", "3.11"), Finding("FAISS", "none", "install it")])

    code = execute(["doctor", "--json"])

    answered = json.loads(capsys.readouterr().out)
    assert code == 1
    assert answered["healthy"] is False
    assert [finding["problem"] for finding in answered["findings"]] == ["", "install it"]
