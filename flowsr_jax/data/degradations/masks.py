"""Masks of the image-to-image tasks of Palette, on the host: True is the hole to be filled."""

from __future__ import annotations

import math

import numpy as np

from flowsr_jax.config import choice
from flowsr_jax.math.arrays import check_values

SIDES = ("left", "top", "bottom", "right", "all")
BRUSH = (12, 40)


def free_form_mask(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draw a free-form mask: one to three brush strokes of 5 to 12 vertices.

    The brush is 12 to 39 pixels wide whatever the size of the image, as published, so the
    hole of a 256x256 image is 15 % of it on average, that of a 128x128 image 26 %.

    Args:
      rng: source of randomness.
      height, width: size in pixels.

    Returns:
      bool [height,width].

    Raises:
      ValueError: a size that is not a whole number above 0.

    Source: Yu et al. 2019 (DeepFill v2), Algorithm 1, with the numbers of its released code.
    """
    from PIL import Image, ImageDraw

    _check_size(height, width)
    image = Image.new("1", (width, height))
    draw = ImageDraw.Draw(image)
    radius = math.hypot(height, width) / 8
    for _ in range(rng.integers(1, 4)):
        corners = int(rng.integers(4, 12))
        turn = 2 * math.pi / 5 + rng.uniform(0, 2 * math.pi / 15, 2) * (-1, 1)
        points = [(int(rng.integers(width)), int(rng.integers(height)))]
        for i in range(corners):
            angle = rng.uniform(*turn)
            angle = 2 * math.pi - angle if i % 2 == 0 else angle
            length = np.clip(rng.normal(radius, radius // 2), 0, 2 * radius)
            x = np.clip(points[-1][0] + length * math.cos(angle), 0, width)
            y = np.clip(points[-1][1] + length * math.sin(angle), 0, height)
            points.append((int(x), int(y)))
        brush = int(rng.uniform(*BRUSH))
        draw.line(points, width=brush, fill=1)
        for x, y in points:
            half = brush // 2
            draw.ellipse((x - half, y - half, x + half, y + half), fill=1)
    return np.array(image)


def rectangle_mask(
    rng: np.random.Generator,
    height: int,
    width: int,
    count: tuple[int, int] = (1, 5),
    area: tuple[float, float] = (0.1, 0.4),
) -> np.ndarray:
    """Draw a mask of rectangles.

    Number and total area are Palette's; how the area is shared out is not published: here
    by a symmetric Dirichlet draw, with sides up to 1.5 times longer or shorter than the
    image's proportions give, at uniform places.

    Args:
      rng: source of randomness.
      height, width: size in pixels, at least 8.
      count: lowest and highest number of rectangles.
      area: lowest and highest share of the image that the holes cover together.

    Returns:
      bool [height,width].

    Raises:
      ValueError: a size or range that cannot be used.

    Source: Saharia et al. 2022 (Palette), appendix.
    """
    _check_size(height, width, 8)
    check_values("count", count, 1, 100, whole=True)
    check_values("area", area, 0.01, 0.4)
    if count[0] > count[1] or area[1] - area[0] < 0.02:
        raise ValueError(
            f"count = {count!r} and area = {area!r} must be (lowest, highest); the areas at "
            "least 0.02 apart"
        )
    number = int(rng.integers(count[0], count[1] + 1))
    while True:  # overlaps and rounding may leave too little
        mask = np.zeros((height, width), bool)
        for share in rng.uniform(*area) * rng.dirichlet(np.full(number, 2.0)):
            aspect = 1.5 ** rng.uniform(-1, 1)
            h = max(1, round(height * math.sqrt(share) * aspect))
            w = max(1, round(width * math.sqrt(share) / aspect))
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            mask[top : top + h, left : left + w] = True
        if area[0] <= mask.mean() <= area[1]:
            return mask


def inpainting_mask(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draw Palette's training mask, bool [height,width]: 60 % free-form, 40 % rectangles."""
    draw = free_form_mask if rng.random() < 0.6 else rectangle_mask
    return draw(rng, height, width)


def center_mask(height: int, width: int) -> np.ndarray:
    """Return the hole of half the sides in the centre, bool [height,width]."""
    _check_size(height, width, 2)
    mask = np.zeros((height, width), bool)
    top, left = (height - height // 2) // 2, (width - width // 2) // 2
    mask[top : top + height // 2, left : left + width // 2] = True
    return mask


def uncrop_mask(
    rng: np.random.Generator, height: int, width: int, side: str | None = None
) -> np.ndarray:
    """Draw a mask of uncropping: half of the area, on one side or around a kept centre.

    Args:
      rng: source of randomness; not used if `side` is given.
      height, width: size in pixels, at least 2.
      side: "left", "top", "bottom", "right", or "all" (the kept box has sides of
        1/sqrt(2), centred: our reading); None draws one side or all, half of the time each.

    Returns:
      bool [height,width].

    Raises:
      ValueError: another side, or a size that cannot be used.

    Source: Saharia et al. 2022 (Palette), section 4.
    """
    _check_size(height, width, 2)
    if side is None:
        side = "all" if rng.random() < 0.5 else SIDES[int(rng.integers(4))]
    mask = np.zeros((height, width), bool)
    if choice("side", side, SIDES) == "all":
        h, w = (round(n / math.sqrt(2)) for n in (height, width))
        top, left = (height - h) // 2, (width - w) // 2
        mask[:] = True
        mask[top : top + h, left : left + w] = False
    elif side in ("top", "bottom"):
        rows = slice(height // 2) if side == "top" else slice(height - height // 2, None)
        mask[rows] = True
    else:
        columns = slice(width // 2) if side == "left" else slice(width - width // 2, None)
        mask[:, columns] = True
    return mask


def _check_size(height, width, least=1):
    for name, n in (("height", height), ("width", width)):
        check_values(name, n, least, 1 << 16, whole=True)
