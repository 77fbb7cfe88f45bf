"""The mark of an LR file: which model made it of what; and whether a model can restore it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping

import jax
import numpy as np

from flowsr_jax.files.images import Picture
from flowsr_jax.models import Params, family_of, scale_of

KEYWORD = "flowsr_jax rescale"
FORMAT = 1
MAX_SIDE = 2**31 - 1  # of a PNG


class MarkError(ValueError):
    """An LR file that the model does not restore, or a mark that is none; one line."""


@dataclasses.dataclass(frozen=True)
class Mark:
    """What `flowsr rescale down` writes into an LR file.

    Attributes:
      family, weights: of the model; see `identity`.
      scale: the model's.
      height, width: of the HR image in pixels.
      grey: the HR image was grey.
      alpha: it had an alpha channel, and the LR file has.
    """

    family: str
    weights: str
    scale: int
    height: int
    width: int
    grey: bool
    alpha: bool

    def text(self) -> dict[str, str]:
        """The texts of a PNG file: for people, and for `read_mark`."""
        return {
            "Comment": f"LR image that the rescaling model {self.family} {self.scale}x made of "
            f"{self.width}x{self.height} pixels, for `flowsr rescale up`. Keep it PNG.",
            KEYWORD: json.dumps({"format": FORMAT, **dataclasses.asdict(self)}),
        }


def identity(params: Params) -> str:
    """Return 16 hex digits of the weights that make and restore LR images.

    What is trained beside them (a discriminator, a net that repairs JPEG files) does not
    change the LR image.
    """
    groups = family_of(params).codec_groups or tuple(params)
    # One group counts as the tree itself: so were the marks made that files have.
    tree = params[groups[0]] if len(groups) == 1 else {name: params[name] for name in groups}
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        values = np.ascontiguousarray(leaf, np.float32)
        digest.update(f"{jax.tree_util.keystr(path)} {values.shape} ".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()[:16]


def repairs_jpeg(params: Params) -> bool:
    """Whether the model has a net that repairs LR images after JPEG (IRN-Compression)."""
    return family_of(params).repairs_jpeg(params.config)


def read_mark(text: Mapping[str, str], height: int, width: int) -> Mark | None:
    """Read the mark of an LR file of height x width pixels; anybody may have written it.

    Returns:
      the mark, or None if there is none.

    Raises:
      MarkError: there is one, but it makes no sense for this file.
    """
    if KEYWORD not in text:
        return None
    try:
        found = json.loads(text[KEYWORD])
    except (ValueError, RecursionError):
        raise MarkError("it is not JSON") from None
    if not isinstance(found, dict):
        raise MarkError("it is no JSON object")
    if type(found.get("format")) is not int or found.pop("format") != FORMAT:
        raise MarkError(f"its format is not {FORMAT}")
    kinds = {"family": str, "weights": str, "scale": int, "height": int, "width": int}
    kinds |= {"grey": bool, "alpha": bool}
    for name, kind in kinds.items():
        if type(found.get(name)) is not kind:
            raise MarkError(f"its {name} is not of type {kind.__name__}")
    mark = Mark(**{name: found[name] for name in kinds})
    if not re.fullmatch(r"[a-z0-9_]{1,32}", mark.family):
        raise MarkError("its family is no name")
    if not re.fullmatch(r"[0-9a-f]{16}", mark.weights):
        raise MarkError("its weights are not 16 hex digits")
    if not 1 <= mark.scale <= 64 or not all(0 < n <= MAX_SIDE for n in (mark.height, mark.width)):
        raise MarkError("its scale or size is out of range")
    if (-(-mark.height // mark.scale), -(-mark.width // mark.scale)) != (height, width):
        raise MarkError(
            f"{mark.width}x{mark.height} at scale {mark.scale} do not give {width}x{height} pixels"
        )
    return mark


def check_lr_file(picture: Picture, params: Params, weights: str) -> tuple[Mark | None, list[str]]:
    """Decide whether a rescaling model can restore a file.

    Args:
      picture: the file.
      params: the model.
      weights: its `identity`.

    Returns:
      (the file's mark or None, warnings to be shown).

    Raises:
      MarkError: the file is not restored: more than 8 bits, an alpha channel that
        `flowsr rescale` did not write, or another scale.
    """
    config = params.config
    try:
        mark, nonsense = read_mark(picture.text, *picture.pixels.shape[:2]), ""
    except MarkError as error:
        mark, nonsense = None, f"its mark makes no sense ({error}) and is not used; "
    if picture.deep:
        raise MarkError("has more than 8 bits per channel; LR images of a rescaling model have 8")
    if picture.alpha is not None and (mark is None or not mark.alpha):
        raise MarkError(
            f"{nonsense}has an alpha channel that `flowsr rescale down` did not write; remove it"
        )
    if mark is None:
        if picture.format == "JPEG" and repairs_jpeg(params):
            return None, []
        if picture.format == "JPEG":
            return None, [
                "warning: JPEG changes the pixels that a rescaling model hides its information "
                "in, so the result will be poor; keep LR images as PNG"
            ]
        return None, [
            f"warning: {nonsense}`flowsr rescale down` did not make this LR image. "
            f"{config.family!r} is a codec that restores what its own `down` made, not super-"
            "resolution: the result will be poor"
        ]
    if mark.scale != (scale := scale_of(params)):
        raise MarkError(f"was made at scale {mark.scale}, but the model's scale is {scale}")
    if (mark.family, mark.weights) != (config.family, weights):
        return mark, [
            f"warning: made with other weights ({mark.family} {mark.weights}) than those at hand "
            f"({config.family} {weights}); the result will be poor"
        ]
    return mark, []
