"""What is to be done is a closed list, each about one kernel, and the host has an effect for each."""

from __future__ import annotations

import inspect
from typing import get_args

from msgspec import Struct, structs

from supervisor.core import actions
from supervisor.core.actions import Action, Effect, Publish, Refuse
from supervisor.kernel.host import Host


def test_the_list_is_closed_and_frozen_and_each_names_its_kernel() -> None:
    listed = set(get_args(Action))
    told = {kind for kind in vars(actions).values() if isinstance(kind, type) and issubclass(kind, Struct)}

    assert listed == {kind for kind in told if kind.__module__ == actions.__name__}
    assert all(kind.__struct_config__.frozen for kind in listed)
    assert {"kernel"} == {structs.fields(kind)[0].name for kind in listed}


def test_the_host_has_something_to_do_for_each_effect_and_for_nothing_else() -> None:
    done = inspect.getsource(Host.perform)

    assert set(get_args(Effect)) == set(get_args(Action)) - {Publish, Refuse}
    assert [] == [kind.__name__ for kind in get_args(Effect) if f"{kind.__name__}(" not in done]
