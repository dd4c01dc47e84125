"""Bad configs and command lines: wrong types, unknown keys, impossible values, and files that are no config."""

from collections.abc import Iterator
from functools import partial

from tests.faults.ground import Case, Ground, Refused, say
from tests.night.shop import DATE

# What is replaced, by what, and the words that the message must have.
EDITS: dict[str, tuple[str, str, list[str]]] = {
    "an unknown key": ("shards = 3", "shard = 3", ["[night]", "'shard'", "did you mean 'shards'?"]),
    "an unknown table": ("[score]", "[scores]", ["'scores'", "did you mean 'score'?"]),
    "an unknown gate": ("[score]", "[gates]\nchrun = 0.5\n[score]", ["gates.chrun", "churn"]),
    "a number as text": ("shards = 3", 'shards = "3"', ["shards", "a whole number", "the text '3'"]),
    "a fraction of a shard": ("shards = 3", "shards = 3.5", ["shards", "a whole number", "3.5"]),
    "true as a number": ("shards = 3", "shards = true", ["shards", "a whole number", "true"]),
    "a list as a number": ("shards = 3", "shards = [3]", ["shards", "a whole number", "a list"]),
    "a number as a name": ('name = "shop"', "name = 7", ["[surface]", "name", "text", "7"]),
    "a name with a path in it": ('name = "shop"', 'name = "../shop"', ["[surface]", "name", "../shop"]),
    "no root": ('root = "store"', "", ["[surface]", "root", "missing"]),
    "an empty root": ('root = "store"', 'root = ""', ["[surface]", "root", "not empty"]),
    "no shards": ("shards = 3", "shards = 0", ["shards", "at least 1", "0"]),
    "shards below nothing": ("shards = 3", "shards = -3", ["shards", "at least 1", "-3"]),
    "more shards than names": ("shards = 3", "shards = 100000", ["shards", "at most 99999"]),
    "a zone that is nowhere": ("Europe/Berlin", "Europe/Berln", ["timezone", "time zone", "Europe/Berlin"]),
    "a device that is none": ("shards = 3", 'device = "tpu"\nshards = 3', ["device", "'cpu', 'gpu' or 'auto'", "tpu"]),
    "memory without a unit": ("shards = 3", 'memory = "4"\nshards = 3', ["memory", "4GB"]),
    "memory below nothing": ("shards = 3", 'memory = "-4GB"\nshards = 3', ["memory", "4GB"]),
    "an infinite number": ("[score]", "[day]\ndeadline_hours = inf\n[score]", ["deadline_hours", "finite number"]),
    "no number": ("[score]", "[day]\nnewest_within_hours = nan\n[score]", ["newest_within_hours", "number"]),
    "a share above one": ("lists = 3", "recall_target = 1.5\nlists = 3", ["recall_target", "at most 1", "1.5"]),
    "weeks beyond the calendar": ("[score]", "[day]\nweeks = 9999999\n[score]", ["weeks", "at most 520"]),
    "days beyond the calendar": ("[score]", "[history]\npopular_days = 999999999\n[score]", ["popular_days", "36525"]),
    "hours beyond the calendar": ("[score]", "[day]\ndeadline_hours = 1e300\n[score]", ["deadline_hours", "at most"]),
    "a number of thirty digits": ("lists = 3", f"lists = {10**30}", ["lists", "at most"]),
    "a seed of thirty digits": ("lists = 3", f"seed = {10**30}\nlists = 3", ["seed", "at most"]),
    "a batch that no memory holds": ("batch_users = 32", "batch_users = 10000000", ["batch_users", "65535"]),
    "a million threads": ("shards = 3", "threads = 1000000\nshards = 3", ["threads", "1024"]),
    "a million workers": ("workers = 1", "workers = 1000000", ["workers", "1024"]),
    "a recall of nothing": ("lists = 3", "recall_target = 0.0\nlists = 3", ["recall_target", "above 0"]),
    "an index that is none": ("lists = 3", 'type = "HNSW"\nlists = 3', ["type", "'Flat', 'SQ8', 'PQ' or 'auto'"]),
    "more to choose from than can be": ("candidates = 20", "candidates = 70000", ["candidates", "65535", "70000"]),
    "less than one time as many": ("candidates = 20", "candidates = 20\noverfetch = 0.5", ["overfetch", "at least 1"]),
    "a thousand times as many": ("candidates = 20", "candidates = 20\noverfetch = 1000.0", ["overfetch", "100"]),
    "days that are centuries": ("candidates = 20", "candidates = 20\nexclude_days = 99999", ["exclude_days", "36525"]),
    "recall of more than can be": ("recall_k = 20", "recall_k = 70000", ["recall_k", "65535"]),
    "a list longer than its candidates": ("top_n = 10", "top_n = 21", ["top_n", "candidates = 20", "21"]),
    "a list of nothing": ("top_n = 10", "top_n = 0", ["top_n", "at least 1"]),
    "a rule about nothing": ('group = "category"', 'group = "brand"', ["score.rules", "brand"]),
    "a rule that allows nothing": ("at_most = 4", "at_most = 0", ["at_most", "at least 1"]),
    "a rule without a limit": (", at_most = 4", "", ["at_most", "missing"]),
    "seen by a word that is none": ("candidates = 20", 'candidates = 20\nexclude_seen = "some"', ["exclude_seen"]),
    "a feature called as a column of ours": (
        'category = "category"',
        'category = "category", item_id = "x"',
        ["features", "item_id"],
    ),
    "a feature of both": ('country = "country"', 'country = "country", category = "x"', ["category", "in both"]),
    "an empty column name": ('title = "title"', 'title = ""', ["title", "not empty"]),
    "no items": ("[inputs.items]", "[inputs.itms]", ["items"]),
    "neither events nor histories": ("[inputs.interactions]", "[inputs.interaction]", ["interaction"]),
    "events and histories": (
        "[inputs.items]",
        '[inputs.histories]\npath = "x"\n[inputs.items]',
        ["'interactions' and 'histories'", "not both"],
    ),
    "a time unit that is none": ("[inputs.items]", 'time_unit = "h"\n[inputs.items]', ["time_unit", "'us'"]),
    "bundles without a user's": ("\nuser = ", "\nusr = ", ["[bundles]", "usr", "did you mean 'user'?"]),
    "bundles of two roles mixed up": ("bundles/item", "bundles/user", ["bundle", "item", "user"]),
    "a bundle that is not there": ("bundles/ranker", "bundles/rankr", ["bundles/rankr", "nightrec export"]),
    "no text of TOML": ("[surface]", "[surface", ["expected TOML"]),
    "a key twice": ("shards = 3", "shards = 3\nshards = 4", ["expected TOML"]),
    "a gate without a bound": ("[score]", "[gates]\nchurn = nan\n[score]", ["gates.churn", "finite"]),
    "a gate that cannot be moved": ("[score]", "[gates]\nnot_finite = 3\n[score]", ["not_finite", "cannot be moved"]),
    "a gate's key that is none": ("[score]", '[gates]\nchurn = { bund = 1 }\n[score]', ["gates.churn", "bund"]),
}  # fmt: skip

ARGUMENTS: dict[str, tuple[str, tuple[str, ...], list[str]]] = {
    "a date that is none": ("prepare", ("--date", "2026-02-30"), ["YYYY-MM-DD", "2026-02-30"]),
    "a date in words": ("prepare", ("--date", "yesterday"), ["YYYY-MM-DD", "yesterday"]),
    "a moment as a date": ("prepare", ("--date", "2026-03-31T00:00:00"), ["YYYY-MM-DD"]),
    "the first day of the calendar": ("prepare", ("--date", "0001-01-01"), ["--date", "1970 to 2199"]),
    "the last day of the calendar": ("prepare", ("--date", "9999-12-31"), ["--date", "1970 to 2199"]),
    "an option that is none": ("prepare", ("--sharrd", "0/1"), ["--sharrd"]),
    "a verb that is none": ("prepair", (), ["prepair"]),
    "no workers": ("run", ("--workers", "0"), ["--workers"]),
    "a blank reason": ("run", ("--override", "  "), ["--override", "reason"]),
    "a config that is a folder": ("prepare", ("--config", "/"), ["/", "config"]),
}


def cases() -> Iterator[Case]:
    """Every case of bad configs and command lines; all of them are found before any data is read."""
    for name, (old, new, words) in EDITS.items():
        yield Case(f"config: {name}", partial(_edited, old, new), Refused([2], words))
    for name, content in {
        "of zero bytes": b"",
        "of no text": b"\xff\xfe\x00",
        "that is another file": b"PAR1" * 9,
    }.items():
        yield Case(f"config {name}", partial(_written, content), Refused([2], ["job.toml"]))
    yield Case(
        "config that is not there", lambda ground: ground.config.unlink(), Refused([2], ["job.toml", "--config"])
    )
    for name, (verb, more, words) in ARGUMENTS.items():
        yield Case(f"command: {name}", lambda ground: None, Refused([2], words), verb, more=more)
    for text in ("3/3", "1-0/3", "0/4", "-1/3", "a/3", "0", "0/0", "0-9/3", "", "1/3/3"):
        expects = Refused([2], ["--shard"])
        yield Case(f"command: --shard {text!r}", _prepared, expects, "interests", more=("--shard", text))
    for text in ("2/2", "-1/2", "a/b", "1", "0/0", "", "0/-1"):
        expects = Refused([2], ["--group"])
        yield Case(f"command: --group {text!r}", _prepared, expects, "interests", more=("--group", text))


def _edited(old: str, new: str, ground: Ground) -> None:
    ground.edit(old, new)


def _written(content: bytes, ground: Ground) -> None:
    ground.config.write_bytes(content)


def _prepared(ground: Ground) -> None:
    assert say("prepare", "--config", ground.config, "--date", DATE).code == 0
