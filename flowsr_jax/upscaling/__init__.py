"""Files in, files out, and images of any size: `launch/sample.py` and `launch/rescale.py`."""

from flowsr_jax.upscaling.batch import Summary
from flowsr_jax.upscaling.downscaler import Downscaler
from flowsr_jax.upscaling.files import upscale_files
from flowsr_jax.upscaling.image import SampleError, image_key, image_strips, upscale_image
from flowsr_jax.upscaling.jobs import Job, UsageError, parse_shard, plan
from flowsr_jax.upscaling.output import Output
from flowsr_jax.upscaling.rescale import downscale_files, restore_files
from flowsr_jax.upscaling.sampler import Sampler

__all__ = [
    "Downscaler",
    "Job",
    "Output",
    "SampleError",
    "Sampler",
    "Summary",
    "UsageError",
    "downscale_files",
    "image_key",
    "image_strips",
    "parse_shard",
    "plan",
    "restore_files",
    "upscale_files",
    "upscale_image",
]
