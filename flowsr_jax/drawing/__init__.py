"""Images of any size, drawn window by window: what upscaling and evaluation share."""

from flowsr_jax.drawing.downscaler import Downscaler
from flowsr_jax.drawing.sampler import Sampler
from flowsr_jax.drawing.strips import SampleError, image_key, image_strips

__all__ = ["Downscaler", "SampleError", "Sampler", "image_key", "image_strips"]
