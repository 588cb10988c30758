"""What an engine without steps of its own needs beside it: a table with a row for each step, committed one by one."""

from typing import Final

TABLE: Final = (
    "CREATE TABLE checkpoints"
    " (task bigint, step int, data text, at timestamptz DEFAULT clock_timestamp(), PRIMARY KEY (task, step))"
)
COUNT: Final = "SELECT count(*) FROM checkpoints"


def plain(url: str) -> str:
    """The URL of a PostgreSQL as other libraries than SQLAlchemy know it."""
    return url.replace("postgresql+psycopg://", "postgresql://")
