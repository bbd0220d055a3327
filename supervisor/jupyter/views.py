"""What the daemon's view of a kernel says: where it listens, and how a run of it ended.

Owns words and reading; asks nobody.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from supervisor.wording import CAUSES

Fields = dict[str, Any]


def read_address(path: Path) -> Fields:
    """What a connection file says.  Raises OSError and ValueError."""
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a connection file")
    return content


def how_it_ended(view: Fields, death: Fields | None, generation: int) -> str:
    """Why a run is over and what becomes of the kernel, for people."""
    phase, name = view["phase"], view["name"]
    if death is None:
        how = f"{name} was {'restarted' if phase not in ('stopped', 'failed') else 'stopped'}"
    else:
        signal, code = death.get("signal"), death.get("exit_code")
        what = f"killed by {signal}" if signal else f"exited with code {code}" if code is not None else ""
        why = CAUSES.get(str(death.get("cause")), "")
        words = ", ".join(part for part in (what, why, death.get("detail")) if part) or "nobody knows how"
        how = f"{name} died: {words}"
    if phase == "failed":
        return f"{how}. It is not started again: {view.get('reason')}"
    if phase == "stopped":
        return f"{how}. {view.get('reason') or ''}".strip()
    return f"{how}; started again as run {generation + 1}, its variables are lost."
