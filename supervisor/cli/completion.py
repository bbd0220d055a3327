"""Completion in bash, zsh and fish: each asks the command itself for the words that may come next."""

from __future__ import annotations

import os
from argparse import Action, Namespace
from collections.abc import Iterator, Sequence
from itertools import pairwise

from supervisor.cli.asking import client_of, get
from supervisor.cli.exits import DONE, Quit
from supervisor.cli.screen import say
from supervisor.cli.verbs import PROGRAM, VERBS, WITH_VALUE, parser_of, verb_at
from supervisor.control.client import Broken, NoDaemon
from supervisor.control.lookup import BadPath, NoConfig

_BASH = """\
# bash completion for {program}; in ~/.bashrc: eval "$({program} completion bash)"
_{function}() {{
    local IFS=$'\\n' current="${{COMP_WORDS[COMP_CWORD]}}"
    local found="$({program} __complete "${{COMP_WORDS[@]:1:COMP_CWORD}}" 2>/dev/null | cut -f 1)"
    COMPREPLY=($(compgen -W "$found" -- "$current"))
}}
complete -o default -F _{function} {program} jupyter-supervisor"""

_ZSH = """\
#compdef {program} jupyter-supervisor
# zsh completion for {program}; in ~/.zshrc: eval "$({program} completion zsh)"
_{function}() {{
    local -a found
    found=(${{(f)"$({program} __complete "${{(@Q)words[2,CURRENT]}}" 2>/dev/null)"}})
    if (( $#found )); then compadd -- ${{found%%$'\\t'*}}; else _files; fi
}}
if [ "$funcstack[1]" = "_{function}" ]; then
    _{function} "$@"
else
    compdef _{function} {program} jupyter-supervisor
fi"""

_FISH = """\
# fish completion for {program}; in ~/.config/fish/config.fish: {program} completion fish | source
function __{function}
    set -l found ({program} __complete (commandline -opc)[2..] (commandline -ct) 2>/dev/null)
    if count $found >/dev/null
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c {program} -f -a '(__{function})'"""


def script(arguments: Namespace) -> int:
    """Print the completion script of a shell."""
    text = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}[arguments.shell]
    say(text.format(program=PROGRAM, function=PROGRAM.replace("-", "_")))
    return DONE


def complete(words: Sequence[str]) -> int:
    """Print what the last of the words may become, with a tab and its help; nothing means files."""
    try:
        # bash gives "--socket=x" as three words.
        for word, text in _next([word for word in words if word != "="] or [""]):
            say(f"{word}\t{text}")
    except (NoDaemon, Broken, BadPath, NoConfig, Quit):
        pass  # a shell completes: nobody reads a message
    return DONE


def _next(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    *before, current = words
    at = verb_at(before)
    if at is None:
        if not (before and before[-1] in WITH_VALUE):
            yield from ((name, verb.summary) for name, verb in VERBS.items())
            yield from (("--help", "how to use it"), ("--version", "which it is"))
        return
    verb = VERBS.get(before[at])
    actions = parser_of(before[at], verb)._actions if verb is not None else []
    taker = next((a for a in actions if before[-1] in a.option_strings and a.nargs != 0), None)
    if taker is not None:
        yield from _choices(taker)
    elif current.startswith("-"):
        yield from ((o, str(a.help)) for a in actions for o in a.option_strings if o.startswith("--"))
    else:
        for action in actions:
            yield from () if action.option_strings else _choices(action)
        if verb is not None and verb.names == "kernels":
            yield from ((name, "kernel") for name in _kernels(before))


def _choices(action: Action) -> Iterator[tuple[str, str]]:
    return ((str(choice), "") for choice in action.choices or ())


def _kernels(words: Sequence[str]) -> list[str]:
    """The kernels of the daemon that is named already, else of the usual one."""
    named = dict(word.split("=", 1) for word in words if "=" in word)
    named |= dict(pairwise(words))
    given = {option[2:]: named.get(option) for option in WITH_VALUE}
    found = {option: os.path.expanduser(value) if value else None for option, value in given.items()}  # noqa: PTH111
    return [str(view["name"]) for view in get(client_of(Namespace(**found)), "/v1/status")["kernels"]]
