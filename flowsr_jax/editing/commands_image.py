"""Edits of a whole image file; `flowsr edit` calls them.

Each writes OUT/NAME_COMMAND.png and a picture sheet, and returns the counts; see
`files.edit_file` for `seed`, `temperature`, `overwrite` and the errors.  The other
arguments are those of the functions in `conditional`, as files, which are read as 8-bit
RGB, of any size.
"""

from __future__ import annotations

import jax
import numpy as np

from flowsr_jax import api
from flowsr_jax.console import Summary, UsageError
from flowsr_jax.editing import conditional
from flowsr_jax.editing.files import Result, difference, edit_file, mask_column
from flowsr_jax.editing.pairs import (
    Pair,
    as_image,
    consistency,
    lr_column,
    padded_mask,
    read_mask,
    read_pair,
)
from flowsr_jax.files.colour import to_float
from flowsr_jax.models import Params, scale_of


def normalize_file(
    params: Params,
    out,
    *,
    hr,
    lr=None,
    mask=None,
    mode: str = "global",
    temperature=None,
    seed: int = 0,
    overwrite: bool = False,
) -> Summary:
    """Normalise the latents of an HR file; see `normalize_latents` for the modes."""
    conditional.check_model(params)

    def work(key, warn):
        pair = read_pair(params, hr, lr, warn=warn)
        where = None if mask is None else read_mask(mask, pair.size)
        return normalized(params, pair, where, key, temperature, mode)

    return edit_file(
        "normalize",
        hr,
        out,
        work,
        inputs=[lr, mask],
        seed=seed,
        temperature=temperature,
        overwrite=overwrite,
    )


def style_file(params: Params, out, *, hr, lr, overwrite: bool = False) -> Summary:
    """Put the texture of the HR file on the LR file, which has the size of the HR's own LR."""
    conditional.check_model(params)

    def work(key, warn):
        del key, warn  # nothing is drawn
        source, target = read_pair(params, hr), read_pair(params, None, lr)
        if source.size != target.size:
            (h, w), s = target.size, scale_of(params)
            raise UsageError(
                f"{hr} is {source.size[1]}x{source.size[0]}, but {lr} is {w // s}x{h // s}: style "
                f"needs an HR of {w}x{h}, {s} times the LR of the target"
            )
        small = to_float(target.lr)[None]
        large, given = (to_float(x)[None] for x in (source.hr, source.lr))
        image = conditional.transfer(params, large, given, small)
        image = as_image(image, target.size)
        plain = api.sample(params, small, jax.random.key(0), temperature=0.0)
        columns = [
            ("texture of", source.picture),
            lr_column(params, target),
            ("result", image),
            ("T=0", as_image(plain, target.size)),
        ]
        return Result({"": image}, columns, consistency(params, image, target))

    return edit_file("style", hr, out, work, inputs=[lr], overwrite=overwrite)


def restore_file(
    params: Params, out, *, hr, temperature=None, seed: int = 0, overwrite: bool = False
) -> Summary:
    """Remove noise and other faults from an HR file."""
    conditional.check_model(params)

    def work(key, warn):
        del warn
        pair = read_pair(params, hr)
        image = conditional.restore(params, to_float(pair.hr)[None], key, temperature)
        image, before = as_image(image, pair.size), pair.picture
        columns = [("before", before), lr_column(params, pair), ("restored", image)]
        columns.append(difference(image, before))
        return Result({"": image}, columns, consistency(params, image, pair))

    return edit_file(
        "restore", hr, out, work, seed=seed, temperature=temperature, overwrite=overwrite
    )


def normalized(
    params: Params,
    pair: Pair,
    where: np.ndarray | None,
    key: jax.Array,
    temperature: float | None,
    mode: str,
    caption: str = "before",
) -> Result:
    """Do what `normalize_file` and `content_file` share; `where` is the mask [H,W]."""
    large, small = to_float(pair.hr)[None], to_float(pair.lr)[None]
    region = None if where is None else padded_mask(where, pair.hr.shape[:2])
    image = conditional.normalize(params, large, small, key, temperature, mode, region)
    image, before = as_image(image, pair.size), pair.picture
    columns = [lr_column(params, pair), (caption, before)]
    if where is not None:
        columns.append(mask_column(where))
    columns += [("result", image), difference(image, before)]
    return Result({"": image}, columns, consistency(params, image, pair), where)
