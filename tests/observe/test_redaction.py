"""What may leave the process."""

import json

import pytest

from supervisor.observe import redaction
from supervisor.observe.event_line import encode
from supervisor.observe.redaction import HIDDEN, clean, redact
from supervisor.settings.config import KernelConfig

KEY = "5f1e0ad2b8f4d6a0c3e1b7985f1e0ad2b8f4d6a0c3e1b7985f1e0ad2b8f4d6a0"


@pytest.fixture(autouse=True)
def _no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_secrets", {})


def test_fields_named_like_a_secret_are_hidden_at_every_depth() -> None:
    event = {"key": KEY, "Env": {"A": "b"}, "nested": [{"key": 1, "port": 2}]}

    assert {"key": HIDDEN, "Env": HIDDEN, "nested": [{"key": HIDDEN, "port": 2}]} == clean(event)


@pytest.mark.parametrize("secret", [KEY, KEY.encode()])
def test_a_registered_value_is_hidden_wherever_it_occurs(secret: str | bytes) -> None:
    redact(secret)

    line = encode(
        {"event": "x", "output_tail": [f"key is {KEY}!"], KEY: 1, "error": OSError(KEY), "raw": KEY.encode()}
    )

    assert KEY.encode() not in line
    assert f"key is {HIDDEN}!" == json.loads(line)["output_tail"][0]


@pytest.mark.parametrize("count", [1, 400])
@pytest.mark.parametrize("length", [0, 7, 5000])
def test_one_of_many_is_hidden_wherever_it_stands_in_a_text_short_or_long(count: int, length: int) -> None:
    keys = [f"{number:03x}{KEY[3:]}" for number in range(count)]
    for key in keys:
        redact(key)

    for key in (keys[0], keys[-1]):
        for text in (f"{key}{'.' * length}", f"{'.' * length}{key}", f"{'.' * length}{key}{keys[0]}"):
            assert key not in str(clean({"text": text}))


def test_a_text_is_not_looked_through_for_each_of_many_secrets() -> None:
    class Text(str):
        def __contains__(self, _secret: str) -> bool:
            raise AssertionError("looked for one secret after the other")

    class Told(str):
        def __str__(self) -> str:
            return Text("x" * 100)

    for number in range(400):
        redact(f"{number:03x}{KEY[3:]}")

    assert {"text": "x" * 100} == clean({"text": Told("")})


def test_a_short_value_is_no_secret() -> None:
    redact("")
    redact("2")

    assert {"text": "12 of 20"} == clean({"text": "12 of 20"})


def test_the_number_of_secrets_is_bounded() -> None:
    for number in range(10_000):
        redact(f"{number:05}-secret")

    assert 4096 == len(redaction._secrets)
    assert 2 * 4096 >= len(redaction._beginnings)
    assert {"text": HIDDEN} == clean({"text": "09999-secret"})


def test_settings_are_told_by_their_type_because_they_show_the_environment() -> None:
    config = KernelConfig(name="a", env={"TOKEN": "hunter2hunter2"})

    assert {"config": "<KernelConfig>"} == clean({"config": config})


def test_the_event_itself_is_not_changed() -> None:
    event = {"event": "x", "key": KEY, "list": [KEY]}
    redact(KEY)

    clean(event)

    assert {"event": "x", "key": KEY, "list": [KEY]} == event
