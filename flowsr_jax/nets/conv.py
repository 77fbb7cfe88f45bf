"""Convolutions as pure functions: NHWC images, HWIO kernels, explicit precision.

One place decides how a 3x3 convolution is computed.  On TPU and GPU it is the
compiler's own convolution.  On the CPU XLA's kernel gradient falls back to a naive
loop inside `lax.scan` (a small SRFlow step: nine times slower than unrolled), so there
the gradient is written as one matrix product (form "gemm").  Both forms are the same
sum; the tests prove them equal.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from flowsr_jax.config import choice

HIGHEST = lax.Precision.HIGHEST
MEMORY = ("store", "remat", "reversible")


@dataclasses.dataclass(frozen=True)
class Compute:
    """How networks (never determinants, couplings or latents) are evaluated.

    Attributes:
      dtype: "float32" (exact, HIGHEST matmul precision) or "bfloat16" (bfloat16
        operands, float32 accumulation and activations between layers).
      conv: "auto" (by platform), "xla" (the plain form) or "gemm" (the CPU form).
      unroll: run K equal steps unrolled instead of scanned (compile time grows
        with K); the default scans.
      memory: how the backward pass comes by activations: "store" keeps them, "remat"
        computes each step or block again from its input, "reversible" also computes
        that input, from the step's output (flows only; flowsr_jax/bijectors/scan.py).
    """

    dtype: str = "float32"
    conv: str = "auto"
    unroll: bool = False
    memory: str = "store"

    def __post_init__(self):
        choice("dtype", self.dtype, ("float32", "bfloat16"))
        choice("conv", self.conv, ("auto", "xla", "gemm"))
        choice("memory", self.memory, MEMORY)


PLAIN = Compute(conv="xla")


def conv2d(x, kernel, bias=None, compute: Compute = Compute()):
    """2-D convolution, stride 1, zero padding that keeps the size.

    Args:
      x: [B,H,W,Ci].
      kernel: [kh,kw,Ci,Co], odd kh and kw.
      bias: [Co] or None.
      compute: precision and form.

    Returns:
      [B,H,W,Co] float32.
    """
    if compute.dtype == "bfloat16":
        x, kernel = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    if kernel.shape[:2] == (1, 1):
        y = matmul(x, kernel[0, 0])
    elif compute.conv == "xla":
        y = _conv_xla(x, kernel)
    elif compute.conv == "gemm":
        y = _conv_gemm(x, kernel)
    else:
        y = lax.platform_dependent(x, kernel, cpu=_conv_gemm, default=_conv_xla)
    return y if bias is None else y + bias


def matmul(x, w):
    """x [...,Ci] times w [Ci,Co] over the last axis, accumulated in float32."""
    return jnp.matmul(x, w, precision=HIGHEST, preferred_element_type=jnp.float32)


def _conv_xla(x, kernel):
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=HIGHEST,
        preferred_element_type=jnp.float32,
    )


def _flip(kernel):
    return kernel[::-1, ::-1].transpose(0, 1, 3, 2)


@jax.custom_vjp
def _conv_gemm(x, kernel):
    return _conv_xla(x, kernel)


def _conv_gemm_fwd(x, kernel):
    return _conv_xla(x, kernel), (x, kernel)


def _conv_gemm_bwd(residuals, g):
    x, kernel = residuals
    g = g.astype(x.dtype)
    dx = _conv_xla(g, _flip(kernel))
    return dx.astype(x.dtype), _kernel_gradient(x, g, kernel).astype(kernel.dtype)


def _kernel_gradient(x, g, kernel):
    """sum over positions of x (shifted) times g, as one matrix product."""
    b, h, w, ci = x.shape
    kh, kw, _, co = kernel.shape
    taps = [(i, j) for i in range(kh) for j in range(kw)]
    ph, pw = kh // 2, kw // 2
    shift_x = ci <= co
    source = x if shift_x else g
    padded = jnp.pad(source, ((0, 0), (ph, ph), (pw, pw), (0, 0)))
    copies = []
    for i, j in taps:
        # Tap (i, j) reads x at p + (i - ph, j - pw); moved to g the sign turns round.
        top, left = (i, j) if shift_x else (2 * ph - i, 2 * pw - j)
        copies.append(padded[:, top : top + h, left : left + w])
    stacked = jnp.concatenate(copies, axis=-1)
    if shift_x:
        return _contract(stacked, g).reshape(kernel.shape)
    grad = _contract(x, stacked).reshape(ci, len(taps), co)
    return grad.transpose(1, 0, 2).reshape(kernel.shape)


def _contract(a, b):
    """[B,H,W,I], [B,H,W,O] -> [I,O], summed over images and positions.

    Two axes, not an einsum over four: the CPU compiler's product of three contracted
    axes with a constant zero gradient reads memory that nobody wrote.
    """
    return matmul(a.reshape(-1, a.shape[-1]).T, b.reshape(-1, b.shape[-1]))


_conv_gemm.defvjp(_conv_gemm_fwd, _conv_gemm_bwd)
