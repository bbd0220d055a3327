"""The exit codes of the command line: few, with a meaning each, as the documents tell them."""

from __future__ import annotations

from supervisor.cli import exits
from supervisor.cli.exits import MEANINGS, Quit
from tests.cli.tools import ROOT


def test_each_code_has_its_meaning_which_the_documents_tell() -> None:
    codes = {code for name, code in vars(exits).items() if name.isupper() and isinstance(code, int)}
    told = "; ".join(f"{code} {meaning}" for code, meaning in MEANINGS.items())

    assert codes == MEANINGS.keys()
    assert f"Exit codes: {told}." in (ROOT / "README.md").read_text()


def test_who_quits_says_what_is_wrong_and_what_to_do() -> None:
    quit_ = Quit(exits.USAGE, "no such verb", "see --help")

    assert (2, "no such verb", "see --help") == (quit_.code, str(quit_), quit_.hint)
