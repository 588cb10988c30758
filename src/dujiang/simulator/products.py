"""The image products and what each accepts. A parameter that a product doesn't list is refused, as is a wrong value.

The vendor may well ignore a field that it doesn't know; refusing it here finds the client's mistakes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Final, TypeAlias

from .codes import Refused

Rule: TypeAlias = Callable[[Any], bool]
Body: TypeAlias = Mapping[str, Any]


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)  # JSON can say half a character


def _whole(low: float = -inf, high: float = inf) -> Rule:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _number(low: float, high: float, *, below_high: bool = False) -> Rule:
    def fits(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return low <= value and (value < high if below_high else value <= high)

    return fits


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and item for item in value)


_SEED: Final = _whole(-1, 2**31 - 1)
_FRACTION: Final = _number(0, 1)
_RATIO: Final = _number(1 / 16, 16, below_high=True)
_AREA_4K: Final = (1024**2, 4096**2)
_ANY_AREA: Final = (1.0, inf)


@dataclass(frozen=True)
class Product:
    """One req_key."""

    rules: Mapping[str, Rule]
    references: tuple[int, int] = (0, 0)  # fewest and most
    prompt_needed: bool = True
    prompt_characters: int = 800
    area: tuple[float, float] = _ANY_AREA  # of width × height
    several: bool = False  # makes more than one image unless force_single
    default_side: int = 1328

    def check(self, body: Body) -> None:
        """Refuse what the vendor would refuse."""
        self._check_prompt(body.get("prompt"))
        for name, value in body.items():
            rule = self.rules.get(name) or _EVERYWHERE.get(name)
            if rule is None or not rule(value):
                raise Refused(50215, f"parameter {name} is invalid")
        self._check_area(body)
        fewest, most = self.references
        if not fewest <= references_of(body) <= most:
            raise Refused(50215, f"{fewest} to {most} images are needed")

    def _check_prompt(self, prompt: object) -> None:
        if self.prompt_needed and not prompt:
            raise Refused(50215, "parameter prompt is missing")
        if isinstance(prompt, str) and not _is_unicode(prompt):
            raise Refused(50215, "prompt is no Unicode text")
        if isinstance(prompt, str) and len(prompt) > self.prompt_characters:
            raise Refused(50215, f"prompt is longer than {self.prompt_characters} characters")

    def _check_area(self, body: Body) -> None:
        if ("width" in body) != ("height" in body):
            raise Refused(50215, "width and height only go together")
        if "width" in body and not self.area[0] <= body["width"] * body["height"] <= self.area[1]:
            raise Refused(50215, "width × height is out of range")

    def most_images(self, body: Body) -> int:
        """How many images this request may bring; each is billed."""
        return 1 if not self.several or body.get("force_single") else max(1, 15 - references_of(body))

    def size(self, body: Body) -> tuple[int, int]:
        """Width and height that were asked for."""
        if "width" in body:
            return body["width"], body["height"]
        side = int(body["size"] ** 0.5) if "size" in body else self.default_side
        return side, side


def references_of(body: Body) -> int:
    """How many reference images the request brings."""
    return len(body.get("image_urls") or ()) + len(body.get("binary_data_base64") or ())


_EVERYWHERE: Final[Mapping[str, Rule]] = {"req_key": _text, "prompt": _text}
_PICTURES: Final[Mapping[str, Rule]] = {"image_urls": _texts, "binary_data_base64": _texts}
_SIDES: Final[Mapping[str, Rule]] = {"width": _whole(1), "height": _whole(1)}
_JIMENG_4: Final[Mapping[str, Rule]] = {
    **_PICTURES,
    **_SIDES,
    "size": _whole(*_AREA_4K),
    "force_single": _flag,
    "min_ratio": _RATIO,
    "max_ratio": _RATIO,
}
_TEXT_TO_IMAGE: Final = Product(
    {**_SIDES, "use_pre_llm": _flag, "seed": _SEED},
    area=(512**2, 2048**2),
)
_EDGES: Final = dict.fromkeys(("top", "bottom", "left", "right"), _FRACTION)
_SIDE_3: Final = _whole(512, 2016)

PRODUCTS: Final[Mapping[str, Product]] = {
    "jimeng_t2i_v40": Product(
        {**_JIMENG_4, "scale": _FRACTION}, references=(0, 10), area=_AREA_4K, several=True, default_side=2048
    ),
    "jimeng_seedream46_cvtob": Product(
        {**_JIMENG_4, "scale": _whole(1, 100)}, references=(0, 14), area=_AREA_4K, several=True, default_side=2048
    ),
    "jimeng_t2i_v31": _TEXT_TO_IMAGE,
    "jimeng_t2i_v30": _TEXT_TO_IMAGE,
    "jimeng_i2i_v30": Product(
        {**_PICTURES, "seed": _SEED, "scale": _FRACTION, "width": _SIDE_3, "height": _SIDE_3}, references=(1, 1)
    ),
    "jimeng_image2image_dream_inpaint": Product({**_PICTURES, "seed": _SEED}, references=(2, 2), prompt_characters=120),
    "jimeng_img2img_seed3_painting_edit": Product(
        {**_PICTURES, **_EDGES, "seed": _SEED}, references=(1, 2), prompt_needed=False
    ),
    "jimeng_i2i_seed3_tilesr_cvtob": Product(
        {**_PICTURES, "resolution": lambda value: value in ("4k", "8k"), "scale": _whole(0, 100)},
        references=(1, 1),
        prompt_needed=False,
    ),
}


def product_of(body: Body) -> Product:
    """The product that a submit asks for."""
    req_key = body.get("req_key")
    if not isinstance(req_key, str) or req_key not in PRODUCTS:
        raise Refused(50215, "parameter req_key is missing or unknown")
    return PRODUCTS[req_key]
