"""The front door: the command line, the config, and the one place that knows the order of the steps.

Read in this order: ``values``, ``tables``, ``sections``, ``config``, ``mistakes``, ``inputs``; the night: ``steps``,
``workers``, ``engines``, ``refused``, ``run``, ``terminal``, ``stopping``, ``night``, ``completion``, ``main``.

Beside them a module for each other group of verbs, with what it needs: ``init`` with ``look``, ``names``, ``guess``,
``draft`` and ``convert``; ``config_verbs`` with ``keys``; ``fit`` with ``bundles`` and ``course``; ``export``; ``plan``
with ``rates`` and ``estimate``; ``doctor``, ``releases``, ``recommend``; ``why`` with ``reasons``; ``report``;
``evaluate`` with ``answers`` and ``exact``; ``trend`` with ``dashboards``.
"""
