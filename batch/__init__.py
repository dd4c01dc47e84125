"""The night's computing: prepare, items, index, interests, score.

Two floors. Below: ``profile``, ``overlap``, ``session``, ``towers``, ``shards``, ``retrieve``. Above, one module a
step; no step imports another.
"""
