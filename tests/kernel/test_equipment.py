"""In what a library differs from the daemon; where nothing is said, it is the daemon's."""

from __future__ import annotations

from pathlib import Path

from supervisor.cgroups.tree import NOWHERE
from supervisor.kernel.equipment import Equipment
from supervisor.records.places import Places


def test_the_defaults_are_the_daemons(tmp_path: Path) -> None:
    places = Places(tmp_path / "state", tmp_path / "runtime")

    one, other = Equipment(), Equipment()

    assert (None, True, NOWHERE) == (one.context, one.keeps_reserve, one.cgroups)
    assert places.connection_file("a") == one.connect("a", places).path
    assert (one.launcher, one.warmth) != (other.launcher, other.warmth), "no two share what they launch with"
