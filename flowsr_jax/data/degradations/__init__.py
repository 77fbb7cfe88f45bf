"""Degradations: JPEG, blur, noise, resizing, masks, and the pipelines made of them.

Functions of images take NumPy arrays (on the host, in workers) or JAX arrays (in programs).
"""

from flowsr_jax.data.degradations.config import (
    DegradationConfig,
    SecondOrderConfig,
    SecondStageConfig,
    StageConfig,
)
from flowsr_jax.data.degradations.degrade import degrade_image
from flowsr_jax.data.degradations.filtering import cond_blur, filter2d, usm_sharp
from flowsr_jax.data.degradations.interpolate import torch_interpolate
from flowsr_jax.data.degradations.kernels import (
    gaussian_kernel,
    gaussian_window,
    generalized_kernel,
    plateau_kernel,
    sinc_kernel,
)
from flowsr_jax.data.degradations.masks import (
    center_mask,
    free_form_mask,
    inpainting_mask,
    rectangle_mask,
    uncrop_mask,
)
from flowsr_jax.data.degradations.noise import (
    add_gaussian_noise,
    add_poisson_noise,
    poisson_rate,
)
from flowsr_jax.data.degradations.palette import palette_source
from flowsr_jax.data.degradations.second_order import apply_second_order, draw_second_order
from flowsr_jax.math.jpeg import diff_jpeg, jpeg_codec, jpeg_tables
from flowsr_jax.math.jpeg_like import jpeg_like

__all__ = [
    "DegradationConfig",
    "SecondOrderConfig",
    "SecondStageConfig",
    "StageConfig",
    "add_gaussian_noise",
    "add_poisson_noise",
    "apply_second_order",
    "center_mask",
    "cond_blur",
    "degrade_image",
    "diff_jpeg",
    "draw_second_order",
    "filter2d",
    "free_form_mask",
    "gaussian_kernel",
    "gaussian_window",
    "generalized_kernel",
    "inpainting_mask",
    "jpeg_codec",
    "jpeg_like",
    "jpeg_tables",
    "palette_source",
    "plateau_kernel",
    "poisson_rate",
    "rectangle_mask",
    "sinc_kernel",
    "torch_interpolate",
    "uncrop_mask",
    "usm_sharp",
]
