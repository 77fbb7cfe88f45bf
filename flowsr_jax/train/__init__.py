"""Training: one configuration, one step, one loop for every family.

Read in this order: config.py (what a run is), step.py (one optimiser step), loop.py
(the run).  The public entries are `flowsr_jax.train.config.resolve` and
`flowsr_jax.train.loop.train_and_evaluate`.
"""
