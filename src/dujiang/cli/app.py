"""Every command and its flags. What a command does stands in a module of its own."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dujiang.cli.usage import Commands
from dujiang.domain.shares import HIGHEST, LOWEST
from dujiang.messages import Language, text, use_language

app = typer.Typer(
    cls=Commands,
    help=text("help_dujiang"),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
batch_app = typer.Typer(cls=Commands, help=text("help_batch"), no_args_is_help=True, rich_markup_mode=None)
tasks_app = typer.Typer(cls=Commands, help=text("help_tasks"), no_args_is_help=True, rich_markup_mode=None)
accounts_app = typer.Typer(cls=Commands, help=text("help_accounts"), no_args_is_help=True, rich_markup_mode=None)
workers_app = typer.Typer(cls=Commands, help=text("help_workers"), no_args_is_help=True, rich_markup_mode=None)
limit_app = typer.Typer(cls=Commands, help=text("help_limits"), no_args_is_help=True, rich_markup_mode=None)
config_app = typer.Typer(cls=Commands, help=text("help_config"), no_args_is_help=True, rich_markup_mode=None)
app.add_typer(batch_app, name="batch")
app.add_typer(tasks_app, name="tasks")
app.add_typer(accounts_app, name="accounts")
app.add_typer(workers_app, name="workers")
app.add_typer(limit_app, name="limit")
app.add_typer(config_app, name="config")

Json = Annotated[bool, typer.Option("--json", help=text("help_json"))]
Home = Annotated[Path | None, typer.Option("--home", help=text("help_home"), envvar="DUJIANG_HOME")]
BatchWord = Annotated[str, typer.Argument(metavar="BATCH", help=text("help_batch_word"))]
TaskIds = Annotated[list[int], typer.Argument(metavar="TASK", help=text("help_task_ids"))]
States = Annotated[list[str] | None, typer.Option("--state", metavar="STATE", help=text("help_state"))]
Refs = Annotated[Path | None, typer.Option("--refs", metavar="DIR", help=text("help_refs"))]
AccountName = Annotated[str, typer.Argument(metavar="ACCOUNT", help=text("help_account_name"))]
Points = Annotated[
    int, typer.Argument(metavar="PRIORITY", min=LOWEST, max=HIGHEST, help=text("help_points"), show_default=False)
]
InputPath = Annotated[str, typer.Argument(metavar="INPUT", help=text("help_input"))]


class Decision(StrEnum):
    """What a person can decide about a task in doubt."""

    RESUBMIT = "resubmit"
    FOUND = "found"
    FAIL = "fail"


@app.callback()
def choose_language(
    lang: Annotated[Language | None, typer.Option("--lang", help=text("help_lang"))] = None,
) -> None:
    """Before every command."""
    if lang is not None:
        use_language(lang)


@app.command(help=text("help_init"), context_settings={"allow_extra_args": True})  # to refuse them unrepeated
def init(
    context: typer.Context,
    account: Annotated[str, typer.Option("--account", metavar="NAME", help=text("help_account"))] = "default",
    keyring: Annotated[bool, typer.Option("--keyring", help=text("help_keyring"))] = False,
    home: Home = None,
) -> None:
    """Ask for keys and write them down."""
    from dujiang.cli import init as door

    raise typer.Exit(door.init(account, home, context.args, keyring=keyring))


@app.command(help=text("help_run"))
def run(
    input_path: InputPath,
    out: Annotated[Path, typer.Option("--out", help=text("help_out"))] = Path("dujiang-out"),
    name: Annotated[str | None, typer.Option("--name", help=text("help_name"))] = None,
    refs: Refs = None,
    model: Annotated[str, typer.Option("--model", help=text("help_model"))] = "4.0",
    concurrency: Annotated[str | None, typer.Option("--concurrency", help=text("help_concurrency"))] = None,
    priority: Annotated[
        int | None, typer.Option("--priority", min=LOWEST, max=HIGHEST, help=text("help_priority"))
    ] = None,
    max_images: Annotated[int | None, typer.Option("--max-images", min=1, help=text("help_max_images"))] = None,
    on_doubt: Annotated[str, typer.Option("--on-doubt", help=text("help_on_doubt"))] = "hold",
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help=text("help_retry_failed"))] = False,
    skip_invalid: Annotated[bool, typer.Option("--skip-invalid", help=text("help_skip_invalid"))] = False,
    quick_exit: Annotated[bool, typer.Option("--quick-exit", help=text("help_quick_exit"))] = False,
    give_up_after: Annotated[
        float | None, typer.Option("--give-up-after", min=0, help=text("help_give_up_after"))
    ] = None,
    log_file: Annotated[Path | None, typer.Option("--log-file", help=text("help_log_file"))] = None,
    log_json: Annotated[bool | None, typer.Option("--log-json", help=text("help_log_json"))] = None,
    log_prompts: Annotated[bool | None, typer.Option("--log-prompts", help=text("help_log_prompts"))] = None,
    allow_sleep: Annotated[bool, typer.Option("--allow-sleep", help=text("help_allow_sleep"))] = False,
    no_work: Annotated[bool, typer.Option("--no-work", help=text("help_no_work"))] = False,
    watch: Annotated[bool, typer.Option("--watch", help=text("help_watch"))] = False,
    as_json: Json = False,
    home: Home = None,
) -> None:
    """Submit a batch and work until it is over."""
    from dujiang.cli import run as door

    wish = door.Wish(
        input_path,
        out,
        name,
        refs,
        model,
        concurrency,
        priority,
        max_images,
        on_doubt,
        retry_failed,
        skip_invalid,
        quick_exit,
        give_up_after,
        allow_sleep,
        door.Working.LEAVES if no_work else door.Working.WATCHES if watch else door.Working.WORKS,
        as_json,
        {"log_file": log_file, "log_json": log_json, "log_prompts": log_prompts},
    )
    raise typer.Exit(door.run(wish, home))


@app.command(help=text("help_worker"))
def worker(
    max_jobs: Annotated[int | None, typer.Option("--max-jobs", min=1, help=text("help_max_jobs"))] = None,
    name: Annotated[str | None, typer.Option("--name", help=text("help_worker_name"))] = None,
    quick_exit: Annotated[bool, typer.Option("--quick-exit", help=text("help_quick_exit"))] = False,
    home: Home = None,
) -> None:
    """Work for every batch."""
    from dujiang.cli import workers as door

    raise typer.Exit(door.work(max_jobs, name, home, quick_exit=quick_exit))


@workers_app.command("list", help=text("help_workers_list"))
def workers_list(as_json: Json = False, home: Home = None) -> None:
    """Who works."""
    from dujiang.cli import workers as door

    raise typer.Exit(door.list_all(home, as_json=as_json))


@workers_app.command("check", help=text("help_workers_check"))
def workers_check(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help=text("help_check_name"))] = None,
    home: Home = None,
) -> None:
    """Whether a worker lives."""
    from dujiang.cli import workers as door

    raise typer.Exit(door.check(name, home))


@app.command(help=text("help_plan"))
def plan(
    input_path: InputPath,
    refs: Refs = None,
    model: Annotated[str, typer.Option("--model", help=text("help_model"))] = "4.0",
    as_json: Json = False,
) -> None:
    """Check an input and say what it would cost."""
    from dujiang.cli import plan as door
    from dujiang.cli.rows import Source

    raise typer.Exit(door.plan(Source(input_path, model, refs), as_json=as_json))


@batch_app.command("list", help=text("help_batch_list"))
def batch_list(as_json: Json = False, home: Home = None) -> None:
    """Every batch."""
    from dujiang.cli import batches as door

    raise typer.Exit(door.list_all(home, as_json=as_json))


@batch_app.command("show", help=text("help_batch_show"))
def batch_show(batch: BatchWord, as_json: Json = False, home: Home = None) -> None:
    """One batch."""
    from dujiang.cli import batches as door

    raise typer.Exit(door.show(batch, home, as_json=as_json))


@batch_app.command("pause", help=text("help_batch_pause"))
def batch_pause(batch: BatchWord, home: Home = None) -> None:
    """Stop submitting."""
    from dujiang.cli import batches as door

    raise typer.Exit(door.pause(batch, home, paused=True))


@batch_app.command("resume", help=text("help_batch_resume"))
def batch_resume(batch: BatchWord, home: Home = None) -> None:
    """Go on submitting."""
    from dujiang.cli import batches as door

    raise typer.Exit(door.pause(batch, home, paused=False))


@batch_app.command("priority", help=text("help_batch_priority"), context_settings={"ignore_unknown_options": True})
def batch_priority(batch: BatchWord, priority: Points, home: Home = None) -> None:
    """What goes first."""
    from dujiang.cli import batches as door

    raise typer.Exit(door.priority(batch, priority, home))


@batch_app.command("budget", help=text("help_batch_budget"))
def batch_budget(
    batch: BatchWord,
    images: Annotated[str, typer.Argument(metavar="IMAGES", help=text("help_images"))],
    home: Home = None,
) -> None:
    """How many images it may bring."""
    from dujiang.cli import batches as door

    raise typer.Exit(door.budget(batch, images, home))


@batch_app.command("cancel", help=text("help_batch_cancel"))
def batch_cancel(batch: BatchWord, home: Home = None) -> None:
    """Cancel what waits, ask for what runs."""
    from dujiang.cli import batches as door

    raise typer.Exit(door.cancel(batch, home))


@tasks_app.command("list", help=text("help_tasks_list"))
def tasks_list(
    batch: Annotated[str | None, typer.Option("--batch", help=text("help_batch_word"))] = None,
    state: States = None,
    code: Annotated[str | None, typer.Option("--code", help=text("help_code"))] = None,
    after: Annotated[int, typer.Option("--after", help=text("help_after"))] = 0,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help=text("help_limit"))] = 50,
    as_json: Json = False,
    home: Home = None,
) -> None:
    """A page of tasks."""
    from dujiang.cli import tasks as door

    raise typer.Exit(door.list_page(home, batch, state or [], code, after, limit, as_json=as_json))


@tasks_app.command("show", help=text("help_tasks_show"))
def tasks_show(
    task: Annotated[int, typer.Argument(metavar="TASK", help=text("help_task_ids"))],
    as_json: Json = False,
    home: Home = None,
) -> None:
    """One task and its history."""
    from dujiang.cli import tasks as door

    raise typer.Exit(door.show(task, home, as_json=as_json))


@tasks_app.command("cancel", help=text("help_tasks_cancel"))
def tasks_cancel(tasks: TaskIds, home: Home = None) -> None:
    """Cancel tasks."""
    from dujiang.cli import tasks as door

    raise typer.Exit(door.cancel(tasks, home))


@tasks_app.command("priority", help=text("help_tasks_priority"), context_settings={"ignore_unknown_options": True})
def tasks_priority(priority: Points, tasks: TaskIds, home: Home = None) -> None:
    """What goes first in a batch."""
    from dujiang.cli import tasks as door

    raise typer.Exit(door.priority(priority, tasks, home))


@tasks_app.command("retry", help=text("help_tasks_retry"))
def tasks_retry(
    tasks: Annotated[list[int] | None, typer.Argument(metavar="TASK", help=text("help_task_ids"))] = None,
    batch: Annotated[str | None, typer.Option("--batch", help=text("help_retry_batch"))] = None,
    state: States = None,
    code: Annotated[str | None, typer.Option("--code", help=text("help_code"))] = None,
    again: Annotated[bool, typer.Option("--again", help=text("help_again"))] = False,
    home: Home = None,
) -> None:
    """New tasks for ended ones."""
    from dujiang.cli import tasks as door

    raise typer.Exit(door.retry(tasks or [], home, batch, state or [], code, again=again))


@accounts_app.command("list", help=text("help_accounts_list"))
def accounts_list(as_json: Json = False, home: Home = None) -> None:
    """Every account."""
    from dujiang.cli import accounts as door

    raise typer.Exit(door.list_all(home, as_json=as_json))


@accounts_app.command("test", help=text("help_accounts_test"))
def accounts_test(
    account: Annotated[str | None, typer.Argument(metavar="ACCOUNT", help=text("help_account_name"))] = None,
    as_json: Json = False,
    home: Home = None,
) -> None:
    """Whether the vendor takes the keys."""
    from dujiang.cli import accounts as door

    raise typer.Exit(door.test(account, home, as_json=as_json))


@accounts_app.command("pause", help=text("help_accounts_pause"))
def accounts_pause(account: AccountName, home: Home = None) -> None:
    """Submit nothing with it."""
    from dujiang.cli import accounts as door

    raise typer.Exit(door.stop(account, home, "paused"))


@accounts_app.command("drain", help=text("help_accounts_drain"))
def accounts_drain(account: AccountName, home: Home = None) -> None:
    """Let it run dry."""
    from dujiang.cli import accounts as door

    raise typer.Exit(door.stop(account, home, "draining"))


@accounts_app.command("resume", help=text("help_accounts_resume"))
def accounts_resume(account: AccountName, home: Home = None) -> None:
    """Submit with it again."""
    from dujiang.cli import accounts as door

    raise typer.Exit(door.stop(account, home, None))


@accounts_app.command("cap", help=text("help_accounts_cap"))
def accounts_cap(
    account: AccountName,
    images: Annotated[str, typer.Argument(metavar="IMAGES", help=text("help_cap_images"))],
    home: Home = None,
) -> None:
    """Images a day."""
    from dujiang.cli import accounts as door

    raise typer.Exit(door.cap(account, images, home))


@accounts_app.command("spent", help=text("help_accounts_spent"))
def accounts_spent(
    month: Annotated[str | None, typer.Option("--month", metavar="YYYY-MM", help=text("help_month"))] = None,
    as_json: Json = False,
    home: Home = None,
) -> None:
    """Images of a month."""
    from dujiang.cli import accounts as door

    raise typer.Exit(door.spent(month, home, as_json=as_json))


@limit_app.command("show", help=text("help_limit_show"))
def limit_show(as_json: Json = False, home: Home = None) -> None:
    """Every lane's limit."""
    from dujiang.cli import limits as door

    raise typer.Exit(door.show(home, as_json=as_json))


@limit_app.command("hint", help=text("help_limit_hint"))
def limit_hint(
    lane: Annotated[str | None, typer.Argument(metavar="LANE", help=text("help_lane"))] = None,
    home: Home = None,
) -> None:
    """Look at once."""
    from dujiang.cli import limits as door

    raise typer.Exit(door.hint(lane, home))


@app.command(help=text("help_pause"))
def pause(home: Home = None) -> None:
    """Pause everything."""
    from dujiang.cli import accounts as door

    raise typer.Exit(door.pause_everything(home, paused=True))


@app.command(help=text("help_resume"))
def resume(home: Home = None) -> None:
    """Let everything go on."""
    from dujiang.cli import accounts as door

    raise typer.Exit(door.pause_everything(home, paused=False))


@app.command(help=text("help_prune"))
def prune(
    older_than: Annotated[str, typer.Option("--older-than", metavar="AGE", help=text("help_older_than"))],
    dry_run: Annotated[bool, typer.Option("--dry-run", help=text("help_dry_run"))] = False,
    as_json: Json = False,
    home: Home = None,
) -> None:
    """Forget batches that were over long ago."""
    from dujiang.cli import prune as door

    raise typer.Exit(door.prune(older_than, home, dry_run=dry_run, as_json=as_json))


@app.command(help=text("help_restored"))
def restored(home: Home = None) -> None:
    """Work with a copy of the database."""
    from dujiang.cli import restored as door

    raise typer.Exit(door.take_over(home))


@app.command(help=text("help_resolve"))
def resolve(
    task: Annotated[int, typer.Argument(metavar="TASK", help=text("help_task_ids"))],
    decision: Annotated[Decision, typer.Argument(metavar="DECISION", help=text("help_decision"))],
    job_id: Annotated[str | None, typer.Argument(metavar="JOB_ID", help=text("help_job_id"))] = None,
    home: Home = None,
) -> None:
    """Decide about a task in doubt."""
    from dujiang.cli import tasks as door

    raise typer.Exit(door.resolve(task, decision.value, job_id, home))


@app.command(
    help=text("help_sim"),
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def sim(context: typer.Context) -> None:
    """Serve a local Jimeng and Superbed."""
    from dujiang.simulator.__main__ import main

    raise typer.Exit(main(context.args))


@app.command(help=text("help_doctor"))
def doctor(
    out: Annotated[Path, typer.Option("--out", help=text("help_out"))] = Path("dujiang-out"),
    as_json: Json = False,
    home: Home = None,
) -> None:
    """Check settings, keys, proxies, endpoint, clock, image host, disk and database."""
    from dujiang.cli import doctor as door

    raise typer.Exit(door.doctor(out, home, as_json=as_json))


@config_app.command("schema", help=text("help_config_schema"))
def config_schema(as_json: Json = False) -> None:
    """Every setting."""
    from dujiang.cli import config as door

    raise typer.Exit(door.schema(as_json=as_json))


@config_app.command("get", help=text("help_config_get"))
def config_get(
    setting: Annotated[str | None, typer.Argument(metavar="SETTING", help=text("help_setting"))] = None,
    home: Home = None,
) -> None:
    """The settings in force."""
    from dujiang.cli import config as door

    raise typer.Exit(door.get(setting, home))


@app.command(help=text("help_version"))
def version(as_json: Json = False, home: Home = None) -> None:
    """Versions of the program, its parts and its database."""
    from dujiang.cli import version as door

    raise typer.Exit(door.version(home, as_json=as_json))
