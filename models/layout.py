"""The names of the files of a checkpoint; light, so that what is fitted already is known without torch."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class CheckpointLayout:
    """Where the files of a checkpoint lie."""

    folder: Path

    @property
    def model(self) -> Path:
        """What the network is, and the digest of every other file."""
        return self.folder / "model.json"

    @property
    def weights(self) -> Path:
        """One array for each entry of the network's state."""
        return self.folder / "weights.npz"

    @property
    def lists(self) -> Path:
        """Real lists, of a ranker: its inputs by name, and ``label``; there where fitting kept some."""
        return self.folder / "lists.npz"

    @property
    def vocabularies(self) -> Path:
        """``NAME.arrow`` for each feature."""
        return self.folder / "vocabularies"
