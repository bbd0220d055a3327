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
from nbclient import NotebookClient
from nbformat import ValidationError
from nbformat.v4 import new_code_cell, new_notebook

from supervisor.jupyter.kernels import SupervisedKernel, SupervisedKernels
from supervisor.jupyter.recorder import Message
from supervisor.jupyter.requests import MALFORMED

Fields = dict[str, Any]

_SHOWN = ("stream", "display_data", "execute_result", "error")
_CHANGING = ("execute_input", "clear_output", "update_display_data")


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
            cell.update(results_of(messages))


def _is_news(cell: Fields, request: Message, messages: list[Message], saved: datetime) -> bool:
    is_same = cell.get("cell_type") == "code" and cell.get("source") == request.content.get("code")
    return is_same and any(message.at > saved.timestamp() for message in messages if message.kind in _SHOWN)


def results_of(messages: Iterable[Message]) -> Fields:
    """The outputs and the number of a cell of which a kernel told this."""
    cell = new_code_cell()
    client = NotebookClient(new_notebook(cells=[cell]))
    client.clear_before_next_output = False
    for message in messages:
        if message.kind in (*_SHOWN, *_CHANGING):
            with suppress(*MALFORMED, ValidationError):  # a kernel may publish what is no output
                _add(client, cell, message)
    return {"outputs": cell.outputs, "execution_count": cell.execution_count}


def _add(client: NotebookClient, cell: Any, message: Message) -> None:
    content = {"metadata": {}, **message.content}  # which not every kernel sends
    told = {"msg_type": message.kind, "header": {"msg_type": message.kind}, "parent_header": {}}
    client.process_message({**told, "content": content}, cell, 0)
    outputs = cell.outputs[-2:]
    if message.kind == "stream" and len({output.get("name") for output in outputs}) < len(outputs):
        outputs[0]["text"] += cell.outputs.pop()["text"]
