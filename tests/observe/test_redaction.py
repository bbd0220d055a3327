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


def test_a_short_value_is_no_secret() -> None:
    redact("")
    redact("2")

    assert {"text": "12 of 20"} == clean({"text": "12 of 20"})


def test_the_number_of_secrets_is_bounded() -> None:
    for number in range(5000):
        redact(f"secret-{number:05}")

    assert 4096 == len(redaction._secrets)
    assert {"text": HIDDEN} == clean({"text": "secret-04999"})


def test_settings_are_told_by_their_type_because_they_show_the_environment() -> None:
    config = KernelConfig(name="a", env={"TOKEN": "hunter2hunter2"})

    assert {"config": "<KernelConfig>"} == clean({"config": config})


def test_the_event_itself_is_not_changed() -> None:
    event = {"event": "x", "key": KEY, "list": [KEY]}
    redact(KEY)

    clean(event)

    assert {"event": "x", "key": KEY, "list": [KEY]} == event
