"""The family edsr, the source npz and the metric gmsd for flowsr_jax."""

import flowsr_jax

flowsr_jax.register_family("edsr", "flowsr_edsr.edsr:FAMILY")
flowsr_jax.register_source("npz", "flowsr_edsr.npz:NPZ")
flowsr_jax.register_metric("gmsd", "flowsr_edsr.gmsd:GMSD")
