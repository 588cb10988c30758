"""The engine on SQL: SQLAlchemy Core on SQLite, written so that PostgreSQL runs the same statements."""
