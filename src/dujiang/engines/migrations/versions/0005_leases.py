"""leases: when a worker was last heard of, its name and its version"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("workers", sa.Column("seen_at", sa.Float(), nullable=True))
    op.add_column("workers", sa.Column("name", sa.Text(), server_default="", nullable=False))
    op.add_column("workers", sa.Column("version", sa.Text(), server_default="", nullable=False))


def downgrade() -> None:
    """Undo."""
    op.drop_column("workers", "version")
    op.drop_column("workers", "name")
    op.drop_column("workers", "seen_at")
