"""What every folder of tests may ask for."""

from tests.postgres import fresh_database, postgres

__all__ = ["fresh_database", "postgres"]
