"""The outputs of a cell, made of what its kernel told."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from supervisor.jupyter.notebooks import results_of
from supervisor.jupyter.recorder import Message


def message(kind: str, **content: Any) -> Message:
    return of(kind, json.dumps(content).encode())


def of(kind: str, content: bytes) -> Message:
    packed = msgspec.msgpack.encode([b"{}", b"{}", b"{}", content])
    return Message("m", "iopub", "s", "r", kind, missed=False, packed=packed, at=0.0)


def said(text: str, name: str = "stdout") -> Message:
    return message("stream", name=name, text=text)


def shown(text: str) -> Message:
    return message("display_data", data={"text/plain": text}, metadata={})


def texts(*messages: Message) -> list[tuple[str, str]]:
    found = results_of(messages)["outputs"]
    return [(it["output_type"], it.get("text") or it["data"]["text/plain"]) for it in found]


def test_what_is_said_in_a_row_on_one_stream_is_one_output() -> None:
    assert [("stream", "ab"), ("stream", "c"), ("stream", "d")] == texts(
        said("a"), said("b"), said("c", "stderr"), said("d")
    )
    assert [("stream", "a"), ("display_data", "x"), ("stream", "b")] == texts(
        said("a"), shown("x"), said("b")
    )


@pytest.mark.parametrize(
    ("wait", "after", "left"),
    [
        (False, [], []),
        (True, [], [("stream", "a")]),
        (True, [said("b")], [("stream", "b")]),
        (False, [said("b"), said("c")], [("stream", "bc")]),
        (True, [said("b"), shown("x")], [("stream", "b"), ("display_data", "x")]),
    ],
)
def test_what_is_cleared_goes_at_once_or_when_more_comes(
    wait: bool, after: list[Message], left: list[tuple[str, str]]
) -> None:
    assert left == texts(said("a"), message("clear_output", wait=wait), *after)


def test_a_result_and_an_error_are_outputs_and_states_are_none() -> None:
    result = message("execute_result", data={"text/plain": "2"}, metadata={}, execution_count=7)
    error = message("error", ename="E", evalue="e", traceback=["t"])
    quiet = [message("status", execution_state="busy"), message("execute_input", code="1", execution_count=7)]

    outputs = [
        {"output_type": "execute_result", "data": {"text/plain": "2"}, "metadata": {}, "execution_count": 7},
        {"output_type": "error", "ename": "E", "evalue": "e", "traceback": ["t"]},
    ]
    assert {"outputs": outputs, "execution_count": 7} == results_of([*quiet, result, error])


def test_what_is_shown_is_changed_where_it_is() -> None:
    known = {"metadata": {}, "transient": {"display_id": "d"}}
    first, last = ({"data": {"text/plain": text}, **known} for text in "xy")

    assert [("display_data", "y"), ("stream", "a")] == texts(
        message("display_data", **first), said("a"), message("update_display_data", **last)
    )


def test_an_output_without_metadata_is_one() -> None:
    assert [("display_data", "x")] == texts(message("display_data", data={"text/plain": "x"}))


ODD = {
    "stream": [{}, {"name": 1}],
    "display_data": [{}, {"data": []}, {"data": 1}],
    "error": [{}],
    "clear_output": [{}],
}


@pytest.mark.parametrize(("kind", "content"), [(kind, each) for kind, many in ODD.items() for each in many])
def test_an_odd_output_keeps_no_notebook_from_being_opened(kind: str, content: dict[str, Any]) -> None:
    assert ("stream", "b") == texts(said("a"), message(kind, **content), said("b", "stderr"))[-1]


@pytest.mark.parametrize("content", [b"{", b"[]", b"1", b"[" * 100_000, b""])
def test_a_message_without_content_is_no_output(content: bytes) -> None:
    odd = of("stream", content)

    assert [("stream", "a")] == texts(odd, said("a"), odd)
