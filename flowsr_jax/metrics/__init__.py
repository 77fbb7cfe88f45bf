"""Image-quality metrics: of pairs, of samples of one image, and of sets of images.

Perceptual metrics (LPIPS, DISTS) run in JAX in float32; all others on the host in float64.
"""

from flowsr_jax.metrics.basic import psnr, ssim, ssim_skimage, to_uint8
from flowsr_jax.metrics.calibration import coverage, rank_histogram, spread_skill
from flowsr_jax.metrics.color import rgb_to_y, rgb_to_ycbcr, ycbcr_to_rgb
from flowsr_jax.metrics.consistency import consistency_mse, lr_psnr
from flowsr_jax.metrics.distribution import (
    cmmd,
    fid,
    fid_from_features,
    fid_from_stats,
    kid,
    kid_subsets,
)
from flowsr_jax.metrics.dists import dists
from flowsr_jax.metrics.diversity import diversity_std, ntire_diversity, ntire_mse_diversity
from flowsr_jax.metrics.features import FeatureStats, feature_stats, read_features
from flowsr_jax.metrics.lpips import lpips, pairwise_lpips
from flowsr_jax.metrics.ms_ssim import ms_ssim
from flowsr_jax.metrics.perceptual_weights import load_dists_weights, load_lpips_weights

__all__ = [
    "FeatureStats",
    "cmmd",
    "consistency_mse",
    "coverage",
    "dists",
    "diversity_std",
    "feature_stats",
    "fid",
    "fid_from_features",
    "fid_from_stats",
    "kid",
    "kid_subsets",
    "load_dists_weights",
    "load_lpips_weights",
    "lpips",
    "lr_psnr",
    "ms_ssim",
    "ntire_diversity",
    "ntire_mse_diversity",
    "pairwise_lpips",
    "psnr",
    "rank_histogram",
    "read_features",
    "rgb_to_y",
    "rgb_to_ycbcr",
    "spread_skill",
    "ssim",
    "ssim_skimage",
    "to_uint8",
    "ycbcr_to_rgb",
]
