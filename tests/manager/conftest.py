"""Managers of the small kernel, for all tests of managers."""

from tests.manager.managing import make

__all__ = ["make"]
