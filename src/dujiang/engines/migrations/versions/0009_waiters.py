"""workers that wait for a place in a lane, so that each has its turn"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "waiters",
        sa.Column("lane_id", sa.Integer(), nullable=False),
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("came_at", sa.Float(), nullable=False),
        sa.Column("asked_at", sa.Float(), nullable=False),
        sa.Column("until", sa.Float(), nullable=False),
        sa.Column("left_at", sa.Float(), nullable=True),
        sa.Column("slots", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"]),
        sa.ForeignKeyConstraint(["lane_id"], ["lanes.id"]),
        sa.PrimaryKeyConstraint("lane_id", "batch_id", "worker"),
        sqlite_with_rowid=False,
    )
    op.add_column("lines", sa.Column("slots", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Undo."""
    op.drop_column("lines", "slots")
    op.drop_table("waiters")
