"""The shop that is damaged here is the one that the night's own tests are made from."""

from tests.night.conftest import plain, shop

__all__ = ["plain", "shop"]
