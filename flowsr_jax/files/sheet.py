"""Picture sheets: what the model makes of the validation images, side by side."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from flowsr_jax.files.images import write_png

GAP, CAPTION = 4, 18


def cut(pair: Mapping[str, Any], images: Mapping[str, Sequence[np.ndarray]], size: int = 192):
    """Return one row of a sheet: [(caption, uint8 [size',size',3]), ...].

    Columns: LR (each pixel as a square; there may be two, or none), every view (a
    stochastic one several times), HR; all show the same square from the centre, at most
    `size` HR pixels a side and on the LR grid.

    Args:
      pair: uint8 images: "hr", where there are any the LR image "lr", and that of a
        rescaling model "own_lr" (RGB or grey [h,w,1]).
      images: {view: [draw, ...]} uint8 images of HR size.
      size: side of the square in HR pixels.
    """
    hr, lr, own = pair["hr"], pair.get("lr"), pair.get("own_lr")
    small = hr if lr is None else lr
    scale = hr.shape[0] // small.shape[0]
    side = max(1, size // scale)
    spans = [(max(0, (n - side) // 2), min(side, n)) for n in small.shape[:2]]
    window = tuple(slice(start * scale, (start + n) * scale) for start, n in spans)
    given = {"LR": lr if own is None else own}
    if own is not None and scale > 1:
        given = {"bicubic LR": lr, **given}
    columns = []
    for name, image in given.items():
        if image is not None:
            nearest = image.repeat(scale, axis=0).repeat(scale, axis=1)[window]
            columns.append((name, np.broadcast_to(nearest, (*nearest.shape[:2], 3))))
    for name, draws in images.items():
        for i, image in enumerate(draws):
            columns.append((f"{name} #{i + 1}" if len(draws) > 1 else name, image[window]))
    columns.append(("HR", hr[window]))
    return [(name, np.broadcast_to(p, (*p.shape[:2], 3))) for name, p in columns]  # grey too


def write_sheet(path: str, rows: Sequence[tuple[str, Sequence[tuple[str, np.ndarray]]]]) -> None:
    """Write a PNG of `rows` [(title, columns of `cut`), ...]; captions above each picture."""
    height = sum(CAPTION + max(p.shape[0] for _, p in columns) + GAP for _, columns in rows)
    width = max(sum(p.shape[1] + GAP for _, p in columns) for _, columns in rows)
    sheet = Image.new("RGB", (width + GAP, height + CAPTION), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    y = 0
    for title, columns in rows:
        x = GAP
        for i, (caption, picture) in enumerate(columns):
            text = f"{title}: {caption}" if i == 0 else caption
            draw.text((x, y + 2), _fit(draw, font, text, picture.shape[1]), "black", font)
            sheet.paste(Image.fromarray(np.ascontiguousarray(picture)), (x, y + CAPTION))
            x += picture.shape[1] + GAP
        y += CAPTION + max(p.shape[0] for _, p in columns) + GAP
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write_png(path, np.asarray(sheet.crop((0, 0, width + GAP, y))))


def _fit(draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont, text: str, width: int) -> str:
    """Shorten a caption to its picture's width, keeping the end."""
    while text and draw.textlength(text, font) > width:
        text = text[1:]
    return text
