"""All tables of a night's histories, and the slow way to the same rows, one user at a time."""

from collections import Counter, defaultdict

import pyarrow as pa

from artifacts import schemas
from features.catalogue import encode_catalogue
from features.histories import Cut, open_histories
from features.ordered import Engine
from features.vocabulary import fit_vocabulary

NOW = 1_773_187_200  # the end of the data date, in seconds


def vocabularies_of(shop):
    """Item 40 is new since training, item 50 left the catalogue since."""
    known = [item for item, _ in shop.items if item not in (40, "40")]
    return {
        "item_id": fit_vocabulary("item_id", pa.array([*known, type(known[0])(50)], shop.item_type)),
        "brand": fit_vocabulary("brand", pa.array(["a", "b"])),
        "country": fit_vocabulary("country", pa.array(["be", "nl"])),
    }


def tables(shop, inputs, spec, day, scratch, **options):
    """Collect all tables of a night, by name; ``shards`` lists."""
    engine = Engine(scratch, options.pop("memory", "200MB"), options.pop("threads", 1))
    vocabularies = vocabularies_of(shop)
    catalogue, _ = encode_catalogue(inputs, spec=spec, vocabularies=vocabularies)
    cut = Cut(day, **options)
    with open_histories(
        inputs, catalogue=catalogue, spec=spec, vocabularies=vocabularies, cut=cut, engine=engine
    ) as night:
        user_type = pa.type_for_alias(shop.user_type)
        shape = schemas.histories(user_type, spec.item_features, spec.profile_features)
        return {
            "histories": [_rows(night, s, 0, shape) for s in range(cut.shards)],
            "seen": [_rows(night, s, 1, schemas.seen(user_type)) for s in range(cut.shards)],
            "sample": night.sample(),
            "popular": night.popular(),
            "replay": night.replay(),
            "counts": night.counts,
        }


def _rows(night, shard, place, schema):
    return pa.Table.from_batches([pair[place] for pair in night.users(shard)], schema)


def slow_histories(shop, spec):
    """Work the rows of ``histories`` and ``seen`` out from §2, one user at a time."""
    vocabularies = vocabularies_of(shop)
    brands = {item: brand for item, brand in shop.items if item not in shop.gone_items}
    rows = {item: row for row, item in enumerate(sorted(brands))}
    land = dict(shop.users)
    had = defaultdict(list)
    for user, item, ago in shop.events:
        if user is not None and item is not None and ago > 0:
            had[user].append((-ago, item))
    people = (set(land) | set(had)) - set(shop.gone_users)

    def row(feature, value):
        return int(vocabularies[feature].encode(pa.array([value], vocabularies[feature].values.type))[0])

    histories, seen = [], []
    for user in sorted(people):
        behaviours = sorted((b for b in had[user] if b[1] not in shop.gone_items), reverse=True)
        newest = behaviours[: spec.history_length]
        histories.append(
            {
                "user_id": user,
                "history_item_id": [row("item_id", item) for _, item in newest],
                "history_brand": [row("brand", brands.get(item)) for _, item in newest],
                "gap": [1 + sum(edge <= -at for edge in spec.gap_edges) for at, _ in newest],
                "profile_country": row("country", land.get(user)),
                "history_length": len(newest),
            }
        )
        times = Counter(rows[item] for _, item in behaviours if item in rows)
        last = {rows[item]: -at for at, item in reversed(behaviours) if item in rows}
        seen.append(
            {
                "user_id": user,
                "items": sorted(times),
                "times": [times[item] for item in sorted(times)],
                "last_gap": [last[item] for item in sorted(times)],
            }
        )
    return histories, seen
