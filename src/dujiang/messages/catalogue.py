"""The catalogue: code -> (Chinese, English). Fields stand in braces and are the same in both."""

from typing import Final

TEXTS: Final[dict[str, tuple[str, str]]] = {
    # -- input rows -------------------------------------------------------------------------------------------------
    "prompt_empty": ("提示词为空，请填写 prompt（提示词）列", "the prompt is empty: fill in the column prompt"),
    "prompt_too_long": (
        "提示词有 {value} 个字符，最多 {limit} 个",
        "the prompt has {value} characters, at most {limit} are allowed",
    ),
    "parameter_unknown": (
        "模型 {limit} 没有参数 {field}（值为 {value}），请删除该列或换模型",
        "model {limit} has no parameter {field} (value {value}): remove it or choose another model",
    ),
    "parameter_out_of_range": (
        "{field} = {value} 不合规定，允许 {limit}",
        "{field} = {value} is not allowed: {limit}",
    ),
    "reference_not_public": (
        "参考图 {value} 不是公开网址（http/https）",
        "reference {value} is not a public address (http or https)",
    ),
    "references_count": (
        "参考图有 {value} 张，该模型允许 {limit} 张",
        "{value} references, the model takes {limit}",
    ),
    "reference_missing": (
        "找不到参考图 {value}（文件夹 {limit}）；网址要以 http:// 或 https:// 开头，"
        "相对路径从输入文件所在的文件夹或 --refs 算起",
        "there is no reference {value} in {limit}; links begin with http:// or https://, relative paths at the input's"
        " folder or at --refs",
    ),
    "reference_unreadable": ("参考图 {value} 无法读取（{limit}）", "reference {value} can't be read ({limit})"),
    "reference_no_file": ("参考图 {value} 不是文件", "reference {value} is no file"),
    "reference_scheme": (
        "参考图 {value} 的协议不支持，可用：{limit}",
        "reference {value} has a scheme that can't be used, only {limit}",
    ),
    "reference_inline": (
        "参考图 {value} 不是有效的 data: URI（base64）",
        "reference {value} is no valid data: URI (base64)",
    ),
    "reference_broken": ("参考图 {value} 已损坏：{limit}", "reference {value} is broken: {limit}"),
    "reference_kind": (
        "参考图 {value} 的格式不支持，该模型允许 {limit}",
        "reference {value} has a format that the model does not take, only {limit}",
    ),
    "reference_bytes": ("参考图 {value} 太大，最大 {limit}", "reference {value} is too large, at most {limit}"),
    "reference_sides": ("参考图 {value} 的尺寸太大，允许 {limit}", "reference {value} has too many pixels: {limit}"),
    "reference_shape": (
        "参考图 {value} 太窄或太扁，宽高比允许 {limit}",
        "reference {value} is too narrow: width : height must lie in {limit}",
    ),
    "reference_lost": (
        "参考图 {path} 读入后被移走或无法打开（{value}），放回后重试该任务",
        "reference {path} was moved or locked since the row was read ({value}): put it back and retry the task",
    ),
    "reference_changed": (
        "参考图 {path} 在读入后被改动，请再次运行该表",
        "reference {path} has changed since the row was read: run the sheet again",
    ),
    "no_host": (
        "没有图床的 token（SUPERBED_TOKEN），参考图无法发布",
        "there is no token of an image host (SUPERBED_TOKEN): references can't be published",
    ),
    "no_host_token": (
        "有本地参考图要上传，但没有图床的 token：请设置 SUPERBED_TOKEN（dujiang init），或改用公开网址"
        "（模型 {models}；i2i-3.0 不需要图床）",
        "references from files have to be uploaded, and there is no token of an image host: set SUPERBED_TOKEN"
        " (dujiang init), or use public addresses (model {models}; i2i-3.0 needs no host)",
    ),
    # -- downloads and the disk --------------------------------------------------------------------------------------
    "download_scheme": (
        "图片地址的协议 {value} 不支持（只支持 http、https 和 data）",
        "pictures can't be fetched over {value} (only http, https and data)",
    ),
    "download_inline": ("data: 地址不是有效的 base64", "the data: address is not valid base64"),
    "download_gone": (
        "图片地址已失效（HTTP {value}）",
        "the picture's address has expired (HTTP {value})",
    ),
    "download_status": ("图片下载失败（HTTP {value}）", "the picture could not be fetched (HTTP {value})"),
    "download_unreachable": (
        "连不上图片服务器（{value}）",
        "the picture's server can't be reached ({value})",
    ),
    "download_stalled": ("图片下载停滞（{value}）", "the download stalled ({value})"),
    "download_cut": ("图片下载中断（{value}）", "the download was cut off ({value})"),
    "download_answer": ("图片服务器的应答有误（{value}）", "the picture's server answered wrongly ({value})"),
    "download_too_large": (
        "图片超过 {limit} 字节的上限",
        "the picture is larger than the limit of {limit} bytes",
    ),
    "picture_empty": ("图片是空的（0 字节）", "the picture is empty (0 bytes)"),
    "picture_unknown": (
        "收到的不是 PNG、JPEG 或 WebP 图片（开头是 {value}）",
        "this is no PNG, JPEG or WebP picture (it begins with {value})",
    ),
    "picture_cut": ("图片不完整，只有 {value} 字节", "the picture is cut off after {value} bytes"),
    "picture_length": (
        "图片有 {value} 字节，按其文件头应为 {limit} 字节",
        "the picture has {value} bytes, its header says {limit}",
    ),
    "picture_size": ("图片尺寸无效：{value}", "the picture's size makes no sense: {value}"),
    "picture_header": ("{value} 图片的结构已损坏", "the structure of the {value} picture is broken"),
    "picture_crc": ("PNG 数据块 {value} 校验失败", "the checksum of PNG chunk {value} is wrong"),
    "picture_no_pixels": ("{value} 图片没有像素数据", "the {value} picture holds no pixels"),
    "disk_full": ("磁盘已满，无法写入 {path}（{value}）", "the disk is full: {path} can't be written ({value})"),
    "disk_denied": (
        "无法写入 {path}（{value}）：没有权限、磁盘只读，或文件正被其他程序（如 Excel）打开",
        "{path} can't be written ({value}): no permission, a read-only disk, or open in another program such as Excel",
    ),
    "disk_gone": (
        "{path} 不存在或磁盘已断开（{value}）",
        "{path} is not there, or its disk is gone ({value})",
    ),
    "folder_taken": (
        "文件夹 {path} 属于另一个批次（{value}），请用 --name 换一个名字",
        "the folder {path} belongs to another batch ({value}): choose another name with --name",
    ),
    # -- the input as a whole ---------------------------------------------------------------------------------------
    "input_missing": ("找不到文件 {path}", "there is no file {path}"),
    "input_directory": (
        "{path} 是文件夹，请给出其中的一个文件",
        "{path} is a folder: name a file in it",
    ),
    "input_denied": (
        "无法读取 {path}（{value}）：没有权限，或文件正在 Excel 中打开，请关闭后重试",
        "{path} can't be read ({value}): no permission, or it is open in Excel; close it and try again",
    ),
    "input_unreadable": ("无法读取 {path}（{value}）", "{path} can't be read ({value})"),
    "input_kind": (
        "不支持的文件类型 {value}（{path}），可用：{limit}",
        "{path}: files of the kind {value} can't be read, only {limit}",
    ),
    "input_encoding": (
        "{path} 既不是 UTF-8 也不是 GB18030 编码：第 {line} 行，字节 {byte}。请另存为 UTF-8",
        "{path} is neither UTF-8 nor GB18030: line {line}, byte {byte}. Save it as UTF-8",
    ),
    "input_nul": (
        "{path} 第 {line} 行有空字符（NUL），它不是文本文件，或文件已损坏",
        "{path}, line {line}, holds a NUL character: this is no text file, or it is damaged",
    ),
    "input_line": (
        "{path} 第 {line} 行太长（上限 {limit} 字节）",
        "{path}, line {line}, is too long (limit {limit} bytes)",
    ),
    "input_csv": (
        "{path} 第 {row} 行（文本第 {line} 行）的引号或分隔有误：{value}",
        "{path}, row {row} (line {line} of the text): quotes or delimiters are wrong: {value}",
    ),
    "input_column_twice": (
        "{path} 的列名 {value} 出现了两次",
        "{path} has two columns named {value}",
    ),
    "input_no_prompt": (
        "没有 prompt（提示词）列，第 {row} 行的列是：{value}",
        "there is no column prompt (提示词); row {row} has the columns {value}",
    ),
    # -- what is wrong with a row -----------------------------------------------------------------------------------
    "problem_in_row": ("第 {row} 行：{text}", "row {row}: {text}"),
    "cell_without_header": (
        "单元格“{value}”没有列名（表头有 {limit} 列）",
        "the cell {value!r} stands under no header (there are {limit})",
    ),
    "cell_no_text": ("{field} 应为文本，现在是 {value}", "{field} must be text, it is {value}"),
    "json_broken": ("不是有效的 JSON：{value}", "no valid JSON: {value}"),
    "json_no_object": ("应为一个 JSON 对象，现在是 {value}", "must be a JSON object, it is {value}"),
    "json_character": ("字符 {value} 不能使用", "the character {value} can't be used"),
    "column_twice": (
        "列 {value} 与列 {limit} 都表示 {field}，只能填写一个",
        "the columns {value} and {limit} both mean {field}: fill in only one",
    ),
    "column_close": (
        "列 {field}（值为 {value}）像是 {limit} 的笔误，请改列名，或在提示词中用 {{{field}}} 引用它",
        "the column {field} (value {value}) looks like {limit}: rename it, or use it in the prompt as {{{field}}}",
    ),
    "place_unknown": (
        "提示词中的 {{{value}}} 不是模板列，像是 {limit}；若就是要这些字，请写成 {{{{{value}}}}}",
        "{{{value}}} in the prompt is no template column but looks like {limit}; if it is meant, write {{{{{value}}}}}",
    ),
    "size_conflict": (
        "{field} = {value} 与 {limit} 冲突，只能填写其中之一",
        "{field} = {value} contradicts {limit}: give only one of them",
    ),
    "ratio_unreadable": (
        "{field} = {value} 不是比例，应写成 {limit}",
        "{field} = {value} is no ratio: write it as {limit}",
    ),
    "key_too_long": (
        "{field} = {value} 太长，最多 {limit} 个字符",
        "{field} = {value} is too long, at most {limit} characters",
    ),
    "key_taken": (
        "{field} = {value} 已在第 {limit} 行用过，每行必须不同",
        "{field} = {value} is used in row {limit} already: each row needs its own",
    ),
    "name_taken": (
        "{field} = {value} 与第 {limit} 行的文件名相同（大小写不计）",
        "{field} = {value} is the file name of row {limit} already (case doesn't count)",
    ),
}
