"""The front door: the command line, the config, and the one place that knows the order of the steps.

Read in this order: ``config``, ``mistakes``, ``sections``, ``inputs``, ``steps``, ``workers``, ``run``, ``terminal``,
``night``, ``main``; beside them a module for each other group of verbs: ``fit``, ``export``, ``releases``,
``recommend``, ``plan``, ``doctor``.
"""
