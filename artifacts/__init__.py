"""The ground floor: what a bundle, a run and a release are on disk, and every error we raise on purpose.

Read in this order: ``errors``, ``layout``, ``digest``, ``clients``, ``remote``, ``mirror``, ``store``, ``documents``,
``tables``, ``bundle``, ``run``, ``release``.
"""
