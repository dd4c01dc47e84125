"""The ground floor: what a bundle, a run and a release are on disk, and every error we raise on purpose.

Read in this order: ``errors``, ``layout``, ``digest``, ``fields``; files under a root: ``clients``, ``remote``,
``mirror``, ``store``, ``documents``; tables: ``schemas``, ``footer``, ``tables``, ``lookup``; and what they make up:
``contract``, ``bundle``, ``canary``, ``run``, ``release``.
"""
