"""What every folder of tests may ask for."""

import pytest
import sqlalchemy as sa

from dujiang.engines.sql.database import connect
from dujiang.engines.sql.schema import METADATA
from tests.postgres import Server, fresh_database, postgres

__all__ = ["emptied", "fresh_database", "one_database", "postgres"]


@pytest.fixture(scope="session")
def one_database(postgres: Server) -> str:
    """A database with every table, emptied for each test: to make one takes longer than most tests do."""
    url = postgres.fresh_database()
    connect(url).dispose()
    return url


def emptied(url: str) -> str:
    """The same, as new."""
    database = sa.create_engine(url)
    with database.begin() as connection:
        for table in reversed(METADATA.sorted_tables):
            connection.execute(sa.delete(table))
        for (name,) in connection.exec_driver_sql("SELECT sequencename FROM pg_sequences").all():
            connection.exec_driver_sql(f"ALTER SEQUENCE {name} RESTART")
    database.dispose()
    return url
