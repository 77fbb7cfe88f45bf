"""Files in, files out: `flowsr sample` and `flowsr rescale`."""

from flowsr_jax.upscaling.files import upscale_files
from flowsr_jax.upscaling.image import upscale_image
from flowsr_jax.upscaling.jobs import Job, parse_shard, plan
from flowsr_jax.upscaling.output import Output
from flowsr_jax.upscaling.rescale import downscale_files, restore_files

__all__ = [
    "Job",
    "Output",
    "downscale_files",
    "parse_shard",
    "plan",
    "restore_files",
    "upscale_files",
    "upscale_image",
]
