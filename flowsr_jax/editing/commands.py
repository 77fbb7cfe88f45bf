"""The sub-commands of `flowsr edit`: one function each, (params, out, **flags) -> counts."""

from flowsr_jax.editing.commands_attribute import attribute_files
from flowsr_jax.editing.commands_between import interpolate_file
from flowsr_jax.editing.commands_draws import depth_files, temperature_files
from flowsr_jax.editing.commands_image import normalize_file, restore_file, style_file
from flowsr_jax.editing.commands_region import content_file, resample_file

COMMANDS = {
    "resample": resample_file,
    "normalize": normalize_file,
    "style": style_file,
    "content": content_file,
    "restore": restore_file,
    "interpolate": interpolate_file,
    "temperature": temperature_files,
    "attribute": attribute_files,
    "depth": depth_files,
}
