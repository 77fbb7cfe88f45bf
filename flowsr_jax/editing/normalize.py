"""Latent normalisation: latents with the mean and the variance of drawn ones.

N independent draws from N(0, tau) have a sample mean m^ ~ N(0, tau/N) and an unbiased
sample variance v^ ~ Gamma((N-1)/2, scale 2 tau/(N-1)).  A collection of N latent values
with mean m~ and unbiased variance v~ gets such a mean and variance:

    z^ = sqrt(v^ / v~) (z~ - m~) + m^

Collections, by mode, never across the images of a batch:

    global    one per image: all levels, positions and channels
    local     one per level and position: its channels
    spatial   one per level and channel: its positions

Source: the SRFlow paper (Lugmayr et al. 2020), latent space normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from flowsr_jax.config import choice
from flowsr_jax.models.inputs import check_key, check_temperature

AXES = {"global": (1, 2, 3), "local": (3,), "spatial": (1, 2)}  # summed over, of [B,H,W,C]


def normalize_latents(
    latents: Sequence[jax.Array],
    key: jax.Array,
    temperature,
    mode: str = "global",
    mask: Sequence[jax.Array] | None = None,
) -> list[jax.Array]:
    """Give latents the mean and the variance of latents drawn at a temperature.

    Args:
      latents: float [B,H_l,W_l,C_l] each, as `flowsr_jax.encode` returns them.
      key: PRNG key of the drawn means and variances.
      temperature: standard deviation T of the draws, a scalar >= 0 (tau = T^2); may be traced.
      mode: "global", "local" or "spatial".
      mask: bool [B,H_l,W_l,1] per latent (see `masks.latent_masks`): only these positions
        form the collections and change; None is all.

    Returns:
      the latents, float32.  A collection of one value, or of equal values, is only shifted
      to its drawn mean.

    Raises:
      TypeError, ValueError: another mode or key, latents or masks that do not fit.
    """
    latents, mask = _checked(latents, mode, mask)
    check_key(key)
    check_temperature(temperature)
    tau = jnp.square(jnp.asarray(temperature, jnp.float32))
    mu_hat, var_hat = [], []
    for i, (count, _, _) in enumerate(_statistics(latents, mode, mask)):
        mean_key, var_key = jax.random.split(jax.random.fold_in(key, i))
        mu_hat.append(jnp.sqrt(tau / count) * jax.random.normal(mean_key, count.shape, jnp.float32))
        n = jnp.maximum(count, 2.0)  # one value has no variance
        var_hat.append(tau * jax.random.gamma(var_key, (n - 1) / 2) * 2 / (n - 1))
    return _normalized(latents, mu_hat, var_hat, mode, mask)


def normalize_to(
    latents: Sequence[jax.Array],
    mu_hat: Sequence[jax.Array],
    var_hat: Sequence[jax.Array],
    mode: str = "global",
    mask: Sequence[jax.Array] | None = None,
) -> list[jax.Array]:
    """Return what `normalize_latents` gives with given means and variances.

    Args:
      latents, mode, mask: as `normalize_latents`.
      mu_hat, var_hat: one array per latent, or one in all for "global"; numbers, or
        [B,1,1,1] for "global", [B,H_l,W_l,1] for "local", [B,1,1,C_l] for "spatial".

    Returns, raises: as `normalize_latents`.
    """
    latents, mask = _checked(latents, mode, mask)
    shapes = [s[0].shape for s in _statistics(latents, mode, mask)]
    given = []
    for name, values in (("mu_hat", mu_hat), ("var_hat", var_hat)):
        values = [jnp.asarray(v, jnp.float32) for v in values]
        got = [v.shape for v in values]
        if len(got) != len(shapes) or any(
            g not in ((), s) for g, s in zip(got, shapes, strict=True)
        ):
            raise ValueError(
                f"{name} must have the shapes {shapes} (or be numbers) for mode {mode!r}, got {got}"
            )
        given.append(values)
    return _normalized(latents, *given, mode, mask)


def _checked(latents, mode, mask):
    choice("mode", mode, tuple(AXES))
    shapes = [tuple(getattr(z, "shape", ())) for z in latents]
    if not shapes or any(len(s) != 4 or s[0] != shapes[0][0] for s in shapes):
        raise ValueError(f"latents must be arrays [B,H,W,C] of one batch, got shapes {shapes}")
    latents = [jnp.asarray(z, jnp.float32) for z in latents]
    if mask is None:
        return latents, None
    want = [(*s[:3], 1) for s in shapes]
    got = [tuple(getattr(m, "shape", ())) for m in mask]
    if got != want or any(m.dtype != bool for m in mask):
        kinds = [str(getattr(m, "dtype", type(m).__name__)) for m in mask]
        raise ValueError(
            f"mask must be bool arrays of the shapes {want}, one per latent, got {got} of {kinds}"
        )
    return latents, [jnp.asarray(m) for m in mask]


def _statistics(latents, mode, mask):
    """Return (count, mean, unbiased variance) of the collections, per latent; "global": one."""
    weights = [jnp.ones((), bool)] * len(latents) if mask is None else mask
    weights = [jnp.broadcast_to(w, z.shape) for w, z in zip(weights, latents, strict=True)]

    def total(values):
        sums = [
            jnp.sum(jnp.where(w, v, 0.0), AXES[mode], keepdims=True)
            for w, v in zip(weights, values, strict=True)
        ]
        return [sum(sums)] if mode == "global" else sums

    counts = [jnp.maximum(n, 1.0) for n in total([jnp.ones_like(z) for z in latents])]
    means = [s / n for s, n in zip(total(latents), counts, strict=True)]
    centred = [z - m for z, m in zip(latents, _spread(means, latents), strict=True)]
    squares = total([jnp.square(c) for c in centred])
    variances = [s / jnp.maximum(n - 1, 1) for s, n in zip(squares, counts, strict=True)]
    return list(zip(counts, means, variances, strict=True))


def _spread(values, latents):
    """Return one array per latent, also of what "global" has once."""
    return list(values) * len(latents) if len(values) < len(latents) else list(values)


def _normalized(latents, mu_hat, var_hat, mode, mask):
    _, means, variances = zip(*_statistics(latents, mode, mask), strict=True)
    per_latent = [_spread(x, latents) for x in (means, variances, mu_hat, var_hat)]
    out = []
    for i, (z, mean, var, mu, target) in enumerate(zip(latents, *per_latent, strict=True)):
        # Rounding gives equal values a variance above 0, far below that of any real collection.
        known = var > jnp.square(1e-5 * mean)
        gain = jnp.where(known, jnp.sqrt(target / jnp.where(known, var, 1.0)), 1.0)
        new = gain * (z - mean) + mu
        out.append(new if mask is None else jnp.where(mask[i], new, z))
    return out
