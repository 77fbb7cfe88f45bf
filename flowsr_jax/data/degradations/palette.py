"""The tasks of Palette: from an image to what a model is to restore it from, on the host.

Numbers: docs/papers/sr3.md section 7; Saharia et al. 2022 (Palette), section 4, appendix.
"""

from __future__ import annotations

import numpy as np

from flowsr_jax.config import choice
from flowsr_jax.data.degradations.config import TASKS
from flowsr_jax.data.degradations.masks import inpainting_mask, uncrop_mask
from flowsr_jax.data.degradations.noise import GRAY
from flowsr_jax.math import holes
from flowsr_jax.math.jpeg import jpeg_codec

QUALITIES = np.arange(5, 31)
QUALITY_SHARES = np.exp(-QUALITIES / 10) / np.exp(-QUALITIES / 10).sum()


def palette_source(image: np.ndarray, task: str, rng: np.random.Generator) -> np.ndarray:
    """Make the source image of a task.

    Args:
      image: uint8 [H,W,3], at least 8x8.
      task: "colorize": the luma, in all three channels; "inpaint": holes as in
        `inpainting_mask`; "uncrop": as in `uncrop_mask`; "jpeg": quality Q of 5 to 30, drawn
        in proportion to exp(-Q / 10).
      rng: source of randomness.

    Returns:
      uint8 [H,W,3]; holes have the colour of flowsr_jax/math/holes.py (the model fills them
      with noise, as published).

    Raises:
      ConfigError: another task.
    """
    choice("task", task, TASKS)
    if task == "colorize":
        luma = np.rint(image @ (np.array(GRAY) / sum(GRAY))).astype(np.uint8)
        return np.repeat(luma[..., None], 3, axis=-1)
    if task == "jpeg":
        return jpeg_codec(image, int(rng.choice(QUALITIES, p=QUALITY_SHARES)))
    draw = inpainting_mask if task == "inpaint" else uncrop_mask
    return holes.mark(image, draw(rng, *image.shape[:2]))
