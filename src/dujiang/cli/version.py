"""`dujiang version`: what to write into a bug report."""

import platform
import sqlite3
from importlib import metadata
from pathlib import Path

from dujiang import __version__
from dujiang.cli.exits import Exit
from dujiang.cli.opening import settings_of
from dujiang.cli.show import print_fields, print_json
from dujiang.engines.sql.database import revision_of
from dujiang.engines.sql.schema import REVISION

PARTS = ("httpx2", "pydantic", "rich", "sqlalchemy", "typer")


def version(home: Path | None, *, as_json: bool) -> int:
    """The program, its parts, and the schema of its database beside the one it knows."""
    settings = settings_of(home)
    found = {
        "dujiang": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "sqlite": sqlite3.sqlite_version,
        **{part: metadata.version(part) for part in PARTS},
        "schema": REVISION,
        "database": f"{settings.shown_database} ({revision_of(settings.database) or '-'})",
    }
    if as_json:
        print_json(found)
    else:
        print_fields(found)
    return Exit.OK
