"""Image-quality metrics on the host, in float64: one image pair, one number."""

from flowsr_jax.metrics.basic import psnr, ssim, ssim_skimage, to_uint8
from flowsr_jax.metrics.color import rgb_to_y, rgb_to_ycbcr, ycbcr_to_rgb
from flowsr_jax.metrics.consistency import consistency_mse, diversity_std, lr_psnr

__all__ = [
    "consistency_mse",
    "diversity_std",
    "lr_psnr",
    "psnr",
    "rgb_to_y",
    "rgb_to_ycbcr",
    "ssim",
    "ssim_skimage",
    "to_uint8",
    "ycbcr_to_rgb",
]
