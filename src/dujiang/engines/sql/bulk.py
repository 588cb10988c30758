"""One statement for many rows.

SQLite runs a statement once for each row, which costs it next to nothing. On PostgreSQL each time would be a round trip
and a plan, so there the rows go in together, as JSON, and the statement runs once for all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from math import isinf
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSON

from dujiang.engines.sql.rows import dumped

Values = Mapping[str, sa.ColumnElement[Any]]
"""What a statement calls the values of a row."""
Types = Mapping[str, sa.types.TypeEngine[Any]]
"""Of a row's values, by name."""


class Bulk:
    """A statement over rows of values."""

    def __init__(self, types: Types, make: Callable[[Values], sa.UpdateBase]) -> None:
        """`make`: the statement for values of these types."""
        self._floats: Final = [name for name, type_ in types.items() if isinstance(type_, sa.Float)]
        self._for_each: Final = make({name: sa.bindparam(name, type_=type_) for name, type_ in types.items()})
        rows = sa.func.json_to_recordset(sa.cast(sa.bindparam("rows", type_=sa.Text()), JSON))
        given = rows.table_valued(*(sa.column(name, type_) for name, type_ in types.items()))
        self._for_all: Final = make(dict(given.render_derived("given", with_types=True).c.items()))

    def run(self, connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> int:
        """Run it; how many rows it changed. Each row has every value, and no two are of the same row of the table."""
        if not rows:
            return 0
        if connection.dialect.name != "postgresql":
            return connection.execute(self._for_each, rows).rowcount
        return connection.execute(self._for_all, {"rows": dumped([self._as_json(row) for row in rows])}).rowcount

    def _as_json(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """JSON has no infinity; PostgreSQL reads its name."""
        endless = {name: str(row[name]) for name in self._floats if row[name] is not None and isinf(row[name])}
        return {**row, **endless} if endless else row


def insertion(table: sa.Table, names: Sequence[str], **same: sa.ColumnElement[Any]) -> Bulk:
    """New rows of `table`, with a value of its own for each column named, and the `same` for all."""

    def make(values: Values) -> sa.UpdateBase:
        columns = {**values, **same}
        if any(isinstance(value, sa.BindParameter) for value in values.values()):
            return sa.insert(table).values(columns)
        return sa.insert(table).from_select(list(columns), sa.select(*columns.values()))

    return Bulk({name: table.c[name].type for name in names}, make)
