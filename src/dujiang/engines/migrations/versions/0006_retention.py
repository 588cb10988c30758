"""retention: batches whose tasks are gone, what they cost, and how long their jobs ran"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("batches", sa.Column("used_at", sa.Float(), nullable=True))
    op.add_column("batches", sa.Column("pruned_at", sa.Float(), nullable=True))
    op.create_table(
        "pruned_attempts",
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("lane_id", sa.Integer(), nullable=False),
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"]),
        sa.ForeignKeyConstraint(["lane_id"], ["lanes.id"]),
        sa.PrimaryKeyConstraint("batch_id", "lane_id", "day", "outcome"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "pruned_run_times",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("lane_id", sa.Integer(), nullable=False),
        sa.Column("ended_at", sa.Float(), nullable=False),
        sa.Column("run_s", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["lane_id"], ["lanes.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_pruned_run_times", "pruned_run_times", ["lane_id", "ended_at"], unique=False)


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_pruned_run_times", table_name="pruned_run_times")
    op.drop_table("pruned_run_times")
    op.drop_table("pruned_attempts")
    op.drop_column("batches", "pruned_at")
    op.drop_column("batches", "used_at")
