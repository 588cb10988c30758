"""prepared tasks are counted by an index of their own"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

PREPARED = sa.text("state = 'ready' AND \"references\" IS NOT NULL")


def upgrade() -> None:
    """Apply."""
    op.create_index(
        "ix_tasks_prepared",
        "tasks",
        ["batch_id", "state", "req_key", sa.literal_column("priority DESC"), "position", "id"],
        unique=False,
        sqlite_where=PREPARED,
        postgresql_where=PREPARED,
    )


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_tasks_prepared", table_name="tasks")
