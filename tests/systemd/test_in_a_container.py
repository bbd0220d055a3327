"""The service under a real systemd, booted in a container and in virtual machines: a test for each check."""

import ast
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.systemd import container, machine
from tests.systemd.container import HERE, CommandError, NotPossibleHereError

MODULES = ("checks_of_start", "checks_of_life", "checks_of_service", "checks_of_cgroups")
MODULES += ("checks_of_accounts", "checks_of_end")
Results = dict[str, dict[str, object]]
# The place is made and booted within the first test in it.
PLACES = [
    pytest.param("container", marks=[pytest.mark.systemd, pytest.mark.timeout(1200)]),
    *(
        pytest.param(suite, marks=[pytest.mark.vm, pytest.mark.timeout(5400)])
        for suite in ("trixie", "bookworm")
    ),
]


def checks_in(*modules: str) -> list[str]:
    """The names of the checks, read and not imported: they are the container's own program."""
    trees = [ast.parse((HERE / f"{module}.py").read_text()) for module in modules]
    functions = [node for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)]
    return [function.name for function in functions if function.decorator_list]


@pytest.fixture(scope="session")
def results_of(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Results]:
    """What came of the checks that are wanted, in a place; booted once."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    asked = [item.callspec.params for item in items if "results_of" in item.fixturenames]
    known: dict[str, Results] = {}

    def look(place: str) -> Results:
        if place not in known:
            known[place] = {}
            wanted = [params["check"] for params in asked if params["place"] == place]
            boot = (
                partial(machine.boot_and_check, suite=place)
                if place != "container"
                else container.boot_and_check
            )
            known[place] = results_in(boot, tmp_path_factory.mktemp(place), wanted)
        return known[place]

    return look


def results_in(boot: Callable[[Path, list[str]], Results], scratch: Path, wanted: list[str]) -> Results:
    """What came of the checks in what is booted so."""
    try:
        found = boot(scratch, wanted)
    except NotPossibleHereError as reason:
        pytest.skip(str(reason))
    except CommandError as error:
        pytest.fail(str(error), pytrace=False)
    if not found:
        console = (scratch / "console").read_text(errors="replace")
        pytest.fail(f"no checks were made:\n{console[-4000:]}", pytrace=False)
    return found


@pytest.mark.parametrize("check", checks_in(*MODULES))
@pytest.mark.parametrize("place", PLACES)
def test_in_a_real_systemd(place: str, check: str, results_of: Callable[[str], Results]) -> None:
    judge(results_of(place), check)


def judge(results: Results, check: str) -> None:
    """Make the outcome of a check that of the test."""
    result = results.get(check, {"outcome": "failed", "text": "it ended before this check did"})
    if result["outcome"] == "skipped":
        pytest.skip(str(result["text"]))
    if result["outcome"] != "passed":
        pytest.fail(str(result["text"]), pytrace=False)
