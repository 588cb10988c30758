"""The catalogue's page for the doors: help, results, progress, refusals."""

from typing import Final

DOOR_TEXTS: Final[dict[str, tuple[str, str]]] = {
    # -- help ---------------------------------------------------------------------------------------------------------
    "help_dujiang": (
        "都江：把几十到几十万张图片稳妥地从限并发的付费 API（即梦）里取回来。不丢任务，不重复付费。",
        "Gets images out of a paid API that allows only a few jobs at a time. Nothing lost, nothing paid twice.",
    ),
    "help_lang": ("界面语言：zh 或 en（默认随系统）", "Language: zh or en (default: the system's)"),
    "help_json": ("在标准输出打印 JSON", "Print JSON on stdout"),
    "help_home": (
        "数据库、锁文件所在目录（默认 ~/.dujiang）",
        "Folder of the database and lock files (default ~/.dujiang)",
    ),
    "help_init": (
        "询问密钥并写入 dujiang.toml；第一次使用从这里开始",
        "Ask for your keys and write them into dujiang.toml: begin here",
    ),
    "help_account": (
        "密钥属于哪个账号；同名的换新密钥，其他账号不动",
        "Account that the keys belong to: one of this name gets them, others stay",
    ),
    "help_keyring": (
        "密钥存入系统钥匙串，文件里只写引用（需要 pip install keyring）",
        "Keep the keys in the system's keyring, and in the file only where (needs pip install keyring)",
    ),
    "help_run": (
        "提交一个批次并一直工作到结束；中断后再运行同一命令即可继续",
        "Submit a batch and work until it is over; run it again to go on after a stop",
    ),
    "help_input": (
        ".csv .tsv .jsonl .txt 文件，或 - （从标准输入读，每行一个提示词）",
        "a .csv, .tsv, .jsonl or .txt file, or - (one prompt a line on stdin)",
    ),
    "help_out": ("输出目录", "Folder for results"),
    "help_name": ("批次名（默认取输入文件名）", "Name of the batch (default: the input's file name)"),
    "help_refs": (
        "参考图相对路径的起点（默认输入文件所在的文件夹）",
        "Where relative paths of references begin (default: the input's folder)",
    ),
    "help_log_file": (
        "日志文件（默认 DUJIANG_HOME/logs/app.log）",
        "Log file (default: logs/app.log in DUJIANG_HOME)",
    ),
    "help_log_json": ("日志用 JSON 行", "Log lines are JSON objects"),
    "help_log_prompts": (
        "日志里写出提示词（默认只写哈希）",
        "Show prompts in the log (otherwise only their hash)",
    ),
    "help_model": (
        "没有“模型”列时使用的模型：4.0 4.6 3.1 3.0 i2i-3.0",
        "Model of rows that name none: 4.0 4.6 3.1 3.0 i2i-3.0",
    ),
    "help_concurrency": (
        "并发上限：auto（自动寻找）、auto:1..8、quiet、eager 或 fixed:N；对所有程序生效，直到再次设置",
        "Limit: auto (finds itself), auto:1..8, quiet, eager or fixed:N; for every program until it is set again",
    ),
    "help_on_doubt": (
        "提交后没收到应答时：hold 等人决定，resubmit:N 最多自动重交 N 次（可能重复付费），fail 算失败",
        "When a submit's answer never came: hold for a decision, resubmit:N (may be paid twice), or fail",
    ),
    "help_retry_failed": ("把失败的任务再做一次", "Make failed tasks again"),
    "help_skip_invalid": ("跳过有错的行，其余照做", "Leave out rows that are wrong, do the rest"),
    "help_quick_exit": (
        "Ctrl-C 后不等正在生成的任务，下次运行时接着取回",
        "On Ctrl-C leave running jobs to the next run instead of waiting for them",
    ),
    "help_give_up_after": (
        "服务商连续多少秒不应答就退出（默认一直等）",
        "Stop when the vendor has not answered for so many seconds (default: wait)",
    ),
    "help_allow_sleep": (
        "运行期间允许电脑睡眠（Windows 和 macOS 默认不让睡）",
        "Let the machine fall asleep meanwhile (on Windows and macOS it is kept awake)",
    ),
    "help_plan": (
        "检查输入，列出全部错误，算出图片数和费用；不联网",
        "Check an input, list everything wrong, count images and cost; uses no network",
    ),
    "help_batch": ("查看和控制批次", "See and steer batches"),
    "help_batch_word": ("批次名或批次 id", "name or id of a batch"),
    "help_batch_list": ("列出所有批次", "List every batch"),
    "help_batch_show": ("查看一个批次", "Show one batch"),
    "help_batch_pause": ("暂停：不再提交，已在生成的照常取回", "Pause: submit nothing new, collect what runs"),
    "help_batch_resume": ("继续提交", "Go on submitting"),
    "help_batch_priority": (
        "优先级 −100…100，改后从下一个空出的名额起生效",
        "Priority from -100 to 100, from the next free slot on",
    ),
    "help_batch_budget": (
        "这个批次总共最多多少张图片（已用的算在内）；none 表示不限",
        "How many images the batch may bring in all, those it has taken included; none: no budget",
    ),
    "help_images": ("图片张数，或 none", "a number of images, or none"),
    "help_cap_images": (
        "每天的图片张数；none：不限；default：按配置",
        "images a day; none: no cap; default: the setting",
    ),
    "help_points": ("优先级，−100…100", "priority, from -100 to 100"),
    "help_priority": (
        "批次的优先级，−100…100，大的先做（默认 0，或上次设置的值）",
        "Priority of the batch, from -100 to 100, the higher goes first (default: 0, or as it was set)",
    ),
    "help_max_images": (
        "这个批次总共最多多少张图片；到了就停，退出码 5",
        "How many images the batch may bring in all; it stops there with exit code 5",
    ),
    "help_tasks_priority": (
        "任务的优先级，加在批次的优先级上；写在任务编号之前",
        "Priority of tasks, added to that of their batch; it stands before the ids",
    ),
    "help_no_work": (
        "只提交批次就返回，由 dujiang worker 去做",
        "Submit the batch and return: dujiang worker does the rest",
    ),
    "help_watch": (
        "只提交并看着，由 dujiang worker 去做",
        "Submit the batch and watch it: dujiang worker does the rest",
    ),
    "run_left": (
        "批次 {batch} 已提交。dujiang worker 会去做；dujiang batch show {batch} 看进度",
        "batch {batch} is submitted. dujiang worker does it; dujiang batch show {batch} tells how it gets on",
    ),
    "help_worker": (
        "一直工作，为所有批次做任务；可以在多台机器上各开几个",
        "Work for every batch, until it is stopped; start any number, on any number of machines",
    ),
    "help_max_jobs": (
        "本程序同时最多有多少个作业（默认：有多少名额用多少）",
        "Jobs that this program may hold at once (default: as many as there are slots)",
    ),
    "help_worker_name": ("本程序的名字", "What this program is called"),
    "help_workers": ("查看谁在工作", "See who works"),
    "help_workers_list": (
        "正在工作的程序：名字、机器、版本、开始时间、手上的任务",
        "Programs that work: name, machine, version, since when, and what they have in hand",
    ),
    "worker_works": (
        "{name} 开始工作。Ctrl-C 一次：做完手上的再停；两次：立即停",
        "{name} works. Ctrl-C once: finish what runs; twice: leave now",
    ),
    "worker_batch_over": ("批次 {batch} 已结束，报告已写好", "batch {batch} is over, its reports are written"),
    "help_workers_check": (
        "程序还活着吗：退出码 0 是，1 不是（给容器的健康检查用）",
        "Whether a worker lives: exit code 0 if so, 1 if not; for a container's health check",
    ),
    "help_check_name": (
        "哪个程序（默认：用这个 home 目录的任一个）",
        "Which worker (default: any that uses this home folder)",
    ),
    "worker_unknown": ("没有这个程序在工作", "no such worker works"),
    "worker_silent": ("{name} 已 {silent} 秒没有心跳", "{name} has been silent for {silent} s"),
    "no_workers": ("现在没有程序在工作", "no program works at the moment"),
    "column_worker": ("程序", "worker"),
    "column_machine": ("机器", "machine"),
    "column_pid": ("进程号", "pid"),
    "column_version": ("版本", "version"),
    "column_since": ("开始于", "since"),
    "column_silent": ("上次心跳", "last heard"),
    "column_jobs": ("作业", "jobs"),
    "column_tasks": ("任务", "tasks"),
    "help_accounts": ("查看和控制账号", "See and steer accounts"),
    "help_account_name": ("账号名", "name of an account"),
    "help_accounts_list": (
        "每个账号的状态、占用、今天的图片数，以及为什么停着",
        "State, slots and images of each account, and why one rests",
    ),
    "help_accounts_test": (
        "免费地检验密钥；通过的账号立即恢复使用",
        "Test keys, free of charge; a good key ends a rest",
    ),
    "help_accounts_pause": (
        "暂停账号：不再提交，已在生成的照常取回",
        "Pause an account: submit nothing with it, collect what runs",
    ),
    "help_accounts_drain": (
        "停用账号前先排空：不再提交，accounts list 会说什么时候排空",
        "Submit nothing more with it: list says when it is drained",
    ),
    "help_accounts_resume": ("恢复使用账号", "Submit with an account again"),
    "help_accounts_cap": ("账号每天最多多少张图片", "How many images an account may bring a day"),
    "help_accounts_spent": (
        "每个账号一个月的提交数和计费图片数，包括已清理的批次",
        "Submits and images charged of a month, pruned batches included",
    ),
    "help_month": ("哪个月（默认本月）", "Which month (default: this one)"),
    "month_unknown": ("--month {value} 不是月份，例如 2026-03", "--month {value} is no month; write 2026-03"),
    "nothing_spent": ("这个月没有提交过", "nothing was submitted in that month"),
    "column_product": ("产品", "product"),
    "column_images_in_doubt": ("存疑图片", "images in doubt"),
    "help_restored": (
        "改用从备份恢复的数据库：没做完的批次先全部暂停，由你逐个决定",
        "Go on with a database restored from a backup: unfinished batches are paused until you decide about each",
    ),
    "restored_paused": (
        "从现在起用这个数据库。已暂停没做完的批次：{batches}。备份之后原来的数据库可能已提交过其中的任务；"
        "核对后 dujiang batch resume，或 cancel",
        "this database is used from now on. Paused, because the original may have submitted some of their tasks since"
        " the backup: {batches}. Look, then dujiang batch resume or cancel each",
    ),
    "restored_nothing": (
        "从现在起用这个数据库。没有没做完的批次",
        "this database is used from now on. Nothing in it is unfinished",
    ),
    "database_restored": (
        "数据库 {path} 是副本（从备份恢复，或被移动过）：它以为还没提交的任务，原来的可能已提交过，再提交会重复付费。"
        "确认原来的不再使用后，运行 dujiang restored",
        "the database {path} is a copy (restored from a backup, or moved). What it has as not yet submitted the"
        " original may have submitted, and would be paid for twice. When the original is out of use: dujiang restored",
    ),
    "help_prune": (
        "清理早已结束的批次：删除其任务和历史，保留花费；图片和报告不动",
        "Forget batches that were over long ago; what they cost, pictures and reports stay",
    ),
    "help_older_than": (
        "多久没有变化才清理：30d（天）、8w（周），至少一天",
        "How long nothing must have changed: 30d (days), 8w (weeks); a day at least",
    ),
    "help_dry_run": ("只列出会清理哪些批次", "Only show what would go"),
    "older_than_unknown": (
        "--older-than {value} 无法理解，请写 30d 或 8w",
        "--older-than {value} means nothing: write 30d or 8w",
    ),
    "prune_done": (
        "已清理 {batches} 个批次、{tasks} 个任务；花费见 dujiang accounts spent",
        "pruned: {batches} batches, {tasks} tasks; dujiang accounts spent tells what they cost",
    ),
    "prune_would": (
        "会清理 {batches} 个批次、{tasks} 个任务",
        "would be pruned: {batches} batches, {tasks} tasks",
    ),
    "batch_pruned": (
        "批次 {batch} 已清理：哪些行付过费已无记录，再运行会全部重新付费。要重新做，请用 --name 换一个名字",
        "the batch {batch} was pruned: nobody knows any more which rows are paid for, so running it again would pay for"
        " all of them. To make them anew, choose another name with --name",
    ),
    "batch_was_pruned": (
        "这个批次已清理：任务和历史已删除，花费、图片和报告还在",
        "this batch was pruned: its tasks and their history are gone; what it cost, pictures and reports stay",
    ),
    "help_pause": (
        "暂停一切：所有批次都不再上传和提交，已在生成的照常取回",
        "Pause everything: no batch uploads or submits, what runs is collected",
    ),
    "help_resume": ("从暂停中恢复", "Let everything go on after a pause"),
    "no_accounts": (
        "还没有账号，请运行 dujiang init",
        "there are no accounts yet: run dujiang init",
    ),
    "account_unknown": (
        "没有账号 {account}。现有：{known}",
        "there is no account {account}. Known: {known}",
    ),
    "cap_unknown": (
        "{value} 不对，请写一个大于 0 的整数、none（不限）或 default（按配置）",
        "{value} is not known: write a whole number above 0, none (no cap) or default (the setting)",
    ),
    "images_unknown": (
        "{value} 不对，请写一个大于 0 的整数，或 none",
        "{value} is not known: write a whole number above 0, or none",
    ),
    "account_active": ("可用", "active"),
    "account_paused": ("已暂停", "paused"),
    "account_draining": ("排空中", "draining"),
    "account_drained": ("已排空", "drained"),
    "account_resting": ("被拒，休息中", "refused, resting"),
    "account_cap_now": ("账号 {account} 每天最多 {images} 张图片", "account {account} may bring {images} images a day"),
    "account_cap_none": ("账号 {account} 不限每天的图片数", "account {account} has no cap"),
    "account_capped": ("今日额度已用完", "today's cap is reached"),
    "account_unconfigured": ("未配置", "not configured"),
    "account_now_active": ("账号 {account} 恢复使用", "account {account} is used again"),
    "account_now_paused": (
        "账号 {account} 已暂停，还有 {count} 个作业在运行，会照常取回",
        "account {account} is paused; jobs still running, which are collected: {count}",
    ),
    "account_now_draining": (
        "账号 {account} 不再接新任务，还有 {count} 个作业在运行；排空后 accounts list 显示“已排空”",
        "account {account} takes nothing new; jobs still running: {count}. accounts list says when it is drained",
    ),
    "all_models": ("全部", "all"),
    "test_accepted": ("账号 {account} 的密钥 {key} 可用", "key {key} of account {account} is accepted"),
    "test_refused": (
        "账号 {account} 的密钥 {key} 被拒绝：{reason}",
        "key {key} of account {account} is refused: {reason}",
    ),
    "test_unreachable": (
        "连不上服务商，没能检验账号 {account} 的密钥 {key}：{reason}",
        "the vendor can't be reached to test key {key} of account {account}: {reason}",
    ),
    "everything_paused": (
        "已暂停一切，dujiang resume 恢复",
        "everything is paused; dujiang resume lets it go on",
    ),
    "everything_resumed": ("已恢复", "everything goes on"),
    "batch_priority_now": (
        "批次 {batch} 的优先级是 {priority}",
        "batch {batch} has priority {priority}",
    ),
    "batch_budget_now": (
        "批次 {batch} 总共最多 {images} 张图片，已用 {taken}",
        "batch {batch} may bring {images} images in all; {taken} are taken",
    ),
    "batch_budget_none": ("批次 {batch} 不限图片数", "batch {batch} has no budget"),
    "tasks_priority_now": (
        "优先级 {priority}：{count} 个任务",
        "priority {priority}: tasks {count}",
    ),
    "column_images_today": ("今日图片", "images today"),
    "column_keys": ("密钥数", "keys"),
    "column_models": ("模型", "models"),
    "column_max_images": ("图片上限", "budget (images)"),
    "column_images_taken": ("已用图片", "budget taken"),
    "help_batch_cancel": (
        "取消等待中的任务，并请求取消正在排队的作业",
        "Cancel what waits and ask the vendor to drop what is queued there",
    ),
    "help_tasks": ("查看和控制任务", "See and steer tasks"),
    "help_tasks_list": ("分页列出任务以及等待原因", "List tasks page by page, with why each waits"),
    "help_tasks_show": ("查看一个任务的全部经过", "Show one task and everything that happened to it"),
    "help_tasks_cancel": ("取消任务", "Cancel tasks"),
    "help_tasks_retry": (
        "把已结束的任务再做一次（可按批次、状态、错误码筛选）",
        "Make ended tasks again: by id, or all of a batch with a state or an error code",
    ),
    "help_task_ids": ("任务 id", "id of a task"),
    "help_state": (
        "只看这个状态（如 ready、in_doubt、failed），可重复",
        "Only this state (such as ready, in_doubt, failed); may be repeated",
    ),
    "help_code": ("只看这个错误码，如 50412", "Only this error code, such as 50412"),
    "help_after": ("从这个 id 之后开始", "Begin after this id"),
    "help_limit": ("最多多少个", "At most so many"),
    "help_retry_batch": ("整个批次里失败、被拦截、丢失的任务", "All of this batch that failed, was blocked or lost"),
    "help_again": ("成功的也再做一次（会再次付费）", "Also those that succeeded (paid again)"),
    "help_resolve": (
        "对存疑任务（提交后没收到应答）做决定",
        "Decide about a task in doubt (its submit was never answered)",
    ),
    "help_decision": (
        "resubmit 重新提交；found 已在服务商找到作业；fail 算失败",
        "resubmit it; found: the vendor has the job; fail: count it as failed",
    ),
    "help_job_id": ("服务商的 task_id（仅用于 found）", "the vendor's task_id (for found only)"),
    "help_sim": (
        "启动本机即梦和聚合图床模拟器，用于演练和测试（参数见 dujiang sim --help）",
        "Serve a local Jimeng and Superbed for rehearsals and tests (see dujiang sim --help)",
    ),
    "help_doctor": (
        "检查设置、密钥、代理、服务地址、时钟、图床、磁盘和数据库",
        "Check settings, keys, proxies, endpoint, clock, image host, disk and database",
    ),
    "help_limits": ("查看并发上限", "See limits and how they were found"),
    "help_limit_show": (
        "每个账号和产品的并发上限、占用、拒绝次数、用时，以及下次试探的时间",
        "Limit, refusals, run times; what is believed, and the next look",
    ),
    "help_limit_hint": (
        "告诉它额度变大了，立即试探",
        "Say that the quota has grown: look at once",
    ),
    "help_lane": (
        "账号/产品，如 default/jimeng_t2i_v40（默认全部）",
        "account/product, as in default/jimeng_t2i_v40 (default: all)",
    ),
    "no_lanes": ("还没有提交过任务", "nothing was submitted yet"),
    "lane_unknown": (
        "没有 {lane}，dujiang limit show 可列出全部",
        "there is no {lane}; dujiang limit show lists all",
    ),
    "hint_nothing": (
        "没有自动寻找上限的账号（固定上限请用 run --concurrency 改）",
        "no limit finds itself here (a fixed one is set with run --concurrency)",
    ),
    "hint_told": ("下一个任务会试探：{lanes}", "the next task looks: {lanes}"),
    "column_lane": ("账号/产品", "account/product"),
    "column_limit": ("设定", "limit"),
    "column_in_use": ("占用", "in use"),
    "column_refused_of": ("被拒/时", "refused/h"),
    "column_run_times": ("用时（95%）", "run s (95 %)"),
    "column_next_look": ("下次试探", "next look"),
    "refused_of": ("{refusals}/{submits}", "{refusals} of {submits}"),
    "next_look_due": ("下个任务", "next task"),
    "lane_stands": ("现在不提交：{reason}", "nothing is submitted now: {reason}"),
    "lane_slowed": (
        "账号提交太快过，现在每 {every} 秒最多提交一个",
        "its account was too fast: one submit each {every} s",
    ),
    "lane_fixed": ("固定为 {slots}，不试探", "always {slots}; it does not look for more"),
    "lane_new": ("还什么都不知道", "nothing is known yet"),
    "lane_climbing": (
        "正在寻找上限：每收下一个就多放一个，直到被拒",
        "looks for its limit: one more with each answer, until one is refused",
    ),
    "lane_climbing_again": (
        "试探发现 {former} 之上还有余量，继续往上找，直到被拒",
        "found room above {former}: one more with each answer, until one is refused",
    ),
    "lane_holds": ("认为上限是 {slots}（{why}）", "believes in {slots} ({why})"),
    "lane_looks_next": (
        "认为上限是 {slots}（{why}），占满后的下一个任务会试探",
        "believes in {slots} ({why}); once full it looks for more",
    ),
    "lane_looks_later": (
        "认为上限是 {slots}（{why}），{wait} 秒后再试探",
        "believes in {slots} ({why}); looks for more in {wait} s",
    ),
    "lane_because_new": ("还没有根据", "nothing is known yet"),
    "lane_because_50430": ("再多就被拒，50430", "more was refused, 50430"),
    "lane_because_probe": ("试探的结果", "a look has shown it"),
    "lane_because_admitted": ("这么多都被收下", "so many were taken"),
    "lane_because_high": ("你设的上界", "the bound that you set"),
    "lane_because_bounds": ("上下界改过", "the bounds were set anew"),
    "lane_fell": (
        "以前能收 {former} 个，现在拒绝：别的程序在用这个账号，或配额降低了",
        "it was {former}, which the vendor refuses now: other programs use the account, or the quota fell",
    ),
    "help_config": ("查看设置", "See settings"),
    "help_config_schema": ("列出全部设置项", "List every setting"),
    "help_config_get": ("查看当前生效的设置（密钥不显示）", "Show the settings in force (never secrets)"),
    "help_setting": ("设置项的名字", "name of a setting"),
    "help_version": ("程序、部件和数据库的版本", "Versions of the program, its parts and its database"),
    # -- a command line that can't be understood ----------------------------------------------------------------------
    "usage_no_command": (
        "没有命令 {name}，可用：{known}（用法见 {command} --help）",
        "there is no command {name}, but: {known} (see {command} --help)",
    ),
    "usage_no_option": ("没有选项 {name}", "there is no option {name}"),
    "usage_no_option_near": ("没有选项 {name}，是不是 {near}？", "there is no option {name}; is {near} meant?"),
    "usage_extra": ("多余的参数：{details}", "not understood: {details}"),
    "usage_missing": ("缺少 {name}", "{name} is missing"),
    "usage_no_value": ("{name} 后面缺少值", "{name} needs a value"),
    "usage_choice": ("可用：{limit}", "known: {limit}"),
    "usage_value": ("{name} 的值不对（{details}）", "{name} has a value that can't be used ({details})"),
    "usage_other": ("命令写得不对（{details}）", "the command can't be understood ({details})"),
    "usage_hint": ("用法见 {command} --help", "see {command} --help"),
    # -- errors -------------------------------------------------------------------------------------------------------
    "error": ("错误", "error"),
    "interrupted": ("已中断，进度已保存", "interrupted; what was done is saved"),
    "unexpected": (
        "意外错误（{kind}）：{message}。已完成的进度没有丢失；设 DUJIANG_DEBUG=1 可看到详情",
        "unexpected error ({kind}): {message}. Nothing that was done is lost; DUJIANG_DEBUG=1 shows details",
    ),
    "no_credentials": (
        "没有密钥。请运行 dujiang init，或设置环境变量 VOLCENGINE_ACCESS_KEY 和 VOLCENGINE_SECRET_KEY",
        "there are no keys: run dujiang init, or set VOLCENGINE_ACCESS_KEY and VOLCENGINE_SECRET_KEY",
    ),
    "settings_invalid": ("设置有误：", "a setting can't be used:"),
    "setting_unknown_here": (
        "没有这个设置项（dujiang config schema 可列出全部）",
        "there is no such setting (dujiang config schema lists all)",
    ),
    "setting_missing": ("缺少这一项", "is missing"),
    "setting_above": ("必须大于 {limit}", "must be above {limit}"),
    "setting_at_least": ("不能小于 {limit}", "must be at least {limit}"),
    "setting_at_most": ("不能大于 {limit}", "must be at most {limit}"),
    "setting_number": ("应为数字", "must be a number"),
    "setting_whole": ("应为整数", "must be a whole number"),
    "setting_yes_no": ("应为 true 或 false", "must be true or false"),
    "setting_text": ("应为文本", "must be text"),
    "setting_choice": ("可用：{limit}", "must be one of {limit}"),
    "setting_limit": (
        "应写成 auto、auto:1..8、quiet、eager 或 fixed:N（N 为 1–10000），例如 fixed:3",
        "must be auto, auto:1..8, quiet, eager, or fixed:N with N from 1 to 10000, as in fixed:3",
    ),
    "setting_database": (
        "应为数据库地址，例如 sqlite:///D:/dujiang/dujiang.db",
        "must be an address, such as sqlite:////home/me/dujiang.db",
    ),
    "setting_json": (
        "不是有效的 JSON（第 {position} 个字符附近）",
        "is no valid JSON (near character {position})",
    ),
    "setting_lang": ("应为 zh 或 en", "must be zh or en"),
    "setting_toml": ("不是有效的 TOML（{reason}）", "is no valid TOML ({reason})"),
    "setting_encoding": ("不是 UTF-8 编码，请另存为 UTF-8", "is not UTF-8: save it as UTF-8"),
    "setting_key_twice": (
        "“{one}”和“{other}”的 access key 相同，请删去一个",
        "{one!r} and {other!r} have the same access key: remove one",
    ),
    "setting_name_twice": (
        "有两个账号都叫“{account}”，请改名，或把密钥写进同一个账号的 keys",
        "two accounts are called {account!r}: rename one, or put their keys into one account's keys",
    ),
    "setting_no_key": (
        "“{account}”没有完整的密钥，请写 access_key 和 secret_key",
        "{account!r} has no key: give access_key and secret_key",
    ),
    "keyring_no_library": (
        "用系统钥匙串需要 keyring 库，请运行 pip install keyring；或不加 --keyring 运行 dujiang init，把密钥写进文件",
        "the system's keyring needs the library keyring: pip install keyring, or write the keys into the file: "
        "dujiang init without --keyring",
    ),
    "keyring_silent": (
        "系统钥匙串不可用（{reason}）。请登录桌面并解锁它；或不加 --keyring 运行 dujiang init，把密钥写进文件",
        "the system's keyring can't be used ({reason}). Log in and unlock it, or write the keys into the file: "
        "dujiang init without --keyring",
    ),
    "keyring_forgets": (
        "系统钥匙串没有保存住密钥。请换一个钥匙串；或不加 --keyring 运行 dujiang init，把密钥写进文件",
        "the system's keyring did not keep what it was given. Choose another one, or write the keys into the file: "
        "dujiang init without --keyring",
    ),
    "keyring_no_entry": (
        "系统钥匙串里没有 {reference}。请再运行 dujiang init",
        "the system's keyring does not hold {reference}: run dujiang init again",
    ),
    "endpoint_invalid": (
        "服务地址 {endpoint} 不是有效的网址，请检查 DUJIANG_JIMENG_ENDPOINT",
        "the endpoint {endpoint} is no valid address: check DUJIANG_JIMENG_ENDPOINT",
    ),
    "endpoint_insecure": (
        "服务地址 {endpoint} 不是 https；只有本机地址可以不加密",
        "the endpoint {endpoint} is not https; only addresses of this machine may go without",
    ),
    "proxy_unsupported": (
        "不支持环境变量里的这种代理（{endpoint}），请改用 http 代理",
        "the proxy set in the environment is not supported ({endpoint}): use an http proxy",
    ),
    "database_unsupported": (
        "不支持这个数据库地址：{url}。请用 sqlite:///文件路径 或 postgresql://用户:密码@主机/库",
        "this database address is not supported: {url}. Use sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME",
    ),
    "database_no_driver": (
        "使用 PostgreSQL 需要先安装：pip install 'dujiang[postgres]'",
        "PostgreSQL needs its driver: pip install 'dujiang[postgres]'",
    ),
    "database_unreachable": (
        "连不上数据库 {url}（{reason}）",
        "the database {url} can't be reached ({reason})",
    ),
    "database_not_utf8": (
        "数据库 {url} 的编码是 {found}，存不下所有提示词。"
        "请新建一个：createdb --encoding=UTF8 --template=template0 库名",
        "the database {url} is encoded in {found}, which has no room for every prompt."
        " Make another: createdb --encoding=UTF8 --template=template0 NAME",
    ),
    "database_unreadable": (
        "数据库 {path} 打不开（{reason}）。请检查路径和权限；如果文件损坏，请从备份恢复",
        "the database {path} can't be opened ({reason}). Check path and permissions; restore a backup if it is damaged",
    ),
    "database_no_wal": (
        "数据库 {path} 所在的磁盘不支持 WAL（答复 {answer}）。请用 --home 把它放到本机磁盘",
        "the disk of {path} does not support WAL (it answered {answer}): put the database on a local disk with --home",
    ),
    "database_newer": (
        "数据库 {path} 是更新版本的都江创建的（{found}，本程序只认识到 {known}）。请升级程序",
        "the database {path} was made by a newer Dujiang ({found}; this one knows up to {known}). Upgrade the program",
    ),
    "database_network_folder": (
        "数据库 {path} 在网络磁盘上（{kind}），会损坏数据。请用 --home 把它放到本机磁盘",
        "the database {path} is on a network disk ({kind}), which would corrupt it. Put it on a local disk with --home",
    ),
    "database_synced_folder": (
        "数据库 {path} 在同步盘里（{folder}），会损坏数据。请用 --home 把它放到不同步的目录",
        "the database {path} is in a synced folder ({folder}), which would corrupt it. Put it elsewhere with --home",
    ),
    "batch_unknown": (
        "没有批次 {batch}；dujiang batch list 可列出全部",
        "there is no batch {batch}: see dujiang batch list",
    ),
    "batch_ambiguous": (
        "有多个批次叫 {batch}，请用 id：{places}",
        "several batches are called {batch}; use the id:{places}",
    ),
    "batch_name_taken": (
        "{folder} 里的批次 {batch} 来自另一个文件（{source}）。请用 --name 换一个名字",
        "the batch {batch} in {folder} came from another file ({source}): choose another name with --name",
    ),
    "out_is_file": (
        "{path} 是文件，不能用作输出目录，请用 --out 换一个",
        "{path} is a file, so results can't go there: choose a folder with --out",
    ),
    "task_unknown": ("没有任务 {task}", "there is no task {task}"),
    "tasks_unknown": ("有 {count} 个任务不存在", "tasks that do not exist: {count}"),
    "on_doubt_unknown": (
        "--on-doubt {value} 不对，请写 hold、fail 或 resubmit:N（N 为 1–9）",
        "--on-doubt {value} is not known: write hold, fail or resubmit:N with N from 1 to 9",
    ),
    "limit_unknown": (
        "--concurrency {value} 不对，请写 auto、auto:1..8、quiet、eager 或 fixed:N，例如 fixed:3",
        "--concurrency {value} is not known: write auto, auto:1..8, quiet, eager or fixed:N, as in fixed:3",
    ),
    "model_unknown": ("没有模型 {value}，可用：{limit}", "there is no model {value}; known: {limit}"),
    "setting_unknown": (
        "没有设置项 {setting}；dujiang config schema 可列出全部",
        "there is no setting {setting}: see dujiang config schema",
    ),
    "state_unknown": ("没有状态 {state}，可用：{known}", "there is no state {state}, only {known}"),
    "resolve_job_id": (
        "found 后面要写服务商的 task_id，其他决定不要写：dujiang resolve {task} found JOB_ID",
        "found needs the vendor's task_id, the others take none: dujiang resolve {task} found JOB_ID",
    ),
    "resolve_not_in_doubt": (
        "任务 {task} 现在是“{state}”，不是存疑，无需决定",
        "task {task} is {state}, not in doubt: there is nothing to decide",
    ),
    "retry_nothing": ("没有可以重做的任务", "there is nothing to make again"),
    "input_empty": ("{path} 里没有任务", "{path} holds no tasks"),
    # -- init ---------------------------------------------------------------------------------------------------------
    "init_asks": (
        "账号 {account} 的密钥将写入 {path}。输入的内容不会显示。",
        "Keys of the account {account}, to be written into {path}. What you type is not shown.",
    ),
    "init_prompt": ("{what}：", "{what}: "),
    "init_access_key": ("Access Key ID（火山引擎）", "access key (Volcengine)"),
    "init_secret_key": ("Secret Access Key（火山引擎）", "secret key (Volcengine)"),
    "init_superbed_token": ("聚合图床 Superbed 的 token（没有就直接回车）", "Superbed token (Enter if you have none)"),
    "init_empty": ("{what} 是空的", "{what}: nothing was given"),
    "init_sign": (
        "{what}：第 {place} 个字符不可能属于密钥（空格、控制字符或非 ASCII 字符），请重新复制",
        "{what}: character {place} stands in no key (a blank, a control character, or not ASCII): copy it again",
    ),
    "init_shown": (
        "这个终端会显示输入的密钥。请换一个终端，或从标准输入逐行给出 access key、secret key、token",
        "this terminal shows what is typed: use another, or give access key, secret key and token as lines on stdin",
    ),
    "init_arguments": (
        "密钥不能写在命令行上：本机的其他程序看得到，还会留在命令历史里。请只运行 dujiang init，按提示输入",
        "keys don't belong on the command line, where other programs and the shell's history see them: "
        "type dujiang init alone and answer",
    ),
    "init_account": ("--account 的名字不能为空，也不能有控制字符", "--account needs a name without control characters"),
    "init_interrupted": ("已中断，什么也没有写", "interrupted; nothing was written"),
    "init_written": ("已写入 {path}", "written: {path}"),
    "init_no_token": (
        "没有 Superbed token：本地的参考图无法上传，参考图要用公开网址",
        "without a Superbed token reference pictures can't be uploaded from files: they must be public addresses",
    ),
    "init_token_stays": ("原有的 Superbed token 不变", "the Superbed token that was set before stays"),
    "init_ahead": (
        "注意：{names} 优先于这个文件，请删去，否则刚写的不会全部生效",
        "note: {names} comes before this file; unless it is removed, not all that was written counts",
    ),
    "init_idle": (
        "注意：文件里有账号，{names} 不再起作用",
        "note: {names} no longer counts, as accounts of the file come first",
    ),
    "init_next": ("下一步：{command}", "next: {command}"),
    # -- rows ---------------------------------------------------------------------------------------------------------
    "several_batches": (
        "这些行来自不同的批次（{batches}），请分成几个文件运行",
        "these rows come from different batches ({batches}): run them as separate files",
    ),
    "sides_together": (
        "只给了 {limit}，没有给 {field}；width 和 height 要一起给",
        "{limit} is given without {field}: width and height go together",
    ),
    "area_out_of_range": (
        "{field} {value} 的面积不合规定，允许 {limit}",
        "the area of {field} {value} is not allowed: {limit}",
    ),
    "shape_out_of_range": (
        "{field} {value} 的宽高比不合规定，允许 {limit}",
        "the ratio of {field} {value} is not allowed: {limit}",
    ),
    "ratios_out_of_order": (
        "{field} = {value} 大于 {limit}，最小比例不能超过最大比例",
        "{field} = {value} is above {limit}: the least ratio cannot exceed the largest",
    ),
    "rows_invalid": (
        "{count} 行有错，一个任务也没有提交。请改正，或加 --skip-invalid 跳过这些行（dujiang plan 可列出全部）",
        "wrong rows: {count}, so nothing was submitted. Mend them, or leave them out with --skip-invalid "
        "(dujiang plan lists all)",
    ),
    "rows_skipped": ("已跳过 {count} 行有错的", "wrong rows left out: {count}"),
    "rows_more": ("……还有 {count} 行有错", "… and {count} more"),
    "columns_ignored": ("没有用到的列：{columns}", "columns that are not used: {columns}"),
    "plan_result": ("{tasks} 个任务，最多 {images} 张图", "{tasks} tasks, at most {images} images"),
    "plan_cost": (
        "约 ¥{yuan}（按公开价，只对成功的图片计费）",
        "about ¥{yuan} (list price; only successes are billed)",
    ),
    "plan_cost_unknown": (
        "其中 {images} 张没有公开单价，未计入",
        "{images} of them have no known price and are not included",
    ),
    "plan_problems": ("{count} 行有错", "wrong rows: {count}"),
    # -- results ------------------------------------------------------------------------------------------------------
    "run_added": (
        "批次 {batch}：新增 {new}，改动 {changed}，不变 {same}",
        "batch {batch}: new {new}, changed {changed}, same {same}",
    ),
    "end_over": ("批次已结束", "the batch is over"),
    "end_interrupted": ("已停止，进度已保存", "stopped; what was done is saved"),
    "end_credentials": (
        "密钥被拒绝：一个任务也没有提交成功。请检查密钥（dujiang doctor），改好后再运行同一命令",
        "the keys are refused, so nothing was submitted. Check them with dujiang doctor, then run the same command",
    ),
    "end_unreachable": (
        "连不上服务商。任务都还在，网络恢复后再运行同一命令",
        "the vendor can't be reached. Every task is kept: run the same command when the network is back",
    ),
    "end_budget": (
        "图片额度用完了。任务都还在：提高额度（batch budget 或 accounts cap）后再运行同一命令",
        "the budget of images is used up. Every task is kept: raise it (batch budget or accounts cap) and run again",
    ),
    "end_elsewhere": (
        "剩下的作业在另一个服务地址或账号上运行。请恢复原来的 DUJIANG_JIMENG_ENDPOINT 和密钥，再运行同一命令取回",
        "the rest runs at another endpoint or account: restore DUJIANG_JIMENG_ENDPOINT and the keys, then run again",
    ),
    "images_paid": ("计费图片 {count} 张", "images charged: {count}"),
    "where_images": ("图片在 {path}", "images: {path}"),
    "where_failed": (
        "没做成的在 {path}：改好后对它运行 dujiang run，就会接着做这个批次",
        "what failed: {path}. Mend its rows and give it to dujiang run: that continues this batch",
    ),
    "how_to_retry": (
        "失败的要原样再做一次：再运行同一命令，加 --retry-failed",
        "to make failed ones again as they are: run the same command with --retry-failed",
    ),
    "run_all_paused": (
        "一切都已暂停，不会提交新任务；继续请运行 dujiang resume",
        "everything is paused, so nothing new is submitted; to go on: dujiang resume",
    ),
    "run_paused": (
        "批次 {batch} 已暂停，不会提交新任务；继续请运行 dujiang batch resume {batch}",
        "the batch {batch} is paused, so nothing new is submitted; to go on: dujiang batch resume {batch}",
    ),
    "awake_failed": (
        "没能阻止电脑睡眠（{reason}），请在系统设置里关闭睡眠；睡着时不会有进展",
        "the machine can't be kept awake ({reason}), and asleep it does nothing: switch sleep off in its settings",
    ),
    "some_doubts": (
        "{count} 个任务存疑：提交后没收到应答，可能已付费，不会自动重交",
        "in doubt: {count}. The answer to a submit never came, so it may be paid; nothing is sent again by itself",
    ),
    "how_to_resolve": (
        "如何决定：dujiang resolve {task} resubmit | found JOB_ID | fail（控制台能查到作业就用 found）",
        "to decide: dujiang resolve {task} resubmit | found JOB_ID | fail (found: the vendor's console shows the job)",
    ),
    "run_again": ("再运行同一命令即可继续", "run the same command to go on"),
    "stopping": (
        "正在停止：不再提交，等已在生成的完成；再按一次 Ctrl-C 立即离开，不会丢任务",
        "stopping: nothing new is submitted, running jobs finish; Ctrl-C again leaves now, nothing is lost",
    ),
    "stopping_quick": ("正在停止：已在生成的留到下次取回", "stopping: running jobs are left to the next run"),
    "no_batches": ("还没有批次", "there are no batches yet"),
    "batch_paused_now": ("批次 {batch} 已暂停", "batch {batch} is paused"),
    "batch_resumed_now": ("批次 {batch} 已继续", "batch {batch} goes on"),
    "cancel_result": (
        "已取消 {cancelled}，已请求取消 {requested}，不能取消 {refused}（已结束，或存疑需要 resolve）",
        "cancelled {cancelled}, asked to cancel {requested}, refused {refused} (over, or in doubt: resolve them)",
    ),
    "retry_result": ("新建 {count} 个任务，{left} 个不能重做", "new tasks: {count}; can't be made again: {left}"),
    "retry_run": ("运行原来的 dujiang run 命令来做它们", "run the batch's dujiang run command to make them"),
    "resolved_resubmit": ("任务 {task} 将重新提交", "task {task} will be submitted again"),
    "resolved_found": ("任务 {task} 的作业将被取回", "the job of task {task} will be collected"),
    "resolved_fail": ("任务 {task} 算失败", "task {task} counts as failed"),
    "more_tasks": ("下一页：--after {after}", "next page: --after {after}"),
    "yes": ("是", "yes"),
    # -- progress -----------------------------------------------------------------------------------------------------
    "progress_done": ("完成 {done}/{total}", "done {done}/{total}"),
    "progress_running": ("进行中 {running}，上限 {limit}", "running {running} of {limit}"),
    "progress_waiting": ("等待 {waiting}：{why}", "waiting {waiting}: {why}"),
    "progress_collecting": ("下载中 {count}", "collecting {count}"),
    "progress_bad": ("未成功 {count}", "unsuccessful {count}"),
    "progress_doubt": ("存疑 {count}", "in doubt {count}"),
    "progress_pace": ("每分钟 {pace} 张", "{pace} images a minute"),
    "progress_rate": (
        "{rate} 任务/分，可达 {possible}（{share}%）",
        "{rate} of {possible} possible tasks a minute ({share} %)",
    ),
    "progress_left": ("还需 {left}", "{left} left"),
    # -- states -------------------------------------------------------------------------------------------------------
    "state_queued": ("排队", "queued"),
    "state_preparing": ("准备中", "preparing"),
    "state_ready": ("待提交", "ready"),
    "state_submitting": ("提交中", "submitting"),
    "state_generating": ("生成中", "generating"),
    "state_collecting": ("下载中", "collecting"),
    "state_in_doubt": ("存疑", "in doubt"),
    "state_succeeded": ("成功", "succeeded"),
    "state_failed": ("失败", "failed"),
    "state_blocked": ("被审核拦截", "blocked"),
    "state_lost": ("已付费但丢失", "lost"),
    "state_cancelled": ("已取消", "cancelled"),
    "batch_running": ("进行中", "running"),
    "batch_paused": ("已暂停", "paused"),
    "batch_waiting_decision": ("等待决定", "waiting for a decision"),
    "batch_done": ("已结束", "done"),
    "outcome_open": ("等待应答", "no answer yet"),
    "outcome_running": ("已受理", "accepted"),
    "outcome_refused": ("被拒绝，未计费", "refused, not charged"),
    "outcome_in_doubt": ("存疑，可能已计费", "in doubt, may be charged"),
    "outcome_done": ("完成，已计费", "done, charged"),
    "outcome_charged": ("已计费，无结果", "charged, without a result"),
    "outcome_uncharged": ("失败，未计费", "ended badly, not charged"),
    "outcome_lost": ("已计费，结果丢失", "charged, result lost"),
    "outcome_cancelled": ("服务商已取消", "cancelled by the vendor"),
    # -- columns ------------------------------------------------------------------------------------------------------
    **{
        f"column_{name}": texts
        for name, texts in {
            "id": ("编号", "id"),
            "batch": ("批次", "batch"),
            "row": ("行", "row"),
            "state": ("状态", "state"),
            "reason": ("等待原因", "waits for"),
            "why": ("原因", "why"),
            "prompt": ("提示词", "prompt"),
            "model": ("模型", "model"),
            "parameters": ("参数", "parameters"),
            "refs": ("参考图", "references"),
            "attempt": ("提交次数", "submits"),
            "number": ("第几次提交", "submit"),
            "account": ("账号", "account"),
            "lane": ("通道", "lane"),
            "job_id": ("作业号", "job id"),
            "priority": ("优先级", "priority"),
            "position": ("序号", "position"),
            "name": ("文件名", "file name"),
            "created_at": ("创建时间", "created"),
            "pruned_at": ("清理时间", "pruned"),
            "updated_at": ("更新时间", "updated"),
            "sent_at": ("提交时间", "sent"),
            "error": ("错误", "error"),
            "cancel_requested": ("已请求取消", "cancel requested"),
            "retry_of": ("重做自", "retry of"),
            "files": ("图片文件", "files"),
            "counts": ("任务", "tasks"),
            "out": ("输出目录", "out"),
            "source": ("来源", "source"),
            "on_doubt": ("存疑策略", "on doubt"),
            "images": ("计费图片", "images charged"),
            "refused": ("被拒次数", "refusals"),
            "in_doubt": ("存疑任务", "in doubt"),
            "outcome": ("结果", "outcome"),
            "slot_until": ("占用到", "slot until"),
            "at": ("时间", "at"),
            "event": ("事件", "event"),
            "details": ("详情", "details"),
            "setting": ("设置项", "setting"),
            "default": ("默认值", "default"),
            "meaning": ("含义", "meaning"),
            "check": ("检查", "check"),
            "result": ("结果", "result"),
        }.items()
    },
    # -- settings (the English is what their docstrings say) ----------------------------------------------------------
    **{
        f"setting_is_{name}": texts
        for name, texts in {
            "home": (
                "数据库、锁文件和日志所在目录。",
                "Folder of the database, lock files and logs.",
            ),
            "database_url": (
                "任务存放处：`sqlite:///路径` 或 `postgresql://…`。默认是 home 目录里的 `dujiang.db`。",
                "Where tasks live: `sqlite:///PATH` or `postgresql://…`. Default: `dujiang.db` in the home folder.",
            ),
            "jimeng_endpoint": (
                "服务商的地址。只有本机（模拟器）可以不用 https。",
                "The vendor's address. Without https only on this machine (the simulator).",
            ),
            "concurrency": (
                "一个通道同时最多多少个作业：`auto`、`auto:LOW..HIGH`、`quiet`、`eager` 或 `fixed:N`。",
                "How many jobs a lane may hold at once: `auto`, `auto:LOW..HIGH`, `quiet`, `eager` or `fixed:N`.",
            ),
            "lease": (
                "沉默多少秒的程序算作已退出，任务由别的程序接管",
                "Seconds of silence after which a worker counts as gone, and its tasks are taken over.",
            ),
            "max_jobs": (
                "一个程序同时最多有多少个作业在服务商那里。默认：有多少名额就用多少",
                "Jobs at the vendor that one program may hold at once. Default: as many as there are slots.",
            ),
            "worker_name": (
                "本程序在 `dujiang workers list` 里的名字。默认：机器名和进程号",
                "What `dujiang workers list` calls this program. Default: the machine's name and the process id.",
            ),
            "priority_ageing": (
                "没有名额的批次每等多少秒优先级加一；0：不加",
                "Seconds that a batch waits without a single slot for each point of priority that it gains; 0: never.",
            ),
            "time_scale": (
                "把我们自己的所有时间常数按此缩放，便于对着模拟器快速演练。",
                "Scales every constant in seconds of ours, so that a run can be rehearsed fast against the simulator.",
            ),
            "jimeng_retries": (
                "网络故障后重试几次，再让该地址休息。",
                "Tries after a fault of the way before the endpoint rests.",
            ),
            "jimeng_backoff": (
                "第一次重试前等多少秒，之后加倍。",
                "First wait between such tries, in seconds; doubles.",
            ),
            "jimeng_backoff_max": (
                "两次重试之间最多等多少秒。",
                "Longest wait between such tries, in seconds.",
            ),
            "connect_timeout": (
                "连上服务商最多多少秒。",
                "Seconds to reach the vendor.",
            ),
            "submit_timeout": (
                "提交的应答必须在多少秒内收全，否则任务存疑。",
                "Seconds in which the answer to a submit must be complete; after that the task is in doubt.",
            ),
            "poll_timeout": (
                "查询的应答必须在多少秒内到达。",
                "Seconds in which the answer to a poll must come.",
            ),
            "download_timeout": (
                "下载多少秒没有数据就重新开始。",
                "Seconds without a byte after which a download is started again.",
            ),
            "queries_a_second": (
                "一个账号每秒最多查询几次。",
                "Polls a second of one account, at most.",
            ),
            "downloads_at_once": (
                "同时下载多少张图片。",
                "Pictures downloaded at the same time.",
            ),
            "log_file": (
                "日志写到哪里。默认：主目录下的 `logs/app.log`。",
                "Where the log is written. Default: `logs/app.log` in the home folder.",
            ),
            "log_level": (
                "日志详细程度：`debug` 连每次查询都记。",
                "How much is logged: `debug` tells every look at a job.",
            ),
            "log_json": (
                "日志行是 JSON 对象，供程序读取。",
                "Log lines are JSON objects, for programs.",
            ),
            "log_prompts": (
                "日志里写出提示词原文；否则只有哈希。",
                "Prompts stand in the log as they are; otherwise only their hash does.",
            ),
            "superbed_endpoint": (
                "图床地址，用来发布本地参考图。只有本机可以不用 https。",
                "Address of the image host that publishes references from files. Without https only on this machine.",
            ),
            "superbed_token": (
                "图床账号的 token；没有它，参考图只能用公开网址。",
                "Token of the image host's account; without it references must be public addresses.",
            ),
            "image_host": (
                "由谁发布本地参考图：`superbed`、`inline`（放进请求本身，模型支持时）或 `auto`："
                "有 token 用 superbed，否则 inline。",
                "Who publishes references from files: `superbed`, `inline` (they go into the request, where the model "
                "takes that),\nor `auto`: superbed where there is a token, else inline.",
            ),
            "uploads_at_once": (
                "同时上传多少张图片（所有程序合计）。",
                "Pictures uploaded at the same time, of all programs together.",
            ),
            "prepare_ahead": (
                "每个模型最多提前为多少个任务发布参考图。",
                "Tasks of a model whose references are published before there is a slot for them.",
            ),
            "reference_good_for": (
                "上传后的链接多少秒内不再检查就直接使用。",
                "Seconds for which an uploaded picture's link is used without a look at it.",
            ),
            "superbed_retries": (
                "一次上传失败后再试几次，然后图床休息。",
                "Further tries of an upload before the image host rests.",
            ),
            "superbed_backoff": (
                "上传重试的首次等待秒数，逐次加倍。",
                "First wait between tries of an upload, in seconds; doubles.",
            ),
            "superbed_backoff_max": (
                "上传重试的最长等待秒数。",
                "Longest wait between tries of an upload, in seconds.",
            ),
            "upload_timeout": (
                "上传必须在多少秒内得到应答。",
                "Seconds in which an upload must be answered.",
            ),
            "allow_sleep": (
                "`run` 工作时是否允许电脑睡眠（Windows 和 macOS）。",
                "Whether the machine may fall asleep while `run` works (Windows and macOS).",
            ),
            "lang": (
                "界面语言：`zh` 或 `en`。默认随系统。",
                "Language of everything a person reads: `zh` or `en`. Default: the system's.",
            ),
            "accounts": (
                'dujiang.toml 里的 `[[accounts]]`，或 JSON：`[{{"name":"a","access_key":"…","secret_key":"…"}}]`。',
                '`[[accounts]]` in dujiang.toml, or JSON: `[{{"name":"a","access_key":"…","secret_key":"…"}}]`.',
            ),
            "volcengine_access_key": (
                "没有设置其他账号时，账号 `default` 的 access key。",
                "Access key of the account `default`, where no other accounts are set.",
            ),
            "volcengine_secret_key": (
                "与它配对的 secret key。",
                "Secret key that belongs to it.",
            ),
        }.items()
    },
    # -- doctor -------------------------------------------------------------------------------------------------------
    "doctor_settings": ("设置", "settings"),
    "doctor_keys": ("密钥", "keys"),
    "doctor_proxies": ("代理", "proxies"),
    "doctor_endpoint": ("服务地址", "endpoint"),
    "doctor_clock": ("时钟", "clock"),
    "doctor_host": ("图床", "host"),
    "doctor_disk": ("磁盘", "disk"),
    "doctor_database": ("数据库", "database"),
    "doctor_ok": ("正常", "ok"),
    "doctor_bad": ("有问题", "problem"),
    "doctor_see": ("见 docs/troubleshooting.zh-CN.md#{anchor}", "see docs/troubleshooting.md#{anchor}"),
    "doctor_settings_unknown": (
        "这些环境变量不是设置项：{names}",
        "these variables are no settings: {names}",
    ),
    "doctor_keys_accepted": ("账号 {account} 的密钥被接受", "the key of account {account} is accepted"),
    "doctor_keys_refused": (
        "账号 {account} 的密钥被拒绝：{reason}",
        "the key of account {account} is refused: {reason}",
    ),
    "doctor_keys_untested": (
        "连不上服务商，没能检验账号 {account}",
        "the vendor can't be reached to test account {account}",
    ),
    "doctor_proxy": ("经过 {proxy}", "through {proxy}"),
    "doctor_proxy_none": ("没有", "none"),
    "doctor_proxy_local": ("没有：访问本机从不使用代理", "none: they are never used for this machine"),
    "doctor_endpoint_answers": ("{endpoint} 有应答", "{endpoint} answers"),
    "doctor_endpoint_silent": ("{endpoint} 没有应答：{reason}", "{endpoint} does not answer: {reason}"),
    "doctor_clock_right": ("与服务商相差 {skew} 秒", "{skew} s from the vendor's"),
    "doctor_clock_wrong": (
        "与服务商相差 {skew} 秒，超过 900 秒会被拒绝，请校准系统时间",
        "{skew} s from the vendor's; beyond 900 s every request is refused. Set the system's clock",
    ),
    "doctor_clock_unknown": ("服务商没有给出时间", "the vendor gave no time"),
    "doctor_host_answers": (
        "{endpoint} 有应答；token 要到第一次上传才会被检验",
        "{endpoint} answers; the token is tested by the first upload",
    ),
    "doctor_host_silent": ("{endpoint} 没有应答：{reason}", "{endpoint} does not answer: {reason}"),
    "doctor_host_no_token": (
        "没有 token（SUPERBED_TOKEN）：本地参考图无法上传；公开网址可以用，i2i-3.0 不需要图床",
        "no token (SUPERBED_TOKEN): references from files can't be uploaded; public addresses work, and i2i-3.0 needs"
        " no host",
    ),
    "doctor_host_inline": (
        "不使用（DUJIANG_IMAGE_HOST=inline）：本地参考图只能用于 i2i-3.0",
        "not used (DUJIANG_IMAGE_HOST=inline): references from files work with i2i-3.0 only",
    ),
    "doctor_disk_free": ("{path} 可写，剩余 {free} GB", "{path} can be written, {free} GB free"),
    "doctor_disk_low": ("{path} 只剩 {free} GB", "{path} has only {free} GB left"),
    "doctor_database_ok": ("{path}，版本 {schema}", "{path}, schema {schema}"),
}
