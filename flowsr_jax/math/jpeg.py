"""JPEG: quantisation tables, the differentiable DiffJPEG, and the real codec.

Images are RGB, [H,W,3] or [B,H,W,3]; functions take NumPy or JAX arrays.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from flowsr_jax.config import choice
from flowsr_jax.math.arrays import (
    check_images,
    check_per_image,
    check_values,
    namespace,
    straight_through,
)
from flowsr_jax.types import AnyArray, Scalar, Shape

STYLES = ("libjpeg", "diffjpeg")
ROUNDINGS = ("cubic", "hard", "ste")
LUMA = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
CHROMA = np.full((8, 8), 99)
CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]

# Orthonormal DCT-II, coefficients = DCT @ block @ DCT.T; row u is frequency u.
DCT = 0.5 * np.cos((2 * np.arange(8) + 1) * np.arange(8)[:, None] * np.pi / 16)
DCT[0] = np.sqrt(1 / 8)


def jpeg_tables(q: Scalar, style: str = "libjpeg") -> tuple[AnyArray, AnyArray]:
    """Return the quantisation tables of a JPEG quality.

    Args:
      q: quality, a number or an array [...]; whole numbers in 1..100 for "libjpeg"
        (fractions of traced values are dropped), 0 < q < 100 for "diffjpeg".
      style: "libjpeg" gives the integer tables that Pillow and OpenCV write; "diffjpeg"
        those of DiffJPEG: not rounded, not clipped, and the luma table transposed.

    Returns:
      (luma, chroma), each [...,8,8]; rows are vertical frequencies (in DiffJPEG's luma
      table, horizontal ones).  Integers for "libjpeg", floats for "diffjpeg".

    Raises:
      ValueError: a quality outside its range (traced ones are not checked), or another style.

    Source: libjpeg jcparam.c; mlomnitz/DiffJPEG and BasicSR utils/diffjpeg.py.
    """
    xp = namespace(q)
    if choice("style", style, STYLES) == "libjpeg":
        check_values("q", q, 1, 100, whole=True)
        q = xp.asarray(q).astype(np.int32)[..., None, None]
        scale = xp.where(q < 50, 5000 // q, 200 - 2 * q)
        return tuple(xp.clip((base * scale + 50) // 100, 1, 255) for base in (LUMA, CHROMA))
    check_values("q", q, 0, 100, ends=False)
    q = xp.asarray(q)[..., None, None]
    factor = xp.where(q < 50, 5000 / q, 200 - 2 * q) / 100
    return LUMA.T * factor, CHROMA * factor


def diff_jpeg(
    x: AnyArray, quality: Scalar, rounding: str = "cubic", luma_transposed: bool = True
) -> AnyArray:
    """Return images after compression and decompression with DiffJPEG.

    It differs from real JPEG by its transposed luma table, black padding, tables and
    planes that are not rounded, and chroma upsampled by repetition.

    Args:
      x: floats, [H,W,3] or [B,H,W,3], in [0,1] (values outside are not clipped first).
      quality: 0 < quality < 100, one number or one per image [B]; need not be whole.
      rounding: of the coefficients; "cubic" is round(c) + (c - round(c))^3, whose gradient
        is not zero; "hard" is exact and has no gradient; "ste" is hard with gradient 1.
      luma_transposed: as in the released code; False uses the luma table the right way.

    Returns:
      array like x, in [0,1]; computed in float32.

    Raises:
      ValueError: another shape, dtype or rounding, or a quality outside its range.

    Source: Shin and Song 2017 (JPEG-resistant adversarial images); mlomnitz/DiffJPEG, as
    in BasicSR utils/diffjpeg.py.
    """
    check_images(x, channels=3)
    blocks = diff_jpeg_encode(x, quality, rounding, luma_transposed)
    return diff_jpeg_decode(blocks, quality, x.shape[-3:-1], luma_transposed).astype(x.dtype)


def diff_jpeg_encode(
    x: AnyArray, quality: Scalar, rounding: str = "cubic", luma_transposed: bool = True
) -> tuple[AnyArray, ...]:
    """Return DiffJPEG's quantised coefficients (arguments as `diff_jpeg`).

    Returns:
      (y, cb, cr): float32 [n,8,8] or [B,n,8,8], blocks of the padded planes row by row.
    """
    choice("rounding", rounding, ROUNDINGS)
    tables = _flat_tables(quality, luma_transposed, x)
    flat = (
        round_to(dct_flat(to_blocks(plane) - 128) / table, rounding)
        for plane, table in zip(ycbcr_planes(x), tables, strict=True)
    )
    return tuple(blocks.reshape(*blocks.shape[:-1], 8, 8) for blocks in flat)


def diff_jpeg_decode(
    blocks: Sequence[AnyArray], quality: Scalar, size: Shape, luma_transposed: bool = True
) -> AnyArray:
    """Return the float32 image in [0,1] of `diff_jpeg_encode`'s blocks, cut to `size`."""
    height, width = (-(-n // 16) * 16 for n in size)
    planes = []
    tables = _flat_tables(quality, luma_transposed, blocks[0])
    for block, table, part in zip(blocks, tables, (1, 2, 2), strict=True):
        flat = idct_flat(block.reshape(*block.shape[:-2], 64) * table) + 128
        plane = from_blocks(flat, height // part, width // part)
        planes.append(plane.repeat(part, axis=-2).repeat(part, axis=-1))
    y, cb, cr = (plane[..., : size[0], : size[1]] for plane in planes)
    xp = namespace(y)
    red = y + 1.402 * (cr - 128)
    green = y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128)
    blue = y + 1.772 * (cb - 128)
    return xp.clip(xp.stack([red, green, blue], axis=-1), 0, 255) / 255


def jpeg_codec(image: np.ndarray, quality: int) -> np.ndarray:
    """Return one image after the real codec (libjpeg, 4:2:0), on the host.

    Args:
      image: uint8 [H,W,3].
      quality: whole number in 1..100.

    Returns:
      uint8 [H,W,3].

    Raises:
      ValueError: another dtype, shape or quality.
    """
    from PIL import Image

    check_values("quality", quality, 1, 100, whole=True)
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"image must be uint8 [H,W,3], got {image.dtype} {image.shape}")
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(
        file, format="JPEG", quality=int(quality), subsampling="4:2:0"
    )
    with Image.open(file) as decoded:
        return np.array(decoded)


def ycbcr_planes(x: AnyArray) -> tuple[AnyArray, ...]:
    """Return DiffJPEG's planes of RGB images in [0,1], padded with black to multiples of 16.

    Returns:
      (y [...,h,w], cb [...,h/2,w/2], cr [...,h/2,w/2]): float32, full range 0..255, the
      chroma planes averaged over 2x2.
    """
    xp = namespace(x)
    margin = [(0, 0)] * (x.ndim - 3) + [(0, -n % 16) for n in x.shape[-3:-1]] + [(0, 0)]
    y, cb, cr = rgb_to_ycbcr(xp.pad(x.astype(np.float32), margin) * 255)
    return y, *(pool_2x2(plane) / 4 for plane in (cb, cr))


def rgb_to_ycbcr(levels: AnyArray) -> tuple[AnyArray, ...]:
    """Return (y, cb, cr), each [...], of RGB levels [...,3] in 0..255; full range (JFIF)."""
    red, green, blue = (levels[..., i] for i in range(3))
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    cb = -0.168736 * red - 0.331264 * green + 0.5 * blue + 128
    cr = 0.5 * red - 0.418688 * green - 0.081312 * blue + 128
    return y, cb, cr


def pool_2x2(plane: AnyArray) -> AnyArray:
    """Return the sums of a plane [...,h,w] over 2x2 pixels: [...,h/2,w/2]."""
    *lead, height, width = plane.shape
    return plane.reshape(*lead, height // 2, 2, width // 2, 2).sum(axis=(-3, -1))


def to_blocks(plane: AnyArray) -> AnyArray:
    """Cut a plane [...,h,w] into flattened 8x8 blocks [...,n,64], row by row."""
    *lead, height, width = plane.shape
    blocks = plane.reshape(*lead, height // 8, 8, width // 8, 8).swapaxes(-3, -2)
    return blocks.reshape(*lead, -1, 64)


def from_blocks(blocks: AnyArray, height: int, width: int) -> AnyArray:
    """Undo `to_blocks`."""
    *lead, _, _ = blocks.shape
    plane = blocks.reshape(*lead, height // 8, width // 8, 8, 8).swapaxes(-3, -2)
    return plane.reshape(*lead, height, width)


def dct_flat(blocks: AnyArray) -> AnyArray:
    """Return the orthonormal 8x8 DCT-II of flattened blocks [...,64]."""
    return _separable(blocks, DCT)


def idct_flat(coefficients: AnyArray) -> AnyArray:
    """Undo `dct_flat`."""
    return _separable(coefficients, DCT.T)


def _separable(blocks: AnyArray, matrix: AnyArray) -> AnyArray:
    """Return matrix @ block @ matrix.T for flattened blocks."""
    matrix = matrix.astype(blocks.dtype)
    xp = namespace(blocks)
    if xp is np:
        # One large product would start BLAS's threads, in every worker, and its last bits
        # would depend on their number.
        out = matrix @ blocks.reshape(-1, 8, 8) @ matrix.T
        return out.reshape(blocks.shape)
    # One large product is fastest on accelerators.
    return xp.matmul(blocks, np.kron(matrix, matrix).T, precision="highest")


def round_to(x: AnyArray, rounding: str) -> AnyArray:
    """Round half to even, in one of the manners of `diff_jpeg`."""
    whole = namespace(x).round(x)
    if rounding == "cubic":
        return whole + (x - whole) ** 3
    return straight_through(whole, x) if rounding == "ste" else whole


def _flat_tables(quality: Scalar, luma_transposed: bool, like: AnyArray) -> tuple[AnyArray, ...]:
    """Return DiffJPEG's (luma, chroma, chroma), float32, to broadcast against [...,n,64]."""
    check_per_image("quality", quality, like)
    luma, chroma = jpeg_tables(quality, "diffjpeg")
    if not luma_transposed:
        luma = luma.swapaxes(-1, -2)
    xp = namespace(quality, like)
    flat = [
        xp.asarray(table, np.float32).reshape(*np.shape(quality), 1, 64) for table in (luma, chroma)
    ]
    return flat[0], flat[1], flat[1]
