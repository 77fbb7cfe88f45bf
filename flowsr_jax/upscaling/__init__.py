"""Files in, files out, and images of any size: what `launch/sample.py` calls."""

from flowsr_jax.upscaling.files import Summary, upscale_files
from flowsr_jax.upscaling.image import SampleError, image_key, image_strips, upscale_image
from flowsr_jax.upscaling.jobs import Job, UsageError, plan
from flowsr_jax.upscaling.sampler import Sampler

__all__ = [
    "Job",
    "SampleError",
    "Sampler",
    "Summary",
    "UsageError",
    "image_key",
    "image_strips",
    "plan",
    "upscale_files",
    "upscale_image",
]
