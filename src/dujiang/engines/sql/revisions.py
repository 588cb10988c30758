"""Which migration a database stands at, and bringing it to the newest one."""

import sqlalchemy as sa

from dujiang.engines.sql.refusals import DatabaseRefused
from dujiang.engines.sql.schema import REVISION


def schema_revision(database: sa.Engine) -> str | None:
    """The migration that the database stands at; None if it is new."""
    with database.connect().execution_options(reading=True) as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        found = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
        return None if found is None else str(found)


def migrate(database: sa.Engine, place: object, lock: sa.TextClause | None = None) -> None:
    """Bring it to the newest schema. `place`: as it is told. Raises `DatabaseRefused` if it is of a newer program.

    `lock`: a statement that waits for others who do the same, where a transaction alone does not.
    """
    revision = schema_revision(database)
    if revision == REVISION:
        return
    if revision is not None and revision > REVISION:
        raise DatabaseRefused("newer", path=place, found=revision, known=REVISION)
    from dujiang.engines.migrations import upgrade  # Alembic is slow to import, and seldom needed  # noqa: PLC0415

    upgrade(database, lock)
