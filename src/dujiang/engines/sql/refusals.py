"""Why a database is refused."""

from dujiang.domain.errors import DujiangError


class DatabaseRefused(DujiangError):
    """The database can't be trusted with money as it is. `code` says why; `fields` fill its text."""

    def __init__(self, why: str, **fields: object) -> None:
        super().__init__(why)
        self.why = f"database_{why}"
        self.fields = fields
