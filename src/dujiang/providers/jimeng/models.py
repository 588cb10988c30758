"""Jimeng's products: every documented parameter with its bounds, so that nothing is sent that can't work.

A model is asked for by a short name (`4.0`); the vendor's own `req_key` and some common spellings lead to it too.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from dujiang.domain.accounts import Account
from dujiang.domain.pictures import MEGABYTE, PictureRules
from dujiang.domain.requests import ModelSpec, Number, Parameter, Problem, Rule, Truth, Value

DEFAULT_MODEL: Final = "4.0"
MOST_PICTURES: Final = 15  # of one task, references included
SEED: Final = Number(
    -1, 2**31 - 1, whole=True
)  # -1 = by chance; the vendor names no upper end, its other APIs this one


def _side(longest: int) -> Number:
    return Number(1, longest, whole=True)  # the real bound is that of the area, checked by a rule


def sides_together(parameters: Mapping[str, Value], references: int) -> Sequence[Problem]:
    """`width` or `height` alone is ignored by the vendor, so the picture would not be what was asked for."""
    given = [side for side in ("width", "height") if side in parameters]
    if len(given) != 1:
        return []
    lacking = "height" if given == ["width"] else "width"
    return [Problem("sides_together", lacking, "", given[0])]


def area_between(low: int, high: int) -> Rule:
    """The product of `width` and `height`, in pixels, lies in [low², high²]."""

    def rule(parameters: Mapping[str, Value], references: int) -> Sequence[Problem]:
        sides = _sides(parameters)
        if sides is None or low**2 <= sides[0] * sides[1] <= high**2:
            return []
        return [Problem("area_out_of_range", "width × height", _written(sides), f"[{low}², {high}²]")]

    return rule


def shape_within(widest: int) -> Rule:
    """`width` : `height` lies between 1:widest and widest:1."""

    def rule(parameters: Mapping[str, Value], references: int) -> Sequence[Problem]:
        sides = _sides(parameters)
        if sides is None or max(sides) <= widest * min(sides):
            return []
        return [Problem("shape_out_of_range", "width : height", _written(sides), f"1:{widest} – {widest}:1")]

    return rule


def ratios_in_order(parameters: Mapping[str, Value], references: int) -> Sequence[Problem]:
    """`min_ratio` ≤ `max_ratio`, where the one that isn't given has the vendor's default (1/3 and 3)."""
    low = float(parameters.get("min_ratio", 1 / 3))
    high = float(parameters.get("max_ratio", 3.0))
    return [] if low <= high else [Problem("ratios_out_of_order", "min_ratio", f"{low:g}", f"≤ {high:g} (max_ratio)")]


def pictures_at_most(parameters: Mapping[str, Value], references: int) -> int:
    """One, unless the model may choose: then as many as fit beside the references, and each is billed."""
    return 1 if parameters.get("force_single", False) else max(1, MOST_PICTURES - references)


def _sides(parameters: Mapping[str, Value]) -> tuple[int, int] | None:
    width, height = parameters.get("width"), parameters.get("height")
    return (int(width), int(height)) if width is not None and height is not None else None


def _written(sides: tuple[int, int]) -> str:
    return f"{sides[0]}×{sides[1]}"


def _fourth_generation(name: str, req_key: str, references_max: int, scale: Number, yuan: float | None) -> ModelSpec:
    ratio = Number(1 / 16, 16, open_high=True)
    return ModelSpec(
        name,
        req_key,
        parameters={
            "size": Number(1024**2, 4096**2, whole=True),  # an area; the model then picks the shape
            "width": _side(4096**2),
            "height": _side(4096**2),
            "scale": scale,
            "force_single": Truth(),
            "min_ratio": ratio,
            "max_ratio": ratio,
        },
        references_max=references_max,
        pictures=PictureRules(15 * MEGABYTE, narrowest=3),
        rules=(sides_together, area_between(1024, 4096), ratios_in_order),
        defaults={"force_single": True},  # the vendor's own default makes, and bills, up to 15 pictures
        yuan_per_image=yuan,
        images=pictures_at_most,
    )


def _third_generation(name: str, req_key: str) -> ModelSpec:
    return ModelSpec(
        name,
        req_key,
        parameters={"use_pre_llm": Truth(), "seed": SEED, "width": _side(2048**2), "height": _side(2048**2)},
        rules=(sides_together, area_between(512, 2048), shape_within(3)),
    )


_IMAGE_TO_IMAGE_SIDE: Final[Parameter] = Number(512, 2016, whole=True)

_SPECS: Final = (
    _fourth_generation("4.0", "jimeng_t2i_v40", 10, Number(0, 1), 0.22),
    _fourth_generation("4.6", "jimeng_seedream46_cvtob", 14, Number(1, 100, whole=True), None),
    _third_generation("3.1", "jimeng_t2i_v31"),
    _third_generation("3.0", "jimeng_t2i_v30"),
    ModelSpec(
        "i2i-3.0",
        "jimeng_i2i_v30",
        parameters={
            "seed": SEED,
            "scale": Number(0, 1),
            "width": _IMAGE_TO_IMAGE_SIDE,
            "height": _IMAGE_TO_IMAGE_SIDE,
        },
        references_min=1,
        references_max=1,
        pictures=PictureRules(int(4.7 * MEGABYTE), max_area=4096**2),
        takes_inline=True,
        rules=(sides_together,),
    ),
)

MODELS: Final[Mapping[str, ModelSpec]] = {spec.name: spec for spec in _SPECS}
"""Every product by its short name; the default comes first."""


def _spellings(spec: ModelSpec) -> list[str]:
    name = spec.name
    spellings = [name, spec.req_key, f"v{name}", f"jimeng{name}", f"jimeng-{name}", f"jimeng_{name}", f"即梦{name}"]
    if name.endswith(".0") and name[0].isdigit():
        spellings.append(name.removesuffix(".0"))  # a spreadsheet shows the number 4.0 as 4
    return spellings


ALIASES: Final[Mapping[str, str]] = {spelling: spec.name for spec in _SPECS for spelling in _spellings(spec)}
"""Lower-case spelling -> short name."""


def model_named(text: str) -> ModelSpec | None:
    """The product that `text` means (`4.0`, `jimeng_t2i_v40`, `jimeng-4.0`, `即梦 4.0`, …), or None."""
    name = ALIASES.get("".join(text.split()).lower())
    return MODELS[name] if name else None


def some_product(account: Account) -> str:
    """The `req_key` of a product that the account may use; of any, if it may use none that is known."""
    served = [spec.req_key for spec in _SPECS if account.serves(spec.name)]
    return served[0] if served else _SPECS[0].req_key
