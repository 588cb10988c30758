"""Every story is told on each database; on PostgreSQL by `make storm`, as that takes minutes."""

import pytest

from tests.conftest import emptied


@pytest.fixture(autouse=True, params=["sqlite", pytest.param("postgres", marks=pytest.mark.storm)])
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "postgres":
        url = emptied(request.getfixturevalue("one_database"))
        monkeypatch.setattr("dujiang.testing._fresh_database", lambda path: url)
