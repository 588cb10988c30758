"""One statement for many rows.

SQLite runs a statement once for each row, which costs it next to nothing. On PostgreSQL each time would be planned
anew, so there the rows go in as arrays, a column each, and the statement runs once for all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

Values = Mapping[str, sa.ColumnElement[Any]]
"""What a statement calls the values of a row."""
Types = Mapping[str, sa.types.TypeEngine[Any]]
"""Of a row's values, by name."""


class Bulk:
    """A statement over rows of values."""

    def __init__(self, types: Types, make: Callable[[Values], sa.UpdateBase]) -> None:
        """`make`: the statement for values of these types."""
        self._names: Final = tuple(types)
        self._for_each: Final = make({name: sa.bindparam(name, type_=type_) for name, type_ in types.items()})
        arrays = [sa.bindparam(name, type_=ARRAY(type_)) for name, type_ in types.items()]
        given = sa.func.unnest(*arrays).table_valued(*(sa.column(name, type_) for name, type_ in types.items()))
        self._for_all: Final = make(dict(given.render_derived("given").c.items()))

    def run(self, connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> int:
        """Run it; how many rows it changed. Each row has every value, and no two are of the same row of the table."""
        if not rows:
            return 0
        if connection.dialect.name != "postgresql":
            return connection.execute(self._for_each, rows).rowcount
        return connection.execute(self._for_all, {name: [row[name] for row in rows] for name in self._names}).rowcount


def insertion(table: sa.Table, names: Sequence[str]) -> Bulk:
    """New rows of `table`, with a value of its own for each column named."""

    def make(values: Values) -> sa.UpdateBase:
        columns = [values[name] for name in names]
        if isinstance(columns[0], sa.BindParameter):
            return sa.insert(table).values({name: values[name] for name in names})
        return sa.insert(table).from_select(list(names), sa.select(*columns))

    return Bulk({name: table.c[name].type for name in names}, make)
