"""Evaluation protocols: how each code base turns a result and its HR image into numbers.

A protocol is data.  `describe` prints what follows from its fields, and then the quirks
that decide between "the same number" and "nearly".
"""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image

from flowsr_jax.config import ConfigError, choice, nearest
from flowsr_jax.math.resize import imresize
from flowsr_jax.metrics import psnr, rgb_to_y, ssim, ssim_skimage
from flowsr_jax.metrics.columns import COLUMNS

METRICS = {"psnr": psnr, "ssim": ssim, "ssim_skimage": ssim_skimage}
WINDOWS = {"ssim": "Gaussian 11x11 window", "ssim_skimage": "uniform 7x7 window, N-1 covariance"}
# Rule: (what it is, options of imresize; None is Pillow).
RESIZING = {
    "stages": ("MATLAB's bicubic, 8 bits after each pass (SRFlow, NTIRE)", {}),
    "matlab": ("MATLAB's bicubic, 8 bits at the end", {"uint8_stages": False}),
    "old": ("older MATLAB's bicubic: clamped border, 8 bits after each pass",
            {"border": "replicate"}),
    "pillow": ("Pillow's bicubic", None),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Score:
    """One full-reference number: a column of the table.

    Attributes:
      column: name of the column.
      metric: "psnr", "ssim" (Wang 2004) or "ssim_skimage" (scikit-image's defaults).
      luma: "" compares RGB, "float" the BT.601 luma, "rounded" the luma as integers.
      shave: cut `scale` pixels from each side first.
    """

    column: str
    metric: str
    luma: str = ""
    shave: bool = False

    def __post_init__(self):
        choice("column", self.column, COLUMNS)
        choice("metric", self.metric, METRICS)

    def __call__(self, sr: np.ndarray, hr: np.ndarray, scale: int) -> float:
        """Return the number of [H,W,3] images, uint8 or float in [0,1]."""
        if self.luma == "rounded":
            sr, hr = _rounded_luma(sr), _rounded_luma(hr)
        crop = scale if self.shave else 0
        return METRICS[self.metric](sr, hr, y=self.luma == "float", crop=crop)

    def describe(self, scale: int) -> str:
        """Return e.g. "psnr_y: Y not rounded, border 4"."""
        space = {"": "RGB", "float": "Y not rounded", "rounded": "Y rounded"}[self.luma]
        window = f", {WINDOWS[self.metric]}" if self.metric in WINDOWS else ""
        return f"{self.column}: {space}, border {scale if self.shave else 0}{window}"


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How to measure.

    Attributes:
      name, source: what it is called, and whose script it follows.
      scores: full-reference columns; the first is the PSNR that the best sample, the mean
        image and the curve use.
      quantise: "round" or "truncate", of floats to 8 bits.
      resize: a key of RESIZING: makes LR images that are not given, and the bicubic row.
      hr_multiple: HR and results are cut to multiples of it before they are compared.
      lr_psnr: "given" (against the LR image), "hr" (against the downsampled HR) or "".
      consistency: also the SR3 paper's MSE against the LR image.
      lpips_net: backbone of LPIPS; lpips_spatial: LPIPS is the mean of the spatial map.
      draws: samples per image, unless the caller says otherwise.
      temperature: of these samples, unless the caller says otherwise; None is the model's.
      tight: LR images are padded to the model's multiple only, not to sizes that share a
        compilation.
      quirks: lines that name what is peculiar to the script, or missing here.
    """

    name: str
    source: str
    scores: tuple[Score, ...]
    quantise: str = "round"
    resize: str = "stages"
    hr_multiple: int = 1
    lr_psnr: str = ""
    consistency: bool = False
    lpips_net: str = "alex"
    lpips_spatial: bool = False
    draws: int = 1
    temperature: float | None = None
    tight: bool = False
    quirks: tuple[str, ...] = ()

    def describe(self, scale: int) -> list[str]:
        """Return the lines that are printed above the numbers."""
        first = self.scores[0].column
        lines = [
            f"protocol {self.name}: {self.source}",
            f"  8 bits: clip to [0,1], times 255, {self.quantise}",
            *(f"  {score.describe(scale)}" for score in self.scores),
            f"  several samples: means; PSNR of the best and of the mean image as {first}",
            f"  LR where it is not given, and the bicubic row: {RESIZING[self.resize][0]}",
        ]
        if self.hr_multiple > 1:
            lines.append(f"  HR and results cut to multiples of {self.hr_multiple}")
        if self.lr_psnr:
            other = {"given": "the LR image", "hr": "the downsampled HR image"}[self.lr_psnr]
            lines.append(f"  lr_psnr: downsampled result (8 bits after each pass) against {other}")
        if self.consistency:
            lines.append("  consistency: MSE of downsampled result and LR image on [0,1], x 1e-5")
        return lines + [f"  {quirk}" for quirk in self.quirks]


def get_protocol(name: str) -> Protocol:
    """Return a protocol by name.

    Raises:
      ConfigError: there is no such protocol; the message lists them.
    """
    if name not in PROTOCOLS:
        known = ", ".join(PROTOCOLS)
        raise ConfigError(f"unknown protocol {name!r}{nearest(name, PROTOCOLS)} (known: {known})")
    return PROTOCOLS[name]


def resize(image: np.ndarray, scale: float, rule: str) -> np.ndarray:
    """Resize a uint8 [H,W,3] image by a rule of RESIZING; scale is s or 1/s."""
    _, options = RESIZING[rule]
    if options is not None:
        return imresize(image, scale, **options)
    height, width = (round(n * scale) for n in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def _rounded_luma(rgb: np.ndarray) -> np.ndarray:
    y = rgb_to_y(rgb)
    return np.rint(y if rgb.dtype == np.uint8 else 255 * y).astype(np.uint8)


_RGB = (Score("psnr", "psnr"), Score("ssim", "ssim"))
_RGB_SHAVED = (Score("psnr", "psnr", "", True), Score("ssim", "ssim", "", True))
_Y_SHAVED = (Score("psnr_y", "psnr", "float", True), Score("ssim_y", "ssim", "float", True))

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "default",
            "RGB without border and luma with border, both as commonly published",
            (*_RGB, *_Y_SHAVED),
            lr_psnr="given",
            draws=3,
        ),
        Protocol(
            "srflow",
            "SRFlow's test.py and Measure.py",
            (Score("psnr", "psnr"), Score("ssim", "ssim_skimage")),
            quantise="truncate",
            lr_psnr="given",
            temperature=0.9,
            tight=True,
            quirks=(
                "quirk: truncation darkens by half a grey level, so lr_psnr ends near 51 dB",
                "quirk: LR reflect-padded at bottom and right to even sides, result cut",
                "quirk: one sample at temperature 0.9 (the validation during its training rounds "
                "and cuts a border instead)",
            ),
        ),
        Protocol(
            "ntire",
            "measure.py of the NTIRE 2021/22 challenge on learning the SR space",
            (Score("psnr", "psnr"),),
            hr_multiple=8,
            lr_psnr="hr",
            lpips_spatial=True,
            draws=10,
            quirks=(
                "quirk: lr_psnr compares with the downsampled HR, not with the LR files; "
                "lr_psnr_worst is the least of the samples",
                "quirk: the score is 100 (global best - local best) / global best of LPIPS maps, "
                "so it needs weights",
                "quirk: the score may fall as samples are added",
                "quirk: psnr is added here, the script has none",
            ),
        ),
        Protocol(
            "basicsr",
            "BasicSR's test.py with the options of its SR benchmarks",
            (*_RGB_SHAVED, *_Y_SHAVED),
            resize="matlab",
            lpips_net="vgg",
            quirks=(
                "quirk: HR is cut to scale times the LR size, at the bottom and right",
                "quirk: its luma is float32; ours is float64 (less than 2e-6 dB apart)",
                "quirk: lpips is its separate script, without border",
            ),
        ),
        Protocol(
            "irn",
            "IRN's test.py",
            (*_RGB_SHAVED, *_Y_SHAVED),
            resize="matlab",
            draws=5,
            quirks=(
                "quirk: crop_border 0 in its options means scale, not 0",
                "quirk: its readme reports means of 5 draws, and luma",
                "quirk: a model that makes no LR images gets the LR before rounding; here 8 bits",
                "quirk: its LR columns are lr_fidelity_*, of models that make their own LR images",
            ),
        ),
        Protocol(
            "sr3",
            "eval.py of the public SR3 port; consistency as in the paper",
            _RGB,
            resize="pillow",
            consistency=True,
            quirks=(
                "quirk: LR and the bicubic image are Pillow's, made of the 8-bit file",
                "quirk: SSIM's window runs over all channels at once: the same mean",
                "quirk: the paper does not state range and rounding of its consistency",
            ),
        ),
        Protocol(
            "matlab",
            "the published MATLAB tables of Set5, Set14, BSD100 and Urban100",
            (Score("psnr_y", "psnr", "rounded", True), Score("ssim_y", "ssim", "rounded", True)),
            resize="old",
            quirks=(
                "quirk: MATLAB's rgb2ycbcr rounds the luma of 8-bit images (up to 0.04 dB)",
                "quirk: resizing rounds to 8 bits between its two passes (up to 0.013 dB)",
            ),
        ),
    )
}
