"""Every peer's own environment under ``.venv-peers/``, of the versions that ``NAME.txt`` beside this module pins.

``python -m benchmarks.peers.environment [NAME ...]`` makes those that are not there; by default all.
"""

import subprocess
import sys
import sysconfig
from pathlib import Path

PEERS = ("autofaiss", "ray-data", "torch-rechub")
FOLDER = Path(".venv-peers")
PINS = Path(__file__).parent
WITH_OUR_TORCH = {"torch-rechub"}  # it takes any, and so it is given the very files that our models run on


def interpreter_of(peer: str) -> Path | None:
    """Make the environment of *peer*, if it is not there as pinned; where it cannot be made, say so and give None."""
    pins, folder = PINS / f"{peer}.txt", FOLDER / peer
    python, installed = folder / "bin" / "python", folder / "installed.txt"
    if installed.exists() and installed.read_bytes() == pins.read_bytes():
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    if peer in WITH_OUR_TORCH:
        _look_into_ours_last(python)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", pins]
    finished = subprocess.run(install, stderr=subprocess.PIPE, text=True, check=False)
    if finished.returncode:
        reason = next((line for line in finished.stderr.splitlines() if line.startswith("ERROR")), "no reason given")
        print(f"{peer} cannot be installed, and so is not measured: {reason}", file=sys.stderr)
        return None
    installed.write_bytes(pins.read_bytes())
    return python


def _look_into_ours_last(python: Path) -> None:
    """Let an environment find what ours has, after its own."""
    ask = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    theirs = Path(subprocess.check_output(ask, text=True).strip())
    (theirs / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")


if __name__ == "__main__":
    made = [interpreter_of(peer) for peer in sys.argv[1:] or PEERS]
    sys.exit(None in made)
