"""how many of a batch's newest tasks are in each state, kept by triggers; lists of a state and of a code by key

Triggers, so that every statement keeps them, also those of a program that was started before the upgrade. Whoever makes
the table `tasks` anew makes its triggers anew.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

FILL: Final = """
INSERT INTO task_counts (batch_id, state, stripe, tasks)
SELECT batch_id, state, 0, count(*) FROM tasks WHERE newest GROUP BY batch_id, state
"""

# SQLite has triggers for rows, and one writer: there is one stripe.
_ONE_MORE: Final = """
INSERT INTO task_counts (batch_id, state, stripe, tasks) VALUES (new.batch_id, new.state, 0, 1)
ON CONFLICT (batch_id, state, stripe) DO UPDATE SET tasks = tasks + 1
"""
_ONE_LESS: Final = """
UPDATE task_counts SET tasks = tasks - 1 WHERE batch_id = old.batch_id AND state = old.state AND stripe = 0
"""
SQLITE: Final = {
    "tasks_counted_in": f"AFTER INSERT ON tasks WHEN new.newest BEGIN {_ONE_MORE}; END",
    "tasks_counted_out": f"AFTER DELETE ON tasks WHEN old.newest BEGIN {_ONE_LESS}; END",
    "tasks_counted_from": f"""
        AFTER UPDATE OF state, newest, batch_id ON tasks
        WHEN old.newest AND (new.state <> old.state OR NOT new.newest OR new.batch_id <> old.batch_id)
        BEGIN {_ONE_LESS}; END""",
    "tasks_counted_to": f"""
        AFTER UPDATE OF state, newest, batch_id ON tasks
        WHEN new.newest AND (new.state <> old.state OR NOT old.newest OR new.batch_id <> old.batch_id)
        BEGIN {_ONE_MORE}; END""",
}

# PostgreSQL has triggers for statements, and many writers: a transaction writes to a stripe that no other one writes
# to, so nobody waits for anybody. It is one of the first sixteen, unless more write at the same moment.
_COUNTED: Final = """
INSERT INTO task_counts AS counted (batch_id, state, stripe, tasks)
SELECT batch_id, state, own, sum(delta) FROM ({deltas}) AS deltas GROUP BY batch_id, state HAVING sum(delta) <> 0
ON CONFLICT (batch_id, state, stripe) DO UPDATE SET tasks = counted.tasks + excluded.tasks
"""
_MORE: Final = "SELECT batch_id, state, 1 AS delta FROM made WHERE newest"
_LESS: Final = "SELECT batch_id, state, -1 AS delta FROM gone WHERE newest"
POSTGRES: Final = (
    f"""
    CREATE FUNCTION count_tasks() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        own integer := pg_backend_pid() % 16;
    BEGIN
        WHILE NOT pg_try_advisory_xact_lock(7202312, own) LOOP
            own := own + 1;
        END LOOP;
        IF TG_OP = 'INSERT' THEN {_COUNTED.format(deltas=_MORE)};
        ELSIF TG_OP = 'DELETE' THEN {_COUNTED.format(deltas=_LESS)};
        ELSE {_COUNTED.format(deltas=f"{_MORE} UNION ALL {_LESS}")};
        END IF;
        RETURN NULL;
    END $$""",
    """
    CREATE TRIGGER tasks_counted_in AFTER INSERT ON tasks
    REFERENCING NEW TABLE AS made FOR EACH STATEMENT EXECUTE FUNCTION count_tasks()""",
    """
    CREATE TRIGGER tasks_counted_out AFTER DELETE ON tasks
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION count_tasks()""",
    """
    CREATE TRIGGER tasks_counted_over AFTER UPDATE ON tasks
    REFERENCING OLD TABLE AS gone NEW TABLE AS made FOR EACH STATEMENT EXECUTE FUNCTION count_tasks()""",
)


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "task_counts",
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("stripe", sa.Integer(), nullable=False),
        sa.Column("tasks", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"]),
        sa.PrimaryKeyConstraint("batch_id", "state", "stripe"),
        sqlite_with_rowid=False,
    )
    op.drop_index("ix_tasks_counts", table_name="tasks")
    op.create_index("ix_tasks_states", "tasks", ["batch_id", "newest", "state", "id"], unique=False)
    op.create_index(
        "ix_tasks_codes",
        "tasks",
        ["batch_id", "newest", "state", "error_code", "id"],
        unique=False,
        sqlite_where=sa.text("error_code IS NOT NULL"),
        postgresql_where=sa.text("error_code IS NOT NULL"),
    )
    statements = [f"CREATE TRIGGER {name} {what}" for name, what in SQLITE.items()]
    if op.get_bind().dialect.name == "postgresql":
        statements = list(POSTGRES)
    # First the triggers, which wait for whoever writes and keep others from it, then what is there.
    for statement in (*statements, FILL):
        op.execute(statement)


def downgrade() -> None:
    """Undo."""
    on_postgres = op.get_bind().dialect.name == "postgresql"
    names = ("tasks_counted_in", "tasks_counted_out", "tasks_counted_over") if on_postgres else tuple(SQLITE)
    for name in names:
        op.execute(f"DROP TRIGGER {name}" + (" ON tasks" if on_postgres else ""))
    if on_postgres:
        op.execute("DROP FUNCTION count_tasks()")
    op.drop_index("ix_tasks_codes", table_name="tasks")
    op.drop_index("ix_tasks_states", table_name="tasks")
    op.create_index("ix_tasks_counts", "tasks", ["batch_id", "newest", "state"], unique=False)
    op.drop_table("task_counts")
