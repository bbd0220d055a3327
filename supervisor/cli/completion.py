"""Completion in bash, zsh and fish: verbs and options from the table of verbs, names from the daemon."""

from __future__ import annotations

from argparse import Namespace

from supervisor.cli.asking import client_of, get
from supervisor.cli.exits import DONE
from supervisor.cli.program import PROGRAM, parser_of
from supervisor.cli.screen import say
from supervisor.cli.verbs import VERBS
from supervisor.control.client import Broken, NoDaemon

_BASH = """\
# bash completion for {program}; in ~/.bashrc: eval "$({program} completion bash)"
_{function}() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}"
    local verb="${{COMP_WORDS[1]}}"
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{verbs} --help --version" -- "$current"))
        return
    fi
    case "$previous" in
        --socket|--config|--state-dir) COMPREPLY=($(compgen -f -- "$current")); return ;;
    esac
    local options=""
    case "$verb" in
{options}
    esac
    if [[ "$current" == -* ]]; then
        COMPREPLY=($(compgen -W "$options" -- "$current"))
        return
    fi
    # The daemon that is named already is the one whose kernels count; "--socket=x" comes as three words.
    local daemon=() index value
    for ((index = 2; index < COMP_CWORD - 1; index++)); do
        value="${{COMP_WORDS[index + 1]}}"
        [ "$value" = "=" ] && value="${{COMP_WORDS[index + 2]}}"
        case "${{COMP_WORDS[index]}}" in
            --socket|--config) daemon=("${{COMP_WORDS[index]}}" "${{value/#\\~\\//$HOME/}}") ;;
        esac
    done
    case "$verb" in
        {kernel_verbs})
            COMPREPLY=($(compgen -W "$({program} __names "${{daemon[@]}}" 2>/dev/null)" -- "$current")) ;;
        {file_verbs}) COMPREPLY=($(compgen -f -- "$current")) ;;
{words_bash}
    esac
}}
complete -o default -F _{function} {program} jupyter-supervisor
"""

_ZSH = """\
#compdef {program} jupyter-supervisor
# zsh completion for {program}; in ~/.zshrc: eval "$({program} completion zsh)"
_{function}() {{
    local -a verbs options names
    verbs=(
{verbs}
    )
    if (( CURRENT == 2 )); then
        _describe 'verb' verbs
        return
    fi
    case "$words[CURRENT-1]" in
        --socket|--config|--state-dir) _files; return ;;
    esac
    case "$words[2]" in
{options}
    esac
    if [[ "$PREFIX" == -* ]]; then
        compadd -- $options
        return
    fi
    # The daemon that is named already is the one whose kernels count.
    local -a daemon
    local index value
    for (( index = 3; index < CURRENT; index++ )); do
        value="${{(Q)words[index + 1]}}"
        case "$words[index]" in
            --socket|--config) daemon=("$words[index]" "${{value/#\\~\\//$HOME/}}") ;;
            --socket=*|--config=*) daemon=("${{(Q)words[index]}}") ;;
        esac
    done
    case "$words[2]" in
        {kernel_verbs})
            names=(${{(f)"$({program} __names "${{daemon[@]}}" 2>/dev/null)"}}); compadd -- $names ;;
        {file_verbs}) _files ;;
{words_zsh}
    esac
}}
if [ "$funcstack[1]" = "_{function}" ]; then
    _{function} "$@"
else
    compdef _{function} {program} jupyter-supervisor
fi
"""

_FISH = """\
# fish completion for {program}; in ~/.config/fish/config.fish: {program} completion fish | source
# The daemon that is named already is the one whose kernels count.
function __{function}_names
    set -l words (commandline -opc)
    set -l daemon
    for index in (seq (count $words))
        switch $words[$index]
            case --socket --config
                if test $index -lt (count $words)
                    set daemon $words[$index] (string replace -r '^~/' "$HOME/" -- $words[(math $index + 1)])
                end
            case '--socket=*' '--config=*'
                set daemon $words[$index]
        end
    end
    {program} __names $daemon 2>/dev/null
end
complete -c {program} -f
"""

# The first words of verbs that take neither kernels nor files.
_WORDS = {"completion": "bash zsh fish", "systemd": "install print uninstall"}


def script(arguments: Namespace) -> int:
    """Print the completion script of a shell."""
    say({"bash": _bash, "zsh": _zsh, "fish": _fish}[arguments.shell]().rstrip("\n"))
    return DONE


def names(arguments: Namespace) -> int:
    """Print the names of the kernels, nothing at all when there is no daemon."""
    try:
        for view in get(client_of(arguments), "/v1/status")["kernels"]:
            say(str(view["name"]))
    except (NoDaemon, Broken):
        pass  # a shell completes: nobody reads a message
    return DONE


def options_of(verb: str) -> list[tuple[str, str]]:
    """The long options of a verb and their help."""
    return [
        (option, str(action.help or ""))
        for action in parser_of(verb, VERBS[verb])._actions
        for option in action.option_strings
        if option.startswith("--")
    ]


def _verbs_with(names: str) -> list[str]:
    return [verb for verb, what in VERBS.items() if what.names == names]


def _cases(indent: str, wording: str) -> str:
    """One case of a shell's ``case`` for each verb, with its options."""
    cases = [(verb, " ".join(option for option, _ in options_of(verb))) for verb in VERBS]
    return "\n".join(f"{indent}{verb}) {wording.format(options)} ;;" for verb, options in cases)


def _words(wording: str) -> str:
    return "\n".join(f"        {verb}) {wording.format(words)} ;;" for verb, words in _WORDS.items())


def _bash() -> str:
    return _BASH.format(
        program=PROGRAM,
        function=PROGRAM.replace("-", "_"),
        verbs=" ".join(VERBS),
        options=_cases("        ", 'options="{}"'),
        words_bash=_words('COMPREPLY=($(compgen -W "{}" -- "$current"))'),
        kernel_verbs="|".join(_verbs_with("kernels")),
        file_verbs="|".join(_verbs_with("files")),
    )


def _zsh() -> str:
    return _ZSH.format(
        program=PROGRAM,
        function=PROGRAM.replace("-", "_"),
        verbs="\n".join(f"        '{verb}:{_quoted(what.summary)}'" for verb, what in VERBS.items()),
        options=_cases("        ", "options=({})"),
        words_zsh=_words("compadd -- {}"),
        kernel_verbs="|".join(_verbs_with("kernels")),
        file_verbs="|".join(_verbs_with("files")),
    )


def _fish() -> str:
    function = PROGRAM.replace("-", "_")
    lines = [_FISH.format(program=PROGRAM, function=function).rstrip()]
    for verb, what in VERBS.items():
        summary = _quoted(what.summary, fish=True)
        lines.append(f"complete -c {PROGRAM} -n __fish_use_subcommand -a {verb} -d '{summary}'")
        seen = f"-n '__fish_seen_subcommand_from {verb}'"
        for option, text in options_of(verb):
            needs_file = " -r -F" if option in {"--socket", "--config", "--state-dir"} else ""
            words = _quoted(text, fish=True)
            lines.append(f"complete -c {PROGRAM} {seen} -l {option[2:]}{needs_file} -d '{words}'")
        if what.names == "kernels":
            lines.append(f"complete -c {PROGRAM} {seen} -a '(__{function}_names)'")
        elif what.names == "files":
            lines.append(f"complete -c {PROGRAM} {seen} -F")
        if verb in _WORDS:
            lines.append(f"complete -c {PROGRAM} {seen} -a '{_WORDS[verb]}'")
    return "\n".join(lines)


def _quoted(text: str, *, fish: bool = False) -> str:
    """A text within single quotes of a shell."""
    return text.replace("\\", "\\\\").replace("'", "\\'") if fish else text.replace("'", "'\\''")
