"""Editing through the latent space of a flow.

Pure functions: `conditional` (models with an LR image), `unconditional` (without),
`normalize`, `masks`, `interpolate`.  Files: `commands`, what `flowsr edit` calls.
"""
