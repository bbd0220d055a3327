"""A notebook that is opened has what its cells gave while no page was there to take it.

Owns the merging of what is recorded into what is read from disk; the file is
written by nobody but the page, when the user saves.  Only a cell counts whose
code is still what was executed, and only if the file was not saved since.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from jupyter_core.utils import ensure_async
from jupyter_server.services.contents.manager import AsyncContentsManager
from nbformat import ValidationError
from nbformat.v4 import output_from_msg

from supervisor.jupyter.kernels import SupervisedKernel, SupervisedKernels
from supervisor.jupyter.recorder import Message, Request
from supervisor.jupyter.requests import MALFORMED

Fields = dict[str, Any]

_SHOWN = ("stream", "display_data", "execute_result", "error")


def install(app: Any) -> None:
    """Have the server's notebooks read this way, if it reads them asynchronously."""
    manager, kernels, sessions = app.contents_manager, app.kernel_manager, app.session_manager
    if not isinstance(manager, AsyncContentsManager):
        return
    read = manager.get

    async def get(path: str, content: bool = True, *args: Any, **kwargs: Any) -> Fields:
        model: Fields = await ensure_async(read(path, content, *args, **kwargs))
        if content and model.get("type") == "notebook" and isinstance(model.get("content"), Mapping):
            for kernel in await _kernels_of(model["path"], kernels, sessions):
                await _fill(model, kernel)
        return model

    manager.get = get


async def _kernels_of(path: str, kernels: SupervisedKernels, sessions: Any) -> list[SupervisedKernel]:
    """The supervised kernels that this notebook is open on."""
    ids = [session["kernel"]["id"] for session in await sessions.list_sessions() if session["path"] == path]
    return [kernel for id_ in ids if (kernel := kernels.of(id_)) is not None]


async def _fill(model: Fields, kernel: SupervisedKernel) -> None:
    cells = {str(cell.get("id")): cell for cell in model["content"].get("cells", ())}
    for request, messages in await kernel.recorder.executions(cells):
        cell = cells[request.cell]
        if request.session not in kernel.pages and _is_news(cell, request, messages, model["last_modified"]):
            cell.update(outputs=outputs_of(messages), execution_count=_count(messages))


def _is_news(cell: Fields, request: Request, messages: list[Message], saved: datetime) -> bool:
    is_same = cell.get("cell_type") == "code" and cell.get("source") == request.code
    return is_same and any(message.at > saved.timestamp() for message in messages if message.kind in _SHOWN)


def outputs_of(messages: Iterable[Message]) -> list[Fields]:
    """The outputs of a cell that these messages make."""
    outputs: list[Fields] = []
    is_to_be_cleared = False
    for message in messages:
        content = message.content
        if message.kind == "clear_output":
            is_to_be_cleared = True
            if not content.get("wait"):
                outputs.clear()
        elif message.kind in _SHOWN:
            if is_to_be_cleared:
                outputs.clear()
                is_to_be_cleared = False
            with suppress(*MALFORMED, ValidationError):  # a kernel may publish what is no output
                _add(outputs, message.kind, content)
    return outputs


def _add(outputs: list[Fields], kind: str, content: Fields) -> None:
    last = outputs[-1] if outputs else {}
    if kind == "stream" and last.get("output_type") == "stream" and last.get("name") == content["name"]:
        last["text"] += content["text"]
    else:
        said = {"metadata": {}, **content}  # which not every kernel sends
        outputs.append(dict(output_from_msg({"header": {"msg_type": kind}, "content": said})))


def _count(messages: Iterable[Message]) -> int | None:
    counts = [
        message.content.get("execution_count") for message in messages if message.kind == "execute_input"
    ]
    return counts[-1] if counts else None
