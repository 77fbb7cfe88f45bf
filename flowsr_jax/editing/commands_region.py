"""Edits of a region of an image file; `flowsr edit` calls them.

Each writes OUT/NAME_COMMAND.png and a picture sheet, and returns the counts; see
`files.edit_file` for `seed`, `temperature`, `overwrite` and the errors.  The other
arguments are those of the functions in `conditional`, as files, which are read as 8-bit
RGB, of any size.
"""

from __future__ import annotations

import dataclasses

import jax

from flowsr_jax import api
from flowsr_jax.console import Summary, UsageError
from flowsr_jax.editing import conditional
from flowsr_jax.editing.commands_image import normalized
from flowsr_jax.editing.files import Result, difference, edit_file, mask_column, require_room
from flowsr_jax.editing.pairs import (
    as_image,
    consistency,
    lr_column,
    mirrored,
    padded_mask,
    read_mask,
    read_pair,
)
from flowsr_jax.files.colour import to_float
from flowsr_jax.files.images import read_rgb
from flowsr_jax.models import Params, scale_of


def resample_file(
    params: Params,
    out,
    *,
    mask,
    lr=None,
    hr=None,
    num_samples: int = 1,
    temperature=None,
    seed: int = 0,
    overwrite: bool = False,
) -> Summary:
    """Draw a region again, of an HR file or (without one) of a draw from the LR file.

    Without an HR file the draw is written too, as NAME_resample_before.png.
    """
    conditional.check_model(params)
    if lr is None and hr is None:
        raise UsageError("resample needs --lr, or --hr, or both")
    if num_samples < 1:
        raise UsageError(f"num_samples = {num_samples} must be at least 1")
    if hr is None:
        require_room("num_samples", num_samples, lr, scale_of(params))
    else:
        require_room("num_samples", num_samples, hr)
    endings = [""] if num_samples == 1 else [f"_{i}" for i in range(num_samples)]

    def work(key, warn):
        pair = read_pair(params, hr, lr, warn=warn)
        where = read_mask(mask, pair.size)
        first, second = jax.random.split(key)
        small = to_float(pair.lr)[None]
        if hr is None:
            latents = conditional.draw_latents(params, small, first, temperature)
            before = as_image(api.decode(params, latents, small), pair.size)
        else:
            latents, _ = api.encode(params, to_float(pair.hr)[None], small)
            before = pair.picture
        region = padded_mask(where, [scale_of(params) * n for n in pair.lr.shape[:2]])
        draws = []
        for k in jax.random.split(second, num_samples):
            image, _ = conditional.resample(params, small, latents, region, k, temperature)
            draws.append(as_image(image, pair.size))
        images = dict(zip(endings, draws, strict=True))
        if hr is None:
            images["_before"] = before
        columns = [lr_column(params, pair), ("before", before), mask_column(where)]
        columns += [
            ("again" + end.replace("_", " #"), x) for end, x in zip(endings, draws, strict=True)
        ]
        columns.append(difference(draws[0], before))
        return Result(images, columns, consistency(params, draws[0], pair), where)

    return edit_file(
        "resample",
        lr if hr is None else hr,
        out,
        work,
        endings=endings if hr else [*endings, "_before"],
        inputs=[lr, mask],
        seed=seed,
        temperature=temperature,
        overwrite=overwrite,
    )


def content_file(
    params: Params,
    out,
    *,
    hr,
    lr=None,
    mask=None,
    original=None,
    temperature=None,
    seed: int = 0,
    overwrite: bool = False,
) -> Summary:
    """Make edited content fit: of the HR file after the edit, the LR of before.

    The LR before the edit is `lr`, or that of `original`, the HR file before the edit;
    the edited pixels are those of `mask`, or all that differ from `original`.
    """
    conditional.check_model(params)
    if original is None and (lr is None or mask is None):
        raise UsageError("content needs --lr and --mask, or --original in place of either")

    def work(key, warn):
        edited = read_rgb(hr)
        where = None if mask is None else read_mask(mask, edited.shape[:2])
        before = None
        if original is not None:
            before = read_rgb(original)
            if before.shape != edited.shape:
                raise UsageError(f"{original} and {hr} must have the same size")
            if where is None:
                where = (before != edited).any(axis=2)
                if not where.any():
                    raise UsageError(f"{original} and {hr} are the same image: nothing was edited")
        if lr is None:
            pair = read_pair(params, original)
            pair = dataclasses.replace(pair, hr=mirrored(edited, pair.hr.shape[:2]))
        else:
            pair = read_pair(params, hr, lr, mask=where, warn=warn)
        result = normalized(params, pair, where, key, temperature, "local", "edited")
        note = f"{where.mean():.1%} of the image was edited"
        columns = ([] if before is None else [("before", before)]) + list(result.columns)
        return Result(result.images, columns, [note, *result.notes], where)

    return edit_file(
        "content",
        hr,
        out,
        work,
        inputs=[lr, mask, original],
        seed=seed,
        temperature=temperature,
        overwrite=overwrite,
    )
