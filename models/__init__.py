"""The networks, MIND (retrieval) and BST (ranking), and their training: torch modules that export as they stand.

Read in this order: ``embedding``, ``attention``, ``mind``, ``folded``, ``bst``; then ``layout``, ``checkpoint``,
``losses``, ``events``, ``examples``, ``protocol``, ``lists``, ``candidates``, ``options``, ``backend``, ``memory``,
``trainers``, ``batches``, ``progress``, ``course``, ``loop``, ``warm``, ``fit`` and ``evaluate``.

Each network's ``forward`` takes its inputs in the order of ``artifacts.bundle.input_names``, and nothing in it is
random outside of training.
"""
