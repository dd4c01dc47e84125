"""The command as a child process: what it says is passed on line by line, and it never outlives its parent."""

import ctypes
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence

_GRACE_SECONDS = 10.0  # between being asked to stop and being stopped
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_AIRFLOWS_OWN = ("AIRFLOW__", "_AIRFLOW_", "__AIRFLOW_")  # its settings and secrets are none of the command's


class Command:
    """One run of a command; it may be told to stop from a signal handler, at any moment."""

    def __init__(self, line: Sequence[str], environment: Mapping[str, str]) -> None:
        """Take the command line, and the variables of which the command gets all but Airflow's own."""
        self._line = list(line)
        self._environment = {name: value for name, value in environment.items() if not name.startswith(_AIRFLOWS_OWN)}
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False

    def run(self, told: Callable[[str], None]) -> tuple[int, str]:
        """Run it to its end.

        Args:
            told: Is told each line of standard error as it comes.

        Returns:
            The exit code, negative where a signal ended it, and all of standard output.
        """
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
            self._process = subprocess.Popen(
                self._line,
                stdin=subprocess.DEVNULL,  # ours is a socket of Airflow's
                stdout=output,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
                env=self._environment,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - it is one system call
            )
            if self._stopped:
                self.stop()
            assert self._process.stderr is not None
            with self._process.stderr as lines:
                try:
                    for line in lines:
                        told(line.rstrip())
                    code = self._process.wait()
                except BaseException:  # its time is over, say: whoever tries again finds nobody at work
                    self.stop()
                    self._process.wait()
                    raise
            output.seek(0)
            return code, output.read()

    def stop(self) -> None:
        """Ask the command to stop, and stop it if it has not done so in time; return at once."""
        self._stopped = True
        if self._process is not None:
            self._process.terminate()
            last = threading.Timer(_GRACE_SECONDS, self._process.kill)
            last.daemon = True
            last.start()


def _end_with_parent() -> None:
    """Have the kernel ask the command to stop when its parent is gone, killed with -9 or out of memory, say."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
