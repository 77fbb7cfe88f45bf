"""Files between two: `flowsr edit interpolate`, for flows with and without LR."""

from __future__ import annotations

import jax
import numpy as np

from flowsr_jax import api
from flowsr_jax.console import Summary, UsageError
from flowsr_jax.editing import conditional, unconditional
from flowsr_jax.editing.files import Result, difference, edit_file, require_room
from flowsr_jax.editing.interpolate import interpolate
from flowsr_jax.editing.pairs import as_image, read_pair
from flowsr_jax.editing.unconditional_files import check_model, read_pixels, to_pixels
from flowsr_jax.files.colour import to_float
from flowsr_jax.models import Params, kind_of, scale_of


def interpolate_file(
    params: Params,
    out,
    *,
    pair=None,
    lr=None,
    steps: int = 5,
    keep_variance: bool = False,
    size: int | None = None,
    label: int | None = None,
    temperature=None,
    seed: int = 0,
    overwrite: bool = False,
) -> Summary:
    """Draw images between two: the files `pair`, or two draws of the LR file.

    Writes NAME_interpolate_0.png, ... from the first to the second.  Of two HR files and
    no LR, each has its own LR, and the LRs are interpolated too.  `size` and `label` are
    for models that take no LR; see `unconditional_files.read_pixels`.
    """
    unconditional.check_points(steps, name="steps")
    unconditional_model = kind_of(params) != "super_resolution"
    if unconditional_model:
        check_model(params)
        if lr is not None or pair is None or keep_variance:
            raise UsageError(
                "this model takes no LR: give --pair, and neither --lr nor --keep-variance"
            )
    else:
        conditional.check_model(params)
        if size is not None or label is not None:
            raise UsageError("size and label are for models that take no LR")
        if pair is None and lr is None:
            raise UsageError("interpolate needs --pair or --lr, or both")
    if size is not None:
        unconditional.check_points(steps, (size, size, 3), "steps")
    elif pair is None:
        require_room("steps", steps, lr, scale_of(params))
    else:
        require_room("steps", steps, pair[0])
    weights = np.linspace(0, 1, steps)

    def between_files(key, warn):
        del key
        first, second = (read_pair(params, path, lr, warn=warn) for path in pair)
        if first.size != second.size:
            raise UsageError(f"{pair[0]} and {pair[1]} must have the same size")
        small = None if lr is None else to_float(first.lr)[None]
        images = conditional.interpolate_images(
            params,
            to_float(first.hr)[None],
            to_float(second.hr)[None],
            weights,
            small,
            keep_variance=keep_variance,
        )
        return images, first.size

    def between_draws(key, warn):
        del warn
        target = read_pair(params, None, lr)
        small = to_float(target.lr)[None]
        ends = [
            conditional.draw_latents(params, small, k, temperature) for k in jax.random.split(key)
        ]
        images = []
        for w in weights:
            latents = interpolate(*ends, w, keep_variance=keep_variance)
            images.append(api.decode(params, latents, small))
        return images, target.size

    def between_images(key, warn):
        del key, warn
        ends = [to_float(read_pixels(params, path, size)) for path in pair]
        return to_pixels(
            params, unconditional.interpolate_images(params, *ends, points=steps, label=label)
        )

    def work(key, warn):
        if unconditional_model:
            images = between_images(key, warn)
        else:
            found, shape = (between_draws if pair is None else between_files)(key, warn)
            images = [as_image(image, shape) for image in found]
        columns = [(f"{w:.2f}", image) for w, image in zip(weights, images, strict=True)]
        columns.append(difference(images[0], images[-1]))
        return Result({f"_{i}": image for i, image in enumerate(images)}, columns)

    return edit_file(
        "interpolate",
        lr if pair is None else pair[0],
        out,
        work,
        endings=[f"_{i}" for i in range(steps)],
        inputs=[*(pair or ()), lr],
        seed=seed,
        temperature=temperature,
        overwrite=overwrite,
    )
