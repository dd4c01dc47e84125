"""From the config to the few fields that each step of the night takes, and the call of the step itself."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from artifacts.bundle import Bundle, Role, read_bundle, require_one_model
from artifacts.errors import UsageError
from artifacts.run import Run, StepResult, replay_of
from artifacts.store import is_there, require_swaps
from artifacts.tables import read_sidecar
from nightrec.config import Config, semantic
from nightrec.values import bytes_of

if TYPE_CHECKING:
    from batch.lists import ScoreOptions
    from batch.profile import Device
    from batch.shards import Progress, Work
    from release.publish import Published
    from release.segments import Segments

_NO_BUNDLES = "the night needs a table [bundles] with the keys item and user; make them by `nightrec export`"


def threads_of(config: Config, processes: int) -> int:
    """Threads of each of so many processes: those of the config, or an even share of the cores."""
    from batch.machine import usable_cores

    return config.night.threads or max(1, usable_cores() // max(1, processes))


def bundle_of(config: Config, role: Role) -> Bundle | None:
    """Read and verify the config's bundle of a role; None for a ranker that is not configured.

    Raises:
        UsageError: If the config names none of the role, or it is of another role.
        CorruptError: If it is not whole.
    """
    if config.bundles is None:
        raise UsageError(_NO_BUNDLES)
    folder: str | None = getattr(config.bundles, str(role))
    if folder is None:
        return None
    bundle = read_bundle(Path(folder))
    if bundle.role is not role:
        raise UsageError(f"[bundles] {role}: expected a bundle of the role {role}, found {bundle.role} in {folder}")
    return bundle


def tower(config: Config, role: Role) -> Bundle:
    """Read the item or the user bundle, which every night has."""
    bundle = bundle_of(config, role)
    if bundle is None:
        raise UsageError(f"[bundles] the key '{role}' is missing")
    return bundle


def deadline_passed(config: Config, day: str) -> bool:
    """Whether a day whose input is missing is to be waited for no longer.

    The clock decides only how the command ends, never what a night contains.
    """
    if not config.day.deadline_hours:
        return False
    midnight = datetime.combine(date.fromisoformat(day), time(), ZoneInfo(config.surface.timezone))
    end = (midnight + timedelta(days=1)).astimezone(UTC)
    return datetime.now(UTC) > end + timedelta(hours=config.day.deadline_hours)


def rows_of(step: str, run: Run, shards: Sequence[int]) -> int | None:
    """How many rows a step will go through, for its progress; None where that is not known."""
    layout = run.layout
    if step == "items":
        return read_sidecar(layout.catalogue).rows * len(shards) // run.item_shards
    if step in {"interests", "score"}:
        return sum(read_sidecar(layout.histories(shard, run.shards)).rows for shard in shards)
    return None


def prepare(config: Config, day: str, seen_future: str, progress: "Progress") -> tuple[Run, StepResult]:
    """Do the step ``prepare``.

    Raises:
        NotReadyError: If the day's input is not there yet.
    """
    from batch.prepare import PrepareRequest
    from batch.prepare import prepare as prepare_run
    from nightrec.inputs import inputs_of

    if config.bundles is None:
        raise UsageError(_NO_BUNDLES)
    folders = (config.bundles.item, config.bundles.user, config.bundles.ranker)
    request = PrepareRequest(
        date=day,
        zone=config.surface.timezone,
        inputs=inputs_of(config),
        bundles=tuple(Path(folder) for folder in folders if folder is not None),
        semantic=semantic(config),
        shards=config.night.shards,
        item_shards=config.night.item_shards,
        groups=tuple(sorted({rule.group for rule in config.score.rules})),
        popular_days=config.history.popular_days,
        sample_users=config.index.sample_users,
        device=config.night.device,
        batch_users=config.night.batch_users,
        batch_items=config.night.batch_items,
        batch_lists=config.night.batch_lists,
        faiss_threads=config.night.faiss_threads,
        index_type=config.index.type,
        newest_within_seconds=round(config.day.newest_within_hours * 3600),
        min_share_of_median=config.day.min_share_of_median,
        weeks=config.day.weeks,
        threads=config.night.threads,
        memory=config.night.memory,
        keep_unchanged=config.night.keep_unchanged,
        seen_future=seen_future,
    )
    return prepare_run(config.root, request, progress=progress)


def items(config: Config, run: Run, threads: int) -> "Work":
    """Open the step ``items``, for ranges of the catalogue."""
    from batch.items import open_items

    bundle, earlier = tower(config, Role.ITEM), earlier_of(config, run)
    return open_items(run, bundle, earlier=earlier, device=config.night.device, threads=threads)


def interests(config: Config, run: Run, threads: int) -> "Work":
    """Open the step ``interests``, for shards of users."""
    from batch.interests import open_interests

    open_ = partial(open_interests, bundle=tower(config, Role.USER), device=config.night.device, threads=threads)
    return _with_replay(run, lambda one: open_(one, earlier=earlier_of(config, run) if one is run else ()))


def score(config: Config, run: Run, threads: int) -> "Work":
    """Open the step ``score``, for shards of users."""
    from batch.score import open_score

    ranker, options, device = bundle_of(config, Role.RANKER), score_options(semantic(config)), config.night.device
    return _with_replay(run, partial(open_score, ranker=ranker, options=options, device=device, threads=threads))


def _with_replay(run: Run, open_: Callable[[Run], "Work"]) -> "Work":
    """Open a step for shards of users; with the first of them it is done for the replay too."""
    work = open_(run)

    def do(shards: Sequence[int], advance: Callable[[int], None]) -> StepResult:
        if 0 in shards:
            open_(replay_of(run))([0], lambda rows: None)
        return work(shards, advance)

    return do


def index(config: Config, run: Run, threads: int) -> "Work":
    """Open the step ``index``, which has no shards."""
    from batch.index import build_index
    from batch.ivf import IndexOptions

    options = IndexOptions(
        type=config.index.type,
        lists=config.index.lists,
        recall_target=config.index.recall_target,
        recall_k=config.index.recall_k,
        seed=config.index.seed,
        popularity_weight=config.retrieve.popularity_weight,
        memory=bytes_of(config.index.memory),
    )
    user, earlier, device = tower(config, Role.USER), earlier_of(config, run), config.night.device
    build = partial(build_index, run, user, options, earlier=earlier, device=device, threads=threads)
    return lambda shards, advance: build(advance=advance)


def earlier_of(config: Config, run: Run) -> tuple[Run, ...]:
    """Find the runs whose vectors and lists may be kept; none where the config wants all computed."""
    from batch.earlier import earlier_runs

    return earlier_runs(config.root, run) if config.night.keep_unchanged else ()


def score_options(said: Mapping[str, Any]) -> "ScoreOptions":
    """What lists depend on, by the semantic part of a config, which a run keeps of the one it was prepared from."""
    from batch.lists import ScoreOptions
    from batch.rules import Rule

    retrieve, score = said["retrieve"], said["score"]
    return ScoreOptions(
        **{name: retrieve[name] for name in ("candidates", "overfetch", "exclude_seen", "exclude_days")},
        top_n=score["top_n"],
        rules=tuple(Rule(rule["group"], rule["at_most"]) for rule in score["rules"]),
    )


# Between `prepare` and `check`, in an order that works: each opens its step.
MODEL_STEPS = {"items": items, "index": index, "interests": interests, "score": score}


def check(config: Config, run: Run, channel: str, asked: Mapping[str, Any]) -> str:
    """Do the step ``check`` against the earlier release of *channel*, and tell which gates only warned.

    Args:
        config: The surface.
        run: What is judged.
        channel: Whose readers have had the earlier release.
        asked: From :func:`asked_of_gates`.

    Raises:
        RefusedError: If a gate fails.
    """
    from release.check import check as judge

    report = judge(run, config.root, channel=channel, memory=config.night.memory, threads=config.night.threads, **asked)
    said = f"{len(report.verdicts)} verdicts, none refuses"
    return "; ".join([said, *(f"warning: {verdict.line()}" for verdict in report.warned)])


def report(config: Config, run: Run, channel: str) -> list[str]:
    """Make the report of a checked run, unless it stands; gives what of it could not be made, one line each.

    Whatever goes wrong is said and fails nothing: a night is worth more than a page about it.
    """
    from release.verdicts import report_stands

    record = run.layout.record
    if not is_there(record.gates) or report_stands(record):
        return []
    try:
        from release.report import write_report

        asked = config.report.sample_users
        return write_report(run, config.root, bundles_of(config), sample_users=asked, channel=channel)
    except Exception as error:
        return [f"the whole report: {type(error).__name__}: {error}"]


def asked_of_gates(config: Config, run: Run) -> dict[str, Any]:
    """Give what a verdict depends on besides the nights: the gates, the segments and the models' last training days.

    Raises:
        UsageError: If a gate is unknown, or a segment is no profile feature of the models.
        StaleRunError: If the run was prepared for other bundles.
    """
    from batch.shards import require_bundle
    from release.gates import configured_gates

    bundles = bundles_of(config)
    for bundle in bundles:
        require_bundle(run, bundle)
    return {
        "gates": configured_gates(config.gates),
        "segments": segments_of(config, bundles),
        "trained_through": {str(bundle.role): bundle.trained_through for bundle in bundles},
    }


def segments_of(config: Config, bundles: Sequence[Bundle]) -> "Segments":
    """Read the names of the declared segments from the models' vocabularies.

    Args:
        config: Declares them.
        bundles: The models, verified.

    Raises:
        UsageError: If one is no profile feature of the models.
    """
    from features.vocabulary import load_vocabularies
    from release.segments import Segments

    values = {}
    for column in config.segments.columns:
        having = [bundle for bundle in bundles if column in bundle.spec.profile_features]
        if not having:
            raise UsageError(
                f"segments.columns: {column!r} is no profile feature of the models, and only by these are users told "
                "apart; fit them with it, or leave it out"
            )
        vocabulary = load_vocabularies(having[0].layout.vocabulary(column).parent, [column])[column]
        values[column] = tuple(str(value) for value in vocabulary.values.to_pylist())
    return Segments(values, config.segments.min_users)


def publish(config: Config, run: Run, *, override: str | None, supersede: str | None, channel: str) -> "Published":
    """Do the step ``publish``, which moves *channel*."""
    from release.publish import publish as publish_release

    return publish_release(run, config.root, override=override, supersede=supersede, channel=channel)


def bundles_of(config: Config) -> list[Bundle]:
    """Read and verify all bundles of the config, and see that they belong together.

    Raises:
        UsageError: If one is missing, or two are of different models.
        CorruptError: If one is not whole.
    """
    bundles = [bundle for role in Role if (bundle := bundle_of(config, role)) is not None]
    require_one_model(bundles)
    return bundles


def require_all(config: Config) -> "Device":
    """Refuse, before any data is read, what a later step would refuse; say what ``auto`` means here.

    Raises:
        UsageError: If a gate or a segment is unknown, or more neighbours are asked for than a GPU searches.
        DeviceError: If a GPU is asked for and there is none.
        StoreError: If the root's object store cannot be reached, refuses us, or ignores conditions.
    """
    from batch.profile import choose_device
    from release.gates import configured_gates

    require_swaps(config.root)
    configured_gates(config.gates)
    if config.segments.columns:  # else no bundle need be read for them
        segments_of(config, bundles_of(config))
    device = choose_device(config.night.device)
    if device.name == "gpu":
        from batch.retrieve import require_searchable

        require_searchable(device.name, k=score_options(semantic(config)).fetch)
    return device
