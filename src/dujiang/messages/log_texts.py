"""What the log says: `log_` and the name of an event -> (Chinese, English). The marker in front is never translated."""

from typing import Final

LOG_TEXTS: Final[dict[str, tuple[str, str]]] = {
    # -- a batch ------------------------------------------------------------------------------------------------------
    "log_batch_started": (
        "开始处理 {tasks} 个任务，最大并发数: {limit}",
        "starting {tasks} tasks, at most {limit} at once",
    ),
    "log_limit_reached": (
        "达到并发限制 ({limit})，等待任务完成...",
        "limit reached ({limit}), waiting for a task to end...",
    ),
    "log_limit_changed": (
        "并发上限 {lane}: {limit}（{why}）",
        "the limit of {lane} is {limit} now ({why})",
    ),
    "log_task_ended": (
        "任务完成 ({done}/{tasks})，当前并发: {running}",
        "task ended ({done}/{tasks}), now at once: {running}",
    ),
    "log_only_rest_left": ("等待剩余 {running} 个任务完成...", "waiting for the last {running} tasks to end..."),
    "log_batch_ended": ("所有任务处理完成", "all tasks are done"),
    "log_batch_held": (
        "处理结束，{doubts} 个任务存疑，等待决定",
        "all else is done; {doubts} tasks are in doubt and wait for a decision",
    ),
    "log_batch_stopped": ("停止处理（{reason}），未完成的任务已保存", "stopped ({reason}); what is not done is kept"),
    "log_lease_lost": (
        "本程序沉默太久，被当作已退出，任务已由别的程序接管；从现在起重新参与",
        "this program was silent for so long that others have taken its tasks over; it goes on from here",
    ),
    "log_tasks_adopted": ("接管 {count} 个进行中的任务", "took over {count} tasks that were under way"),
    "log_woke_up": (
        "时间跳跃了 {gap_s} 秒（休眠？），立即查询所有作业",
        "{gap_s} s have passed unnoticed (was the machine asleep?): looking at every job now",
    ),
    # -- the vendor ---------------------------------------------------------------------------------------------------
    "log_submit_sent": (
        "提交任务 {task}（第 {attempt} 次提交，提示词 {prompt}）",
        "submitting task {task} (submit {attempt}, prompt {prompt})",
    ),
    "log_submit_accepted": ("任务 {task} 已受理，作业 {job}", "task {task} accepted as job {job}"),
    "log_submit_refused": (
        "任务 {task} 未被受理（{reason}，{kind}），回到队首，不算失败",
        "task {task} was not taken ({reason}, {kind}): back to the head of the line, nothing lost",
    ),
    "log_submit_unanswered": (
        "任务 {task} 存疑：提交没有得到确定的应答（{reason}），可能已付费，不会自动重交",
        "task {task} is in doubt: no certain answer to its submit ({reason}); it may be paid and is not sent again",
    ),
    "log_submit_too_late": (
        "任务 {task} 已受理为作业 {job}，但此前已被别的程序接管。若任务存疑：dujiang resolve {task} found {job}",
        "task {task} was accepted as job {job}, after others had taken it over. If it is in doubt:"
        " dujiang resolve {task} found {job}",
    ),
    "log_task_too_late": (
        "任务 {task} 已被别的程序接管：这里的结果（{event_type}）不记录，由对方继续",
        "task {task} had been taken over by others: what came of it here ({event_type}) is not recorded",
    ),
    "log_link_refused": (
        "任务 {task} 的参考图无法下载（{reason}），检查并重新发布",
        "a reference of task {task} can't be fetched ({reason}): it is checked and published again",
    ),
    "log_output_refused": (
        "任务 {task} 的生成结果被拦截（{reason}），未计费，重新提交",
        "the result of task {task} was refused ({reason}); not billed, submitting afresh",
    ),
    "log_job_done": (
        "任务 {task} 生成完成：{images} 张图片，用时 {run_s} 秒（作业 {job}）",
        "task {task} is rendered: {images} images in {run_s} s (job {job})",
    ),
    "log_job_looked_at": ("查询任务 {task}：{status}（作业 {job}）", "looked at task {task}: {status} (job {job})"),
    "log_look_again": (
        "查询任务 {task} 失败（{reason}），第 {tries} 次重试，不限次数，等待 {wait_s} 秒",
        "looking at task {task} failed ({reason}): retry {tries} of any number, waiting {wait_s} s",
    ),
    "log_urls_gone": (
        "任务 {task} 的图片地址已失效，重新获取（作业 {job}）",
        "the addresses of task {task} have expired, asking for new ones (job {job})",
    ),
    "log_image_saved": (
        "任务 {task} 的图片已保存：{file}（{bytes} 字节）",
        "task {task}: saved {file} ({bytes} bytes)",
    ),
    "log_download_again": (
        "任务 {task} 的图片下载失败（{reason}），第 {tries}/{most} 次重试，等待 {wait_s} 秒",
        "the download for task {task} failed ({reason}): retry {tries}/{most}, waiting {wait_s} s",
    ),
    "log_task_failed": ("任务 {task} 结束：{state}（{reason}）", "task {task} ended: {state} ({reason})"),
    "log_task_moved": ("任务 {task}：{event_type} → {state}", "task {task}: {event_type} → {state}"),
    "log_lane_rests": (
        "并发已满（{reason}），第 {tries} 次重试，不限次数，等待 {wait_s} 秒",
        "too many jobs at once ({reason}): retry {tries} of any number, waiting {wait_s} s",
    ),
    "log_account_slowed": (
        "请求过快（{reason}），任务 {task} 回到队首；该账号停一秒，然后放慢提交",
        "too many requests a second ({reason}), task {task} waits: the account pauses a second, then slows down",
    ),
    "log_endpoint_again": (
        "连接失败（{reason}），第 {tries}/{most} 次重试，等待 {wait_s} 秒",
        "no connection ({reason}): retry {tries}/{most}, waiting {wait_s} s",
    ),
    "log_endpoint_rests": (
        "仍然连不上（{reason}），休息 {wait_s} 秒后再看",
        "still no connection ({reason}): resting for {wait_s} s, then one task looks",
    ),
    "log_account_rests": (
        "账号被拒（{reason}），{wait_s} 秒后再看",
        "the account is refused ({reason}): resting for {wait_s} s, then one task looks",
    ),
    "log_disk_rests": (
        "磁盘无法写入（{reason}），暂停提交，{wait_s} 秒后再看",
        "the disk refuses ({reason}): nothing is submitted, looking again in {wait_s} s",
    ),
    # -- the image host -----------------------------------------------------------------------------------------------
    "log_host_rests": (
        "图床休息 {wait_s} 秒（{reason}），任务等待",
        "the image host rests for {wait_s} s ({reason}), tasks wait",
    ),
    "log_upload_sent": (
        "上传任务 {task} 的参考图 {place}（{bytes} 字节）",
        "uploading reference {place} of task {task} ({bytes} bytes)",
    ),
    "log_upload_done": ("任务 {task} 的参考图 {place} 上传成功", "reference {place} of task {task} is published"),
    "log_upload_again": (
        "任务 {task} 的参考图 {place} 上传失败（{reason}），第 {tries}/{most} 次重试，等待 {wait_s} 秒",
        "uploading reference {place} of task {task} failed ({reason}): retry {tries}/{most}, waiting {wait_s} s",
    ),
    "log_upload_given_up": (
        "任务 {task} 的参考图 {place} 上传失败（{reason}），已重试 {tries}/{most} 次，图床休息",
        "uploading reference {place} of task {task} failed ({reason}) after {tries}/{most} retries: the host rests",
    ),
    "log_upload_refused": (
        "任务 {task} 的参考图 {place} 被图床拒绝（{reason}），连续第 {in_a_row} 张",
        "the host refuses reference {place} of task {task} ({reason}), {in_a_row} in a row",
    ),
    "log_upload_account": (
        "图床拒绝了账号（{reason}），请检查 token",
        "the host refuses the account ({reason}): check the token",
    ),
    "log_link_gone": (
        "参考图 {picture} 的链接已失效，重新上传",
        "the link of reference {picture} is gone, it is uploaded again",
    ),
}
