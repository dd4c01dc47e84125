"""Features: what a model is told of users and items, encoded by one code path for training, export and the night.

Read in this order: ``vocabulary``, ``encode``, ``cross``, ``inputs``, ``times``, ``events``, ``catalogue``,
``ordered``, ``histories``, ``sequences``.
"""
