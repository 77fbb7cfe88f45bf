"""Masks: from HR pixels to the latent positions that cover them."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def check_mask(mask, size: tuple[int, int], batch: int | None = None) -> None:
    """Raise TypeError or ValueError unless `mask` is bool [H,W], [B,H,W] or [B,H,W,1].

    Args:
      mask: what to check.
      size: (H, W) of the HR images.
      batch: number of images B; None allows any.
    """
    shape, dtype = getattr(mask, "shape", None), getattr(mask, "dtype", None)
    if shape is None or dtype is None or dtype.kind != "b":
        raise TypeError(f"mask must be a bool array, got {dtype or type(mask).__name__}")
    h, w = size
    wanted = f"[{h},{w}], [B,{h},{w}] or [B,{h},{w},1]"
    inner = shape if len(shape) == 2 else shape[1:3]
    if len(shape) not in (2, 3, 4) or shape[3:] not in ((), (1,)) or tuple(inner) != (h, w):
        raise ValueError(f"mask must be of HR size, {wanted}, got shape {tuple(shape)}")
    if len(shape) > 2 and batch is not None and shape[0] not in (1, batch):
        raise ValueError(f"mask must have 1 or {batch} images, got {shape[0]}")


def latent_masks(mask, shapes: Sequence[Sequence[int]]) -> list[jax.Array]:
    """Return the latent positions that an HR mask touches.

    A position of a latent of size H_l x W_l covers H/H_l x W/W_l HR pixels, and is
    touched if any of them is.

    Args:
      mask: bool [H,W], [B,H,W] or [B,H,W,1], True where the image is edited.
      shapes: [B,H_l,W_l,C_l] of the latents; H_l divides H, W_l divides W.

    Returns:
      bool [B,H_l,W_l,1] per latent.

    Raises:
      TypeError, ValueError: another dtype or shape; latents that are no part of the mask.
    """
    shape = tuple(getattr(mask, "shape", ()))
    size = shape[:2] if len(shape) == 2 else shape[1:3]
    check_mask(mask, size, shapes[0][0])
    mask = jnp.asarray(mask).reshape(-1, *size)
    out = []
    for b, h, w, _ in shapes:
        if size[0] % h or size[1] % w:
            raise ValueError(
                f"mask of {size[0]}x{size[1]} pixels does not divide into the {h}x{w} positions "
                "of a latent"
            )
        cells = mask.reshape(len(mask), h, size[0] // h, w, size[1] // w)
        out.append(jnp.broadcast_to(cells.any(axis=(2, 4))[..., None], (b, h, w, 1)))
    return out
