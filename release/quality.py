"""Offline quality: what people did on the data date, against the lists that they had and that they would have had.

The replay holds the lists that tonight's models make of a sample of users as they stood when the data date began. The
earlier release holds those that readers had. Neither knows the data date, so what was done on it judges both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from artifacts.run import Run, replay_of
from artifacts.tables import read_table, verify_file
from release.content import Content, batches_of

QUALITY_TOP = 50  # ranks in which an event counts as a hit
LEAST_EVENTS, LEAST_USERS = 30, 5  # of fewer no interval can be taken; of few it is wide
_Z95 = 1.644854  # of one side


@dataclass(frozen=True, slots=True)
class Hits:
    """Events of the data date that stood in the first ranks of their users' lists.

    Attributes:
        users: Who did something on the data date, and are in the replay and in the earlier release.
        events: Theirs.
        before: Those that the earlier release had listed.
        now: Those that the replay lists.
        error: Standard error of ``now - before``, over users.
    """

    users: int
    events: int
    before: int
    now: int
    error: float

    @property
    def enough(self) -> bool:
        """Whether anything can be said."""
        return self.users >= LEAST_USERS and self.events >= LEAST_EVENTS and self.before > 0

    @property
    def certain_loss(self) -> float:
        """The share of the earlier hits that is lost for sure: the lower end of the loss's 95 % interval, at least 0.

        Raises:
            ZeroDivisionError: If there were none.
        """
        return max(0.0, (self.before - self.now - _Z95 * self.error) / self.before)


def count_hits(run: Run, earlier: Content, items: pa.Array) -> Hits:
    """Compare the replay of *run* with the *earlier* release on what their common users did on the data date.

    Args:
        run: Its replay is done; its tables are verified here.
        earlier: Verified tables.
        items: Ids of tonight's catalogue, by catalogue row.
    """
    replay = replay_of(run)
    happened = read_table(replay.layout.happened)
    users = happened["user_id"].combine_chunks()
    lists = happened["items"].combine_chunks()
    owners = np.repeat(np.arange(len(users)), lists.value_lengths().to_numpy())
    wanted = np.sort(owners * len(items) + lists.flatten().to_numpy())
    scores = replay.layout.scores(0, 1)
    verify_file(scores)
    now, there_now = _hits([scores], users, items, wanted)
    before, there_before = _hits(earlier.scores, users, items, wanted)
    both = there_now & there_before & (np.bincount(owners, minlength=len(users)) > 0)
    gained = (now - before)[both]
    error = float(np.sqrt(len(gained) * gained.var(ddof=1))) if len(gained) > 1 else 0.0
    events = int(np.count_nonzero(both[owners]))
    return Hits(len(gained), events, int(before[both].sum()), int(now[both].sum()), error)


def _hits(
    shards: Sequence[Path], users: pa.Array, items: pa.Array, wanted: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Count for each of *users* the wanted pairs of user and item that are listed, and tell who has a list at all."""
    hits, there = np.zeros(len(users), np.int64), np.zeros(len(users), bool)
    for batch in batches_of(shards, ["user_id", "item_id", "rank"]):
        owner = pc.fill_null(pc.index_in(batch.column("user_id"), value_set=users), -1).to_numpy(zero_copy_only=False)
        kept = (owner >= 0) & (batch.column("rank").to_numpy() <= QUALITY_TOP)
        ids = batch.column("item_id").filter(pa.array(kept))
        row = pc.fill_null(pc.index_in(ids, value_set=items), -1).to_numpy(zero_copy_only=False)
        pairs = owner[kept].astype(np.int64) * len(items) + row
        place = np.searchsorted(wanted, pairs)
        hit = (row >= 0) & (place < len(wanted))
        hit[hit] = wanted[place[hit]] == pairs[hit]
        hits += np.bincount(owner[kept][hit], minlength=len(users))
        there[owner[kept]] = True
    return hits, there
