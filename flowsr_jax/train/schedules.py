"""Learning-rate schedules as functions of the step inside a phase.

Steps are counted from 1, as the released trainers count them: `lr(n)` is the rate
in force while step n is made.  The trainer evaluates a schedule inside the compiled
step from its own step counter, so that a resumed run needs no scheduler state.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from flowsr_jax.train.config import GroupConfig, steps_of


def learning_rate(group: GroupConfig, steps: int) -> Callable[[jax.Array], jax.Array]:
    """Return the rate of a group as a function of the step.

    Closed forms of docs/papers/srflow.md section 7, with s the schedule's start and T its period:
      halve_at:        lr * factor ** (number of milestones <= n)
      cosine[_restart]: final + (lr - final) * cos(pi/2 * (n - s)/T) ** 2
    where s is 0 or the last milestone <= n; beyond the last period the cosine goes up
    again, as the released schedulers do.  The phase's warm-up multiplies by
    min(1, n / warmup_steps).

    Args:
      group: the group's settings; fractions are of `steps`.
      steps: length of the phase.

    Returns:
      n (int32 scalar, from 1) -> float32 scalar; traceable.
    """
    milestones = sorted(steps_of(m, steps) for m in group.milestones)
    period = max(1, steps_of(group.period, steps))

    def rate(n: jax.Array) -> jax.Array:
        n = jnp.asarray(n, jnp.int32)
        if group.schedule == "constant":
            value = jnp.float32(group.lr)
        elif group.schedule == "halve_at":
            table = [group.lr * group.factor**k for k in range(len(milestones) + 1)]
            passed = sum((n >= m).astype(jnp.int32) for m in milestones)
            value = jnp.asarray(table, jnp.float32)[passed]
        else:
            restarts = milestones if group.schedule == "cosine_restart" else []
            start = jnp.int32(0)
            for m in restarts:
                start = jnp.where(n >= m, m, start)
            # The integer remainder keeps the angle small, and cos(x/2)^2 keeps the
            # digits that (1 + cos(x))/2 loses near its minimum.
            angle = ((n - start) % (2 * period)).astype(jnp.float32) * (math.pi / 2 / period)
            value = group.final_lr + (group.lr - group.final_lr) * jnp.cos(angle) ** 2
        if group.warmup_steps:
            value = value * jnp.minimum(1.0, n.astype(jnp.float32) / group.warmup_steps)
        return value.astype(jnp.float32)

    return rate
