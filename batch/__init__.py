"""The night's computing: the steps prepare, items, index, interests and score, one module each; none imports another.

Below them, in the order to read: ``profile``, ``machine``, ``memory``, ``stages``, ``overlap``, ``bound``,
``session``, ``towers``, ``shards``, ``earlier``. Then the steps with what each rests on: ``place``, ``carried`` and
``prepare``; ``items`` and ``interests``; ``merge``, ``retrieve``, ``copied``, ``indexed``, ``ondisk``, ``ivf``,
``recall``, ``nprobe``, ``choose`` and ``index``; ``rules``, ``lists`` and ``score``. Who asks why an item is
recommended: ``clicks``, ``explain``. Who does the shards of a step on more than one machine: ``cluster``.
"""
