"""Ablations: variants of one config through the ordinary trainer, as one plot and one table.

    flowsr ablate --study=glow_permutation -o OUT

A study names a config and what its variants change in it.  The phases before the last one
(SRFlow's encoder) are trained once, in OUT/shared, and every variant begins with the groups
that they trained.  The last phase is run for each variant in OUT/VARIANT-SEED, a work directory
like any other, and bits/dim of the held-out images is read from its metrics.csv.
"""

from flowsr_jax.ablation.report import Result
from flowsr_jax.ablation.run import run_study
from flowsr_jax.ablation.studies import STUDIES, Study

__all__ = ["STUDIES", "Result", "Study", "run_study"]
