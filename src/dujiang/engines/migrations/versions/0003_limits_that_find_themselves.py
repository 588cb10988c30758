"""limits that find themselves: what a lane believes, why a task was submitted, and how limits have changed"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("lanes", sa.Column("belief", sa.Text(), nullable=True))
    op.add_column("lanes", sa.Column("in_force", sa.Text(), nullable=True))
    op.add_column("attempts", sa.Column("kind", sa.Text(), nullable=True))
    op.create_table(
        "lane_events",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("lane_id", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["lane_id"], ["lanes.id"]),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_lane_events", "lane_events", ["lane_id", "id"], unique=False)


def downgrade() -> None:
    """Undo."""
    op.drop_table("lane_events")
    op.drop_column("attempts", "kind")
    op.drop_column("lanes", "in_force")
    op.drop_column("lanes", "belief")
