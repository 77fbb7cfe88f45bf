"""Pure transforms of images; randomness comes from the generator that is passed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flowsr_jax.data.config import DataConfig
from flowsr_jax.data.degradations import DegradationConfig, cond_blur, degrade_image
from flowsr_jax.math.resize import imresize, imresize_window

Pair = dict[str, np.ndarray]

# LR pixels around a patch that a random degradation sees as well.  The first ones are drawn
# from eight successive numbers, so that the 8x8 blocks of a JPEG begin anywhere in a patch.
CONTEXT = (4, 12)
BICUBIC = DegradationConfig()


def whole_cells(hr: np.ndarray, scale: int) -> np.ndarray:
    """Cut [H,W,C] at the bottom and right to multiples of `scale`."""
    height, width = (n // scale * scale for n in hr.shape[:2])
    return hr[:height, :width]


def fits(hr_shape: Sequence[int], lr_shape: Sequence[int], scale: int) -> bool:
    """Return whether HR is `scale` times LR, or less than `scale` pixels larger than that."""
    pairs = zip(hr_shape[:2], lr_shape[:2], strict=True)
    return all(small > 0 and large // scale == small for large, small in pairs)


def degrade(hr: np.ndarray, scale: int) -> np.ndarray:
    """Make the LR image of a whole HR image: MATLAB's bicubic.

    Args:
      hr: uint8 [H,W,3]; cut to multiples of `scale` first.
      scale: whole number.

    Returns:
      uint8 [H//scale,W//scale,3].
    """
    return imresize(whole_cells(hr, scale), 1 / scale)


def crop_lr(hr: np.ndarray, top: int, left: int, size: int, scale: int) -> np.ndarray:
    """Cut a square out of the LR image of a whole image, without computing the rest.

    Args:
      hr: the whole image, uint8 [H,W,3].
      top, left, size: the square in LR pixels.
      scale: whole number.

    Returns:
      exactly `degrade(hr, scale)[top:top+size, left:left+size]`, for every scale.

    Raises:
      ValueError: the square does not lie inside the LR image.
    """
    return imresize_window(whole_cells(hr, scale), 1 / scale, top, left, size, size)


def crop_float_lr(hr: np.ndarray, top: int, left: int, size: int, scale: int) -> np.ndarray:
    """Return `crop_lr` in float32, in units of [0,1], neither rounded nor clipped."""
    hr = whole_cells(hr, scale)
    # The kernel reaches two LR pixels on either side; only what it sees is converted.
    y, x = max(0, top - 2), max(0, left - 2)
    seen = hr[y * scale : (top + size + 2) * scale, x * scale : (left + size + 2) * scale]
    seen = seen.astype(np.float32) / np.float32(255)
    return imresize_window(seen, 1 / scale, top - y, left - x, size, size)


def random_crop(
    hr: np.ndarray,
    patch_size: int,
    scale: int,
    rng: np.random.Generator,
    *,
    lr: np.ndarray | None = None,
    degradation: DegradationConfig = BICUBIC,
    float_lr: bool = False,
) -> Pair:
    """Cut an aligned pair of patches; the offset is uniform on the LR grid.

    Args:
      hr: the whole image, uint8 [H,W,3].
      patch_size: HR side, a multiple of `scale`.
      lr: its LR version, uint8 [H//s,W//s,3], where the source has one.
      degradation: makes the LR patch where it has none.  The default cuts it out of the LR
        version of the whole image; random ones degrade the patch with some context.
      float_lr: see DataConfig.

    Returns:
      {"hr": uint8 [P,P,3], "lr": uint8 (or float32) [P/s,P/s,3]}.

    Raises:
      ValueError: the image is smaller than the patch.
    """
    size = patch_size // scale
    rows, columns = (n // scale - size for n in hr.shape[:2])
    if min(rows, columns) < 0:
        raise ValueError(
            f"the image ({hr.shape[0]}x{hr.shape[1]}) is smaller than a patch of "
            f"{patch_size}x{patch_size}"
        )
    top, left = int(rng.integers(rows + 1)), int(rng.integers(columns + 1))
    if lr is None and degradation.whole:
        hr, lr = degrade_image(_cut(hr, top, left, size, scale), scale, degradation, rng)
        return {"hr": hr, "lr": lr}
    if lr is None and not degradation.deterministic:
        return _degraded_patch(hr, top, left, size, scale, rng, degradation)
    pair = {"hr": _cut(hr, top, left, size, scale)}
    if lr is not None:
        pair["lr"] = _cut(lr, top, left, size)
    elif float_lr:
        pair["lr"] = crop_float_lr(hr, top, left, size, scale)
    else:
        pair["lr"] = crop_lr(hr, top, left, size, scale) if scale > 1 else pair["hr"]
    return pair


def blur_lr(pair: Pair, sigmas: Sequence[float], rng: np.random.Generator) -> Pair:
    """Blur the LR image, with probability 1/2, by a deviation drawn from (lowest, highest).

    Source: Ho et al. 2021 (CDM); see `cond_blur`.
    """
    sigma = rng.uniform(*sigmas)
    if rng.integers(2) or sigma < 0.1:
        return pair
    lr = pair["lr"]
    if lr.dtype != np.uint8:
        return {**pair, "lr": cond_blur(lr, sigma)}
    lr = cond_blur(lr.astype(np.float32) / 255, sigma)
    return {**pair, "lr": np.rint(255 * lr).astype(np.uint8)}


def random_shift(pair: Pair, share: float, rng: np.random.Generator) -> Pair:
    """Move an image of scale 1 by up to `share` of its sides, drawn uniformly.

    Bilinear between pixels, edges repeated, values rounded down: the released Glow's
    augmentation of CIFAR-10.
    """
    image = pair["hr"].astype(np.float32)
    for axis in (0, 1):
        n = image.shape[axis]
        at = np.clip(np.arange(n) + n * rng.uniform(-share, share), 0, n - 1)
        low = np.minimum(at.astype(int), max(n - 2, 0))
        part = np.expand_dims((at - low).astype(np.float32), [a for a in range(3) if a != axis])
        below, above = (image.take(i, axis) for i in (low, np.minimum(low + 1, n - 1)))
        image = (1 - part) * below + part * above
    # A whole number that rounding made a little smaller stays what it is.
    moved = np.floor(image + 1e-3).astype(np.uint8)
    return {"hr": moved, "lr": moved}


def random_flip(pair: Pair, rng: np.random.Generator) -> Pair:
    """Mirror both images left to right, with probability 1/2."""
    return {k: v[:, ::-1] for k, v in pair.items()} if rng.integers(2) else pair


def random_rotation(pair: Pair, angles: Sequence[int], rng: np.random.Generator) -> Pair:
    """Rotate both images counter-clockwise by one of `angles` (multiples of 90 degrees)."""
    turns = angles[int(rng.integers(len(angles)))] // 90
    return {k: np.rot90(v, turns) for k, v in pair.items()}


def random_color_permutation(pair: Pair, rng: np.random.Generator) -> Pair:
    """Give both images the same one of the six orders of the colour channels."""
    order = rng.permutation(3)
    return {k: v[..., order] for k, v in pair.items()}


def training_patches(
    example: Mapping[str, Any], rng: np.random.Generator, config: DataConfig
) -> Pair:
    """Cut `config.crops_per_image` augmented pairs out of one example of a source.

    Args:
      example: {"hr": uint8 [H,W,3]}, perhaps with "lr" and "label" (an int).
      rng: the only source of randomness.
      config: patch size, scale, degradation and augmentations.

    Returns:
      {"hr": uint8 [n,P,P,3], "lr": uint8 (or float32) [n,P/s,P/s,3]}, C-contiguous, and
      "label": int32 [n] if the example has one.
    """
    pairs = []
    for _ in range(config.crops_per_image):
        pair = random_crop(
            example["hr"],
            config.patch_size,
            config.scale,
            rng,
            lr=example.get("lr"),
            degradation=config.degradation,
            float_lr=config.float_lr,
        )
        if any(config.lr_blur):
            pair = blur_lr(pair, config.lr_blur, rng)
        if config.shift:
            pair = random_shift(pair, config.shift, rng)
        if config.flips:
            pair = random_flip(pair, rng)
        if config.rotations:
            pair = random_rotation(pair, config.angles, rng)
        if config.color_permutations:
            pair = random_color_permutation(pair, rng)
        pairs.append(pair)
    patches = {k: np.stack([pair[k] for pair in pairs]) for k in pairs[0]}
    if "label" in example:
        patches["label"] = np.full(len(pairs), example["label"], np.int32)
    return patches


def _cut(image: np.ndarray, top: int, left: int, size: int, scale: int = 1) -> np.ndarray:
    rows, columns = (slice(n * scale, (n + size) * scale) for n in (top, left))
    return image[rows, columns]


def _degraded_patch(
    hr: np.ndarray,
    top: int,
    left: int,
    size: int,
    scale: int,
    rng: np.random.Generator,
    config: DegradationConfig,
) -> Pair:
    """Degrade the patch within the pixels around it, as far as the image has them."""
    before = rng.integers(*CONTEXT, size=2)
    y, x = max(0, top - int(before[0])), max(0, left - int(before[1]))
    end = (top + size + CONTEXT[0]) * scale, (left + size + CONTEXT[0]) * scale
    around = whole_cells(hr[y * scale : end[0], x * scale : end[1]], scale)
    around, small = degrade_image(around, scale, config, rng)
    top, left = top - y, left - x
    return {"hr": _cut(around, top, left, size, scale), "lr": _cut(small, top, left, size)}
