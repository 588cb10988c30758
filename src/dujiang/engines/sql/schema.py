"""The tables. A change here comes with a migration in `engines/migrations/versions` (a test compares the two).

Times are seconds since the epoch (UTC). Structured values are JSON text: nothing queries inside them.
"""

from typing import Final

import sqlalchemy as sa

from dujiang.domain.lifecycle import HELD, State

METADATA: Final = sa.MetaData()

# The newest migration this program knows; `test_migrations` keeps it in step without importing Alembic at every start.
REVISION: Final = "0010"

batches: Final = sa.Table(
    "batches",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("out", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("on_doubt", sa.Text, nullable=False),
    sa.Column("paused", sa.Boolean, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False, server_default="0"),
    sa.Column("max_images", sa.Integer),  # its budget
    sa.Column("images_taken", sa.Integer),  # of the budget: the sum over its attempts; counted while there is one
    sa.Column("used_at", sa.Float),  # when somebody last ran it; empty: when it was made
    sa.Column("pruned_at", sa.Float),  # its tasks are gone, and what they cost stands in `pruned_attempts`
    sa.UniqueConstraint("out", "name", name="uq_batches_place"),
)

tasks: Final = sa.Table(
    "tasks",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("batch_id", sa.Text, sa.ForeignKey("batches.id"), nullable=False),
    sa.Column("row", sa.Text, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("name_key", sa.Text, nullable=False),  # the name as file systems compare it
    sa.Column("req_key", sa.Text, nullable=False),
    sa.Column("request", sa.Text, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("newest", sa.Boolean, nullable=False),  # of its row: what counts, lists and retries look at
    sa.Column("retry_of", sa.Integer, sa.ForeignKey("tasks.id"), unique=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("owner", sa.Text),  # the worker that holds it
    sa.Column("attempt", sa.Integer, nullable=False),  # number of the newest one, 0 before the first
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("fresh_submits", sa.Integer, nullable=False),
    sa.Column("link_checks", sa.Integer, nullable=False),
    sa.Column("policy_resubmits", sa.Integer, nullable=False),
    sa.Column("cancel_requested", sa.Boolean, nullable=False),
    sa.Column("references", sa.Text),
    sa.Column("image_urls", sa.Text),
    sa.Column("files", sa.Text),
    sa.Column("error_code", sa.Text),
    sa.Column("error_message", sa.Text),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("updated_at", sa.Float, nullable=False),
    sa.UniqueConstraint("batch_id", "row", "revision", name="uq_tasks_row"),
    sqlite_autoincrement=True,  # an id is never used again: files and logs name it
)
sa.Index(  # the head of the line of one batch and product
    "ix_tasks_line",
    tasks.c.batch_id,
    tasks.c.state,
    tasks.c.req_key,
    tasks.c.priority.desc(),
    tasks.c.position,
    tasks.c.id,
)
sa.Index("ix_tasks_list", tasks.c.batch_id, tasks.c.newest, tasks.c.id)
sa.Index("ix_tasks_states", tasks.c.batch_id, tasks.c.newest, tasks.c.state, tasks.c.id)
sa.Index(
    "ix_tasks_codes",
    tasks.c.batch_id,
    tasks.c.newest,
    tasks.c.state,
    tasks.c.error_code,
    tasks.c.id,
    sqlite_where=tasks.c.error_code.is_not(None),
    postgresql_where=tasks.c.error_code.is_not(None),
)
sa.Index("ix_tasks_order", tasks.c.batch_id, tasks.c.newest, tasks.c.position, tasks.c.id)
# Literals, not parameters: a partial index is used only by queries that say the same words.
IS_HELD: Final = tasks.c.state.in_([sa.literal_column(f"'{state.value}'") for state in sorted(HELD)])
sa.Index(  # who holds what, and what nobody holds although somebody should
    "ix_tasks_owner",
    tasks.c.owner,
    sqlite_where=IS_HELD,
    postgresql_where=IS_HELD,
)

# Ready, with references that were published for it: what `prepare_ahead` counts.
IS_PREPARED: Final = sa.and_(
    tasks.c.state == sa.literal_column(f"'{State.READY.value}'"), tasks.c.references.is_not(None)
)
sa.Index(
    "ix_tasks_prepared",
    tasks.c.batch_id,
    tasks.c.state,  # always the same, but without it SQLite takes ix_tasks_line, and walks what has no references
    tasks.c.req_key,
    tasks.c.priority.desc(),
    tasks.c.position,
    tasks.c.id,
    sqlite_where=IS_PREPARED,
    postgresql_where=IS_PREPARED,
)

sa.Index("ix_tasks_names", tasks.c.batch_id, tasks.c.name_key)

# Its triggers stand in migration 0010. PostgreSQL: several rows of a state, each with what other transactions added.
task_counts: Final = sa.Table(  # how many of a batch's newest tasks are in each state
    "task_counts",
    METADATA,
    sa.Column("batch_id", sa.Text, sa.ForeignKey("batches.id"), primary_key=True),
    sa.Column("state", sa.Text, primary_key=True),
    sa.Column("stripe", sa.Integer, primary_key=True),
    sa.Column("tasks", sa.Integer, nullable=False),
    sqlite_with_rowid=False,
)
tasks.add_is_dependent_on(task_counts)

attempts: Final = sa.Table(
    "attempts",
    METADATA,
    sa.Column("task_id", sa.Integer, sa.ForeignKey("tasks.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("lane_id", sa.Integer, sa.ForeignKey("lanes.id"), nullable=False),
    sa.Column("key_fingerprint", sa.Text, nullable=False),
    sa.Column("worker", sa.Text, nullable=False),
    sa.Column("looking", sa.Boolean, nullable=False),
    sa.Column("sent_at", sa.Float, nullable=False),
    sa.Column("accepted_at", sa.Float),
    sa.Column("ended_at", sa.Float),
    sa.Column("slot_until", sa.Float, nullable=False),  # infinity: until the job's end is known
    sa.Column("slot_for_s", sa.Float, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("images", sa.Integer, nullable=False),  # reserved, then settled
    sa.Column("job_id", sa.Text),
    sa.Column("request_id", sa.Text),
    sa.Column("run_s", sa.Float),
    sa.Column("kind", sa.Text),  # as what a lane that finds its limit permitted it; empty: its limit is fixed
    sqlite_with_rowid=False,
)
sa.Index("ix_attempts_slots", attempts.c.lane_id, attempts.c.slot_until)
sa.Index("ix_attempts_job", attempts.c.job_id)
sa.Index("ix_attempts_sent", attempts.c.lane_id, attempts.c.sent_at, attempts.c.images)  # a day's images
sa.Index(
    "ix_attempts_run_times",
    attempts.c.lane_id,
    attempts.c.ended_at,
    attempts.c.run_s,
    sqlite_where=attempts.c.run_s.is_not(None),
    postgresql_where=attempts.c.run_s.is_not(None),
)

events: Final = sa.Table(
    "events",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("task_id", sa.Integer, sa.ForeignKey("tasks.id"), nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),  # after it
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("data", sa.Text, nullable=False),
    sqlite_autoincrement=True,
)
sa.Index("ix_events_task", events.c.task_id, events.c.id)

pruned_attempts: Final = sa.Table(  # what is left of attempts whose batch was pruned: what they cost
    "pruned_attempts",
    METADATA,
    sa.Column("batch_id", sa.Text, sa.ForeignKey("batches.id"), primary_key=True),
    sa.Column("lane_id", sa.Integer, sa.ForeignKey("lanes.id"), primary_key=True),
    sa.Column("day", sa.Text, primary_key=True),  # on which they were sent: `2026-03-31`, where it was pruned
    sa.Column("outcome", sa.Text, primary_key=True),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("images", sa.Integer, nullable=False),
    sqlite_with_rowid=False,
)

pruned_run_times: Final = sa.Table(  # and how long their jobs ran, as long as a lane has nothing newer
    "pruned_run_times",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("lane_id", sa.Integer, sa.ForeignKey("lanes.id"), nullable=False),
    sa.Column("ended_at", sa.Float, nullable=False),
    sa.Column("run_s", sa.Float, nullable=False),
)
sa.Index("ix_pruned_run_times", pruned_run_times.c.lane_id, pruned_run_times.c.ended_at)

accounts: Final = sa.Table(
    "accounts",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("fingerprints", sa.Text, nullable=False),
    sa.Column("pace", sa.Text),  # how fast it may submit, once it was too fast
    sa.Column("stopped", sa.Text),  # `paused` or `draining`: nothing is submitted
    sa.Column("daily_images", sa.Integer),  # its cap, set for everybody (0: none); empty: as the settings say
)

lanes: Final = sa.Table(
    "lanes",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("endpoint", sa.Text, nullable=False),
    sa.Column("account_id", sa.Integer, sa.ForeignKey("accounts.id"), nullable=False),
    sa.Column("req_key", sa.Text, nullable=False),
    sa.Column("limit", sa.Text),  # what `--concurrency` set for everybody; empty: the setting of the account
    sa.Column("belief", sa.Text),  # what a limit that finds itself has learned
    sa.Column("in_force", sa.Text),  # the limit that the last claim went by, whoever set it
    sa.UniqueConstraint("endpoint", "account_id", "req_key", name="uq_lanes"),
)

lane_events: Final = sa.Table(
    "lane_events",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("lane_id", sa.Integer, sa.ForeignKey("lanes.id"), nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("what", sa.Text, nullable=False),  # as in `50430: climbing -> 2`
    sqlite_autoincrement=True,
)
sa.Index("ix_lane_events", lane_events.c.lane_id, lane_events.c.id)

lines: Final = sa.Table(  # batches that wait at a lane, so that its slots are shared out between them
    "lines",
    METADATA,
    sa.Column("lane_id", sa.Integer, sa.ForeignKey("lanes.id"), primary_key=True),
    sa.Column("batch_id", sa.Text, sa.ForeignKey("batches.id"), primary_key=True),
    sa.Column("came_at", sa.Float, nullable=False),
    sa.Column("served_at", sa.Float),
    sa.Column("until", sa.Float, nullable=False),  # somebody works for it, as far as that was last heard
    sa.Column("left_at", sa.Float),  # since when a slot is left free for it
    sa.Column("slots", sa.Integer),  # the lane's limit as whoever came last goes by it, if that is fixed
    sqlite_with_rowid=False,
)

waiters: Final = sa.Table(  # workers of a batch that wait at a lane, so that each has its turn
    "waiters",
    METADATA,
    sa.Column("lane_id", sa.Integer, sa.ForeignKey("lanes.id"), primary_key=True),
    sa.Column("batch_id", sa.Text, sa.ForeignKey("batches.id"), primary_key=True),
    sa.Column("worker", sa.Text, primary_key=True),
    sa.Column("came_at", sa.Float, nullable=False),
    sa.Column("asked_at", sa.Float, nullable=False),  # when it last asked while a place was left to somebody
    sa.Column("until", sa.Float, nullable=False),  # it is there, as far as that was last heard
    sa.Column("left_at", sa.Float),  # since when a place is left free for it
    sa.Column("slots", sa.Integer),  # the lane's limit as it goes by it, if that is fixed
    sqlite_with_rowid=False,
)

switches: Final = sa.Table(  # what is switched on, for everybody
    "switches",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
)

instances: Final = sa.Table(  # where this database was worked with, the last one now: `instance` tells why
    "instances",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("place", sa.Text, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
)

rests: Final = sa.Table(
    "rests",
    METADATA,
    sa.Column("subject", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("code", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("until", sa.Float, nullable=False),
    sa.Column("length_s", sa.Float, nullable=False),
    sa.Column("in_a_row", sa.Integer, nullable=False),
)

references: Final = sa.Table(
    "references",
    METADATA,
    sa.Column("sha256", sa.Text, primary_key=True),
    sa.Column("host", sa.Text, primary_key=True),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("bytes", sa.Integer, nullable=False),
    sa.Column("published_at", sa.Float, nullable=False),
    sa.Column("checked_at", sa.Float),
)

workers: Final = sa.Table(
    "workers",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("machine", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("started_at", sa.Float, nullable=False),
    sa.Column("ended_at", sa.Float),
    sa.Column("seen_at", sa.Float),  # its last sign of life
    sa.Column("name", sa.Text, nullable=False, server_default=""),
    sa.Column("version", sa.Text, nullable=False, server_default=""),
)

last_commits: Final = sa.Table(  # PostgreSQL: what to look for when a connection breaks while it commits
    "last_commits",
    METADATA,
    sa.Column("place", sa.Text, primary_key=True),  # a thread of a program
    sa.Column("token", sa.Text, nullable=False),  # of its last change that is on disk
    sa.Column("at", sa.Float, nullable=False),
)
