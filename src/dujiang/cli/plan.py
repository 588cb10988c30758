"""`dujiang plan`: what a batch would be, without asking anybody."""

from dujiang.cli.exits import Exit, Refused, say
from dujiang.cli.opening import settings_of
from dujiang.cli.rows import Source, read_rows, tell_problems
from dujiang.cli.show import print_json
from dujiang.messages import text


def plan(source: Source, *, as_json: bool) -> int:
    """Every row that is wrong, then tasks, images and cost. 2 if some are wrong, 9 if there are none."""
    settings_of(None)  # for their language
    with read_rows(source) as rows:
        tell_problems(rows)
        summary = {
            "tasks": rows.count,
            "images": rows.images,
            "yuan": round(rows.yuan, 2),
            "images_without_price": rows.images_without_price,
            "wrong_rows": rows.wrong_rows,
            "ignored_columns": rows.ignored,
        }
    if as_json:
        print_json(summary)
    else:
        _tell(summary["tasks"], rows.images, rows.yuan, rows.images_without_price)
    if rows.wrong_rows:
        say(text("plan_problems", count=rows.wrong_rows))
        return Exit.INPUT
    if not rows.count:
        raise Refused("input_empty", Exit.NO_TASKS, path=source.path)
    return Exit.OK


def _tell(tasks: object, images: int, yuan: float, unpriced: int) -> None:
    print(text("plan_result", tasks=tasks, images=images))  # noqa: T201 - data
    if images > unpriced:
        print(text("plan_cost", yuan=f"{yuan:.2f}"))  # noqa: T201
    if unpriced:
        print(text("plan_cost_unknown", images=unpriced))  # noqa: T201
