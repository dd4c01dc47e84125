"""Releases: judging a night, publishing it whole or not at all, and showing what it was.

Judging, in the order to read: ``content``, ``query``, ``measure``, ``overlap``, ``segments``, ``quality``, ``figures``,
``gate``, ``gates``, ``history``, ``changes``, ``verdicts``, ``check``.

Publishing, and what comes after it: ``pointer``, ``pins``, ``publish``, ``read``, ``pair``, ``releases``, ``diff``,
``ids``, ``without``, ``revise``, ``prune``.

Showing: ``nights``, ``metrics``, ``alerts``; ``page`` and ``charts`` are what pages are made with; ``subject``,
``evidence`` and ``report`` with a module for each part (``report_verdict``, ``report_flow``, ``report_lists``,
``report_catalogue``, ``report_people``, ``report_work``); ``trend``; ``refusal``.
"""
