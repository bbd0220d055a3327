"""What is read off the declarations of the tables."""

from __future__ import annotations

from supervisor.settings.config import File
from supervisor.settings.keys import Kind, keys_of
from tests.settings.test_config import TABLES


def test_every_key_has_a_description_and_every_number_bounds() -> None:
    for table in (File, *TABLES):
        for key in keys_of(table).values():
            assert key.description, key
            assert key.kind not in (Kind.INTEGER, Kind.NUMBER) or (key.ge, key.gt) != (None, None), key
