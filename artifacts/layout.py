"""The names of all files and folders of a bundle, a run and a release; no other module spells one out."""

from dataclasses import dataclass
from pathlib import Path

SIDECAR_SUFFIX = ".done.json"


def shard_name(shard: int, shards: int) -> str:
    """Name the file of one shard: ``shard_name(3, 64) == "00003-of-00064.arrow"``."""
    return f"{shard:05d}-of-{shards:05d}.arrow"


def sidecar_of(path: Path) -> Path:
    """Name the sidecar that says that the file at *path* is done."""
    return path.with_name(path.name + SIDECAR_SUFFIX)


@dataclass(frozen=True, slots=True)
class BundleLayout:
    """A bundle: one model graph with all that is needed to feed and to trust it."""

    folder: Path

    @property
    def contract(self) -> Path:  # noqa: D102
        return self.folder / "bundle.json"

    @property
    def graph(self) -> Path:  # noqa: D102
        return self.folder / "model.onnx"

    @property
    def external_data(self) -> Path:
        """Weights over 2 GB; absent in a smaller bundle."""
        return self.folder / "model.onnx.data"

    @property
    def canary(self) -> Path:
        """64 input rows with the outputs that the exporter saw."""
        return self.folder / "canary.arrow"

    def vocabulary(self, feature: str) -> Path:
        """The vocabulary of one feature."""
        return self.folder / "vocabularies" / f"{feature}.arrow"


@dataclass(frozen=True, slots=True)
class RunLayout:
    """A run: everything one night computes before it is published."""

    folder: Path

    @property
    def run(self) -> Path:
        """What was asked, and of which inputs; written last by ``prepare``."""
        return self.folder / "run.json"

    @property
    def prepare(self) -> Path:  # noqa: D102
        return self.folder / "prepare"

    @property
    def catalogue(self) -> Path:  # noqa: D102
        return self.prepare / "catalogue.arrow"

    @property
    def popular(self) -> Path:  # noqa: D102
        return self.prepare / "popular.arrow"

    @property
    def sample(self) -> Path:
        """The users of the fixed sample, as rows of ``histories``."""
        return self.prepare / "sample.arrow"

    def histories(self, shard: int, shards: int) -> Path:  # noqa: D102
        return self.prepare / "histories" / shard_name(shard, shards)

    def seen(self, shard: int, shards: int) -> Path:  # noqa: D102
        return self.prepare / "seen" / shard_name(shard, shards)

    def items(self, shard: int, shards: int) -> Path:  # noqa: D102
        return self.folder / "items" / shard_name(shard, shards)

    def interests(self, shard: int, shards: int) -> Path:  # noqa: D102
        return self.folder / "interests" / shard_name(shard, shards)

    def scores(self, shard: int, shards: int) -> Path:  # noqa: D102
        return self.folder / "scores" / shard_name(shard, shards)

    def carried(self, part: str) -> Path:
        """What the next night carries on: ``items``, ``users`` or ``events``; no other step reads it."""
        return self.folder / "carried" / f"{part}.arrow"

    @property
    def index(self) -> "IndexLayout":  # noqa: D102
        return IndexLayout(self.folder / "index")

    @property
    def timings(self) -> Path:
        """How long its steps took, wherever they were done; a release takes it into its record."""
        return self.folder / "timings.json"

    @property
    def record(self) -> "RecordLayout":
        """Gate results; a refused night has them too."""
        return RecordLayout(self.folder / "record")


@dataclass(frozen=True, slots=True)
class ReplayLayout(RunLayout):
    """The replay of a run: a sample of users as they stood a day before, before the same catalogue and index."""

    @property
    def popular(self) -> Path:  # noqa: D102
        return self.prepare / "replay" / "popular.arrow"

    @property
    def happened(self) -> Path:
        """What these users did on the data date."""
        return self.prepare / "replay" / "happened.arrow"

    def histories(self, shard: int, shards: int) -> Path:  # noqa: D102
        return self.prepare / "replay" / "histories" / shard_name(shard, shards)

    def seen(self, shard: int, shards: int) -> Path:  # noqa: D102
        return self.prepare / "replay" / "seen" / shard_name(shard, shards)

    def interests(self, shard: int, shards: int) -> Path:  # noqa: D102
        return self.folder / "replay" / "interests" / shard_name(shard, shards)

    def scores(self, shard: int, shards: int) -> Path:  # noqa: D102
        return self.folder / "replay" / "scores" / shard_name(shard, shards)


@dataclass(frozen=True, slots=True)
class IndexLayout:
    """The index: FAISS file, its rows' item ids, and how it was chosen."""

    folder: Path

    @property
    def ivf(self) -> Path:  # noqa: D102
        return self.folder / "ivf.faiss"

    @property
    def items(self) -> Path:  # noqa: D102
        return self.folder / "items.arrow"

    @property
    def parameters(self) -> Path:  # noqa: D102
        return self.folder / "index.json"


@dataclass(frozen=True, slots=True)
class RecordLayout:
    """The record: what was judged and how long it took. Outside the manifest and the content digest."""

    folder: Path

    @property
    def contents(self) -> Path:
        """Checksums of the other files here, written last."""
        return self.folder / "record.json"

    @property
    def gates(self) -> Path:  # noqa: D102
        return self.folder / "gates.json"

    @property
    def timings(self) -> Path:  # noqa: D102
        return self.folder / "timings.json"

    @property
    def run(self) -> Path:
        """What a release was made with: its run's ``run.json``, library versions and all."""
        return self.folder / "run.json"

    @property
    def revision(self) -> Path:
        """Which releases a revised one comes from, by whom and why; absent in others."""
        return self.folder / "revision.json"

    @property
    def report(self) -> Path:  # noqa: D102
        return self.folder / "report.html"


@dataclass(frozen=True, slots=True)
class ReleaseLayout:
    """A release: the published content of a run, with its manifest, and the record beside it."""

    folder: Path

    @property
    def manifest(self) -> Path:
        """Size, sha256 and rows of every content file; written last."""
        return self.folder / "manifest.json"

    @property
    def items(self) -> Path:
        """Folder of the item vectors, named and cut as in the run."""
        return self.folder / "items"

    @property
    def interests(self) -> Path:
        """Folder of the users' interest vectors, named and cut as in the run."""
        return self.folder / "interests"

    @property
    def scores(self) -> Path:
        """Folder of the recommendations, named and cut as in the run."""
        return self.folder / "scores"

    @property
    def index(self) -> IndexLayout:  # noqa: D102
        return IndexLayout(self.folder / "index")

    @property
    def record(self) -> RecordLayout:  # noqa: D102
        return RecordLayout(self.folder / "record")


@dataclass(frozen=True, slots=True)
class RootLayout:
    """A surface's root: its runs, its releases and the pointers that readers follow."""

    folder: Path

    def run(self, date: str, run_key: str) -> RunLayout:  # noqa: D102
        return RunLayout(self.folder / "runs" / date / run_key)

    def current_run(self, date: str) -> Path:
        """Names the run that the last ``prepare`` of *date* made or found."""
        return self.folder / "runs" / date / "current.json"

    def refusal(self, date: str) -> Path:
        """The page of a night of *date* that was refused before its gates could judge it; absent once it is done."""
        return self.folder / "runs" / date / "refused.html"

    def request(self, date: str, fingerprint: str) -> Path:
        """From the digest of what was asked to the run that answers it."""
        return self.folder / "runs" / date / "requests" / f"{fingerprint}.json"

    @property
    def runs(self) -> Path:  # noqa: D102
        return self.folder / "runs"

    @property
    def pins(self) -> Path:
        """Folder of the releases that are to be kept."""
        return self.folder / "pins"

    def pin(self, version: str) -> Path:
        """Who keeps a release, and why."""
        return self.pins / f"{version}.json"

    @property
    def claims(self) -> Path:
        """Folder of what is about to be pointed at: names of releases, each with a number of its own behind."""
        return self.folder / "claims"

    def condemned(self, version: str) -> Path:
        """Says that a release is being removed; what was begun is finished by the next ``prune``."""
        return self.folder / "condemned" / f"{version}.json"

    @property
    def releases(self) -> Path:  # noqa: D102
        return self.folder / "releases"

    def release(self, version: str) -> ReleaseLayout:  # noqa: D102
        return ReleaseLayout(self.releases / version)

    @property
    def latest(self) -> Path:  # noqa: D102
        return self.folder / "LATEST"

    def channel(self, name: str) -> Path:
        """Another pointer than LATEST."""
        return self.folder / "channels" / name
