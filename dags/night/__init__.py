"""What the DAGs share: their settings, and how a step becomes a task.

Read in this order: ``settings``, ``step``; how the command is run: ``command``, ``container``, ``pod``; and ``told``.
"""
