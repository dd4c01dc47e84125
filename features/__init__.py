"""Features: what a model is told of users and items, encoded by one code path for training, export and the night.

Read in this order: ``types``, ``hashing``, ``vocabulary``, ``encode``, ``cross``; the input tables: ``inputs``,
``times``, ``day``, ``weights``, ``events``; what is made of them: ``catalogue``, ``streams``, ``carried``,
``database``, ``ordered``, ``mapped``, ``histories``, ``sequences``.
"""
