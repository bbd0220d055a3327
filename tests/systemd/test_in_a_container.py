"""The service under a real systemd, booted in a container: one test for each check made there."""

import ast
from pathlib import Path

import pytest

from tests.systemd.container import HERE, CommandError, NotPossibleHereError, boot_and_check

# The container is made within the first of them.
pytestmark = [pytest.mark.systemd, pytest.mark.timeout(1200)]


MODULES = ("checks_of_start", "checks_of_life", "checks_of_service", "checks_of_cgroups", "checks_of_end")


def _checks() -> list[str]:
    """The names of the checks, read and not imported: they are the container's own program."""
    trees = [ast.parse((HERE / f"{module}.py").read_text()) for module in MODULES]
    functions = [node for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)]
    return [function.name for function in functions if function.decorator_list]


@pytest.fixture(scope="session")
def results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, object]]:
    scratch: Path = tmp_path_factory.mktemp("container")
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    wanted = [item.callspec.params["check"] for item in items if "results" in item.fixturenames]
    try:
        found = boot_and_check(scratch, wanted)
    except NotPossibleHereError as reason:
        pytest.skip(str(reason))
    except CommandError as error:
        pytest.fail(str(error), pytrace=False)
    if not found:
        console = (scratch / "console").read_text(errors="replace")
        pytest.fail(f"the container made no checks:\n{console[-4000:]}", pytrace=False)
    return found


@pytest.mark.parametrize("check", _checks())
def test_in_a_real_systemd(check: str, results: dict[str, dict[str, object]]) -> None:
    result = results.get(check, {"outcome": "failed", "text": "the container ended before this check did"})

    if result["outcome"] == "skipped":
        pytest.skip(str(result["text"]))
    if result["outcome"] != "passed":
        pytest.fail(str(result["text"]), pytrace=False)
