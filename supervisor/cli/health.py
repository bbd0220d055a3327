"""The verb ``health``: whether all that is wanted up is ready and well, as an exit code."""

from __future__ import annotations

from argparse import Namespace

from supervisor.cli import words
from supervisor.cli.asking import View, chosen, client_of, get
from supervisor.cli.exits import DONE, FAILED
from supervisor.cli.screen import tell
from supervisor.wording import one_line


def health(arguments: Namespace) -> int:
    """Tell what is not well; nothing where all is."""
    views = chosen(get(client_of(arguments), "/v1/status")["kernels"], arguments.names or ["*"])
    ill = {str(view["name"]): wrong for view in views if (wrong := wrong_with(view))}
    lines = (one_line(f"{name}: {wrong}") for name, wrong in ill.items())
    tell({"ok": not ill, "wrong": ill}, lines, as_json=arguments.json)
    return FAILED if ill else DONE


def wrong_with(view: View) -> str:
    """Why a kernel is not well, ``""`` if it is, or is not wanted up."""
    phase, health = view.get("phase"), view.get("health")
    if phase == "failed":
        return f"failed: {view.get('reason') or 'no reason is known'}"
    if view.get("want") != "up" or (phase == "running" and health in ("ok", None)):
        return ""
    if phase == "running":
        return f"{health} (pid {view.get('pid')})"
    died = f", after {words.how_it_died(death)}" if (death := view.get("last_death")) else ""
    return f"{words.phase(view, words.now())}{died}"
