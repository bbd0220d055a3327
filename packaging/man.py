"""The man pages: ``python packaging/man.py DIRECTORY`` writes kernel-supervisor(1) and kernels.toml(5).

Every verb and every key is in them, read off the declarations that make the
command line and the schema.  The markup is that of man(7).
"""

from __future__ import annotations

import re
import sys
from argparse import Action, ArgumentParser
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from supervisor.cli.exits import MEANINGS
from supervisor.cli.program import GROUPS
from supervisor.cli.verbs import PROGRAM, VERBS, parser_of
from supervisor.settings.schema import json_schema
from supervisor.settings.text import toml_value
from supervisor.version import __version__

SIGNALS = {
    "SIGTERM, SIGINT": "stop all kernels, then exit; the second time at once",
    "SIGHUP": "read the configuration again",
    "SIGUSR2": "exit, and leave the kernels to the next daemon",
}
RELOADS = {
    "live": "an edit takes effect at once, and the kernel never notices",
    "next-start": "it takes effect at the next start of the kernel",
    "restart": "it restarts the kernel, as on_config_change says",
    "daemon": "it takes effect when the daemon is started anew",
}
BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most"}


def roff(text: str) -> str:
    """Text as text, whatever is in it."""
    return re.sub(r"(?m)^([.'])", r"\\&\1", text.replace("\\", r"\e").replace("-", r"\-"))


def page(name: str, number: int, summary: str, sections: Mapping[str, str]) -> str:
    """A whole page, of sections that are marked up."""
    all_ = {"NAME": f"{roff(name)} \\- {roff(summary)}\n", **sections}
    body = "".join(f'.SH "{roff(heading)}"\n{text}' for heading, text in all_.items())
    return f'.TH "{name}" {number} "" "{PROGRAM} {__version__}"\n{body}'


def items(meanings: Mapping[str, str]) -> str:
    """Words and what they mean."""
    return "".join(f".TP\n\\fB{roff(label)}\\fR\n{roff(text)}\n" for label, text in meanings.items())


def command_page() -> str:
    """The page of the command, by the table of its verbs."""
    common = items(dict(_arguments(parser_of("reload", VERBS["reload"]))))
    sections = {
        "SYNOPSIS": roff(f"{PROGRAM} VERB [NAME...] [options]\n"),
        "DESCRIPTION": f"{roff(PROGRAM)} run is the daemon; kernels.toml(5) declares its kernels.\n",
        **{title: "".join(_verbs(group)) for group, title in GROUPS.items()},
        "OPTIONS OF ALL VERBS THAT ASK THE DAEMON": common,
        "SIGNALS TO THE DAEMON": items(SIGNALS),
        "EXIT STATUS": items({str(code): meaning for code, meaning in MEANINGS.items()}),
        "SEE ALSO": "kernels.toml(5), systemctl(1), journalctl(1)\n",
    }
    return page(PROGRAM, 1, "keeps Jupyter kernels alive at a stable address", sections)


def _verbs(group: str) -> Iterator[str]:
    for name, verb in VERBS.items():
        if verb.group == group:
            parser = ArgumentParser(prog=name, add_help=False)
            verb.arguments(parser)
            usage = " ".join(parser.format_usage().split()[1:])
            yield f'.SS "{roff(usage)}"\n{roff(verb.summary)}\n{items(dict(_arguments(parser)))}'


def _arguments(parser: ArgumentParser) -> Iterator[tuple[str, str]]:
    for action in parser._actions:
        if action.dest != "help":
            yield " ".join(filter(None, (", ".join(action.option_strings), _value(action)))), str(action.help)


def _value(action: Action) -> str:
    return str(action.metavar or "|".join(map(str, action.choices or ())))


def file_page() -> str:
    """The page of the file, by its schema."""
    schema = json_schema()
    tables = schema["properties"]
    kernel = {**schema["$defs"]["kernel"], "description": tables["kernels"]["description"]}
    about = f"{PROGRAM} check tells every mistake of a file; nothing is done with one that has any."
    sections = {
        "SYNOPSIS": roff(f"/etc/{PROGRAM}/kernels.toml, ~/.config/{PROGRAM}/kernels.toml\n"),
        "DESCRIPTION": f"{roff(about)} The word of a key tells what a save does:\n{items(RELOADS)}",
        "KEYS OF THE FILE": _keys({name: tables[name] for name in ("include", "defaults")}),
        "[supervisor]": _keys(tables["supervisor"]["properties"]),
        "[[hooks]]": _keys(tables["hooks"]["items"]["properties"]),
        "[kernels.NAME]": _keys(kernel["properties"]),
        "SEE ALSO": f"{roff(PROGRAM)}(1)\n",
    }
    return page("kernels.toml", 5, f"the kernels that {PROGRAM} keeps alive, and how", sections)


def _keys(properties: Mapping[str, dict[str, Any]]) -> str:
    text = ""
    for name, key in properties.items():
        default = f" = {toml_value(key['default'])}" if "default" in key else ""
        facts = "; ".join(filter(None, (_kind(key), key.get("x-reload"))))
        text += items({f"{name}{default}": f"{key['description']} ({facts})"})
        if "properties" in key:
            text += f".RS\n{_keys(key['properties'])}.RE\n"
    return text


def _kind(key: Mapping[str, Any]) -> str:
    if "enum" in key:
        return " or ".join(map(toml_value, key["enum"]))
    bounds = [f"{word} {key[bound]:g}" for bound, word in BOUNDS.items() if bound in key]
    return ", ".join([key.get("type", "table").replace("object", "table"), *bounds])


if __name__ == "__main__":
    for name, text in {f"{PROGRAM}.1": command_page(), "kernels.toml.5": file_page()}.items():
        Path(sys.argv[1], name).write_text(text, "utf-8")
