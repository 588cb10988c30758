"""lanes shared between batches and accounts: priorities, lines, budgets, paces, what is paused"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.execute("DELETE FROM rests WHERE subject = 'pace'")  # an account that was too fast has a pace now, and no rest
    op.add_column("batches", sa.Column("priority", sa.Integer(), server_default="0", nullable=False))
    op.add_column("batches", sa.Column("max_images", sa.Integer(), nullable=True))
    op.add_column("batches", sa.Column("images_taken", sa.Integer(), nullable=True))
    op.add_column("accounts", sa.Column("pace", sa.Text(), nullable=True))
    op.add_column("accounts", sa.Column("stopped", sa.Text(), nullable=True))
    op.add_column("accounts", sa.Column("daily_images", sa.Integer(), nullable=True))
    op.create_index("ix_attempts_sent", "attempts", ["lane_id", "sent_at", "images"], unique=False)
    op.create_table(
        "lines",
        sa.Column("lane_id", sa.Integer(), nullable=False),
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("came_at", sa.Float(), nullable=False),
        sa.Column("served_at", sa.Float(), nullable=True),
        sa.Column("until", sa.Float(), nullable=False),
        sa.Column("left_at", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"]),
        sa.ForeignKeyConstraint(["lane_id"], ["lanes.id"]),
        sa.PrimaryKeyConstraint("lane_id", "batch_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "switches",
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("switches")
    op.drop_table("lines")
    op.drop_index("ix_attempts_sent", table_name="attempts")
    op.drop_column("accounts", "daily_images")
    op.drop_column("accounts", "stopped")
    op.drop_column("accounts", "pace")
    op.drop_column("batches", "images_taken")
    op.drop_column("batches", "max_images")
    op.drop_column("batches", "priority")
