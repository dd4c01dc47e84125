import platform
import subprocess
import sys

import pytest

HELD = """
import sys
import numpy as np
from models.memory import keep_what_is_freed

def resident():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon:")).split()[1]) >> 10

if sys.argv[1] == "kept":
    keep_what_is_freed()
before = resident()
large = np.ones(256 << 17)
assert resident() - before > 250, "256 MB are in use"
del large
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps memory in its own way")
@pytest.mark.parametrize(("how", "least", "most"), [("kept", 250, 260), ("plain", -5, 10)])
def test_freed_memory_stays_with_the_process_that_asks_for_it(how: str, least: int, most: int) -> None:
    """Megabytes that are still held after 256 of them were freed."""
    asked = subprocess.run([sys.executable, "-c", HELD, how], check=True, capture_output=True, text=True)
    assert least < int(asked.stdout) < most
