"""What a job of quality prints: a line for each thing that is measured, with the processor's seconds that it took."""

import os
from collections.abc import Mapping

SHOWN = ("all.hr@50", "new.hr@50", "all.ndcg@10", "new.ndcg@10")


def spent() -> float:
    """Give the seconds that this process and its children have had of a processor."""
    return sum(os.times()[:4])


class Lines:
    """The lines of one job; each says how much was spent since the one before."""

    def __init__(self, job: str) -> None:
        """Begin to count for *job*, a data set and a seed."""
        self.job = job
        self.begun = self.last = spent()

    def tell(self, what: str, measured: Mapping[str, float], how: str = "") -> None:
        """Print some figures, at once: jobs go on side by side."""
        now = spent()
        kept = {key: measured[key] for key in SHOWN if key in measured} or measured
        figures = "  ".join(f"{key} {value:.3f}" for key, value in kept.items())
        print(f"  {self.job}, {what}: {figures}  {how}  [{now - self.last:.0f} s]", flush=True)
        self.last = now

    def finish(self) -> None:
        """Say what the whole job took."""
        print(f"{self.job}: {spent() - self.begun:.0f} s of one processor", flush=True)
