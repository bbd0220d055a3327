"""One cluster for all tests that ask for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.slurm.cluster import Cluster, reason_not_to_have_one


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that runs."""
    if (reason := reason_not_to_have_one()) is not None:
        pytest.skip(reason)
    with Cluster(tmp_path_factory.mktemp("slurm")) as made:
        yield made
