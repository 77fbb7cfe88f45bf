"""Invertible 1x1 convolution over channels (Kingma and Dhariwal, Glow, section 3.2)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import lu, solve_triangular

from flowsr_jax.bijectors.base import (
    Array,
    Bijector,
    PyTree,
    Shape,
    check_channels,
    constant_logdet,
)
from flowsr_jax.nets import random
from flowsr_jax.nets.conv import HIGHEST


def _apply(x: Array, matrix: Array) -> Array:
    """Return y_o = sum_i matrix[o, i] x_i."""
    return jnp.einsum("...i,oi->...o", x, matrix, precision=HIGHEST)


def _random_rotation(key: Array, c: int) -> Array:
    q, r = jnp.linalg.qr(random.normal(key, (c, c)))
    return q * jnp.sign(jnp.diagonal(r))


def _scales(x: Array, matrix: Array) -> Array:
    """Return the singular values of the matrix, at each position of x."""
    return jnp.broadcast_to(jnp.linalg.svd(matrix, compute_uv=False), x.shape)


@dataclasses.dataclass(frozen=True)
class Conv1x1(Bijector):
    """y_o = sum_i W[o,i] x_i with a dense W [C,C]; logdet = positions * log|det W|.

    float32 at HIGHEST precision.  `prepare` holds log|det W| and, for the inverse,
    W^-1 with one Newton step on top of the LU inverse.
    """

    def init(self, key: Array, shape: Shape) -> PyTree:
        return {"weight": _random_rotation(key, shape[-1])}

    def prepare(self, params: PyTree, cond: PyTree = None, inverse: bool = False) -> PyTree:
        w = params["weight"].astype(jnp.float32)
        prepared = {"logabsdet": jnp.linalg.slogdet(w)[1]}
        if inverse:
            x = jnp.linalg.inv(w)
            twice = 2.0 * jnp.eye(w.shape[0], dtype=w.dtype)
            prepared["inverse"] = jnp.matmul(
                x, twice - jnp.matmul(w, x, precision=HIGHEST), precision=HIGHEST
            )
        return prepared

    def forward(
        self, params: PyTree, x: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        check_channels("Conv1x1", x, params["weight"].shape[0])
        prepared = self.prepare(params) if prepared is None else prepared
        return _apply(x, params["weight"]), constant_logdet(x, prepared["logabsdet"])

    def inverse(
        self, params: PyTree, y: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        check_channels("Conv1x1", y, params["weight"].shape[0])
        if prepared is None or "inverse" not in prepared:  # perhaps what forward was given
            prepared = self.prepare(params, inverse=True)
        return _apply(y, prepared["inverse"]), constant_logdet(y, -prepared["logabsdet"])

    def scales(self, params: PyTree, x: Array, cond: PyTree = None) -> Array:
        return _scales(x, params["weight"])

    def condition_number(self, params: PyTree) -> float:
        return float(np.linalg.cond(np.asarray(params["weight"], np.float64)))


@dataclasses.dataclass(frozen=True)
class Conv1x1PLU(Bijector):
    """y = x @ W with W = P L (U + diag(sign_s exp(log_s))): log|det W| = sum(log_s).

    The factors and the row-vector convention are the released Glow's (eq. 10-11).
    L is unit lower triangular, U strictly upper triangular; P and sign_s are fixed
    at initialisation (their gradients are stopped).
    """

    def init(self, key: Array, shape: Shape) -> PyTree:
        p, l, u = lu(_random_rotation(key, shape[-1]))
        s = jnp.diagonal(u)
        return {
            "p": p,
            "l": jnp.tril(l, -1),
            "u": jnp.triu(u, 1),
            "sign_s": jnp.sign(s),
            "log_s": jnp.log(jnp.abs(s)),
        }

    def factors(self, params: PyTree) -> tuple[Array, Array, Array]:
        """Return (P, L, U) with the unit diagonal of L and the diagonal of U filled in."""
        c = params["log_s"].shape[0]
        lower = jnp.tril(params["l"], -1) + jnp.eye(c, dtype=jnp.float32)
        sign = jax.lax.stop_gradient(params["sign_s"])
        upper = jnp.triu(params["u"], 1) + jnp.diag(sign * jnp.exp(params["log_s"]))
        return jax.lax.stop_gradient(params["p"]), lower, upper

    def matrix(self, params: PyTree) -> Array:
        """Return W [C,C]."""
        return jnp.linalg.multi_dot(self.factors(params), precision=HIGHEST)

    def forward(
        self, params: PyTree, x: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        check_channels("Conv1x1PLU", x, params["log_s"].shape[0])
        return _apply(x, self.matrix(params).T), constant_logdet(x, jnp.sum(params["log_s"]))

    def inverse(
        self, params: PyTree, y: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        check_channels("Conv1x1PLU", y, params["log_s"].shape[0])
        p, lower, upper = self.factors(params)
        flat = y.reshape(-1, y.shape[-1]).T
        flat = solve_triangular(upper, flat, trans="T", lower=False)
        flat = solve_triangular(lower, flat, trans="T", lower=True, unit_diagonal=True)
        flat = jnp.matmul(p, flat, precision=HIGHEST)
        return flat.T.reshape(y.shape), constant_logdet(y, -jnp.sum(params["log_s"]))

    def scales(self, params: PyTree, x: Array, cond: PyTree = None) -> Array:
        return _scales(x, self.matrix(params))

    def condition_number(self, params: PyTree) -> float:
        return float(np.linalg.cond(np.asarray(self.matrix(params), np.float64)))
