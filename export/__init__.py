"""From a trained model to a verified bundle: a graph that passed the gate, vocabularies, canary rows, a contract.

Read in this order: ``source``, ``graph``, ``sample``, ``parity``, ``write``; for narrower arithmetic ``narrow`` and
``half``; and for models that know nothing of the contract ``spec``, ``rows``, ``wired``, ``functional``, ``finished``.
"""
