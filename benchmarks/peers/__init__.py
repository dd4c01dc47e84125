"""What a user would pick instead, beside ours: ``environment`` and ``conversation`` first, then a pair for each peer.

``index`` and ``with_autofaiss``, ``interests`` and ``with_ray_data``, ``mind`` and ``with_torch_rechub``: the first
runs in our environment and prints the figure, the second in the peer's own, and imports nothing of ours but
``conversation``.
"""
