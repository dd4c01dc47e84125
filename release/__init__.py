"""Releases: judging a night and publishing it, whole or not at all.

Read in this order: ``content``, ``measure``, ``figures``, ``gates``, ``check``, ``pointer``, ``publish``, ``releases``,
``read``.
"""
