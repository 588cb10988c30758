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
}
