"""Convolutions as pure functions: NHWC images, HWIO kernels, explicit precision.

One place decides how a 3x3 convolution is computed.  On TPU and GPU it is the
compiler's own convolution.  On the CPU XLA's kernel gradient falls back to a naive
loop inside `lax.scan` (a small SRFlow step: nine times slower than unrolled), so there
the gradient is written as one matrix product (form "gemm").  Both forms are the same
sum; the tests prove them equal.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from flowsr_jax.config import choice
from flowsr_jax.types import Array, Padding, Precision

HIGHEST = lax.Precision.HIGHEST
DTYPES = ("float32", "tensorfloat32", "bfloat16")
MEMORY = ("store", "remat", "reversible")
DIMS = ("NHWC", "HWIO", "NHWC")


@dataclasses.dataclass(frozen=True)
class Compute:
    """How networks (never determinants, couplings or latents) are evaluated.

    Attributes:
      dtype: "float32" (exact, HIGHEST matmul precision), "tensorfloat32" (float32 arrays,
        HIGH precision: a GPU multiplies in TF32, a TPU in three bfloat16 passes instead of
        six, a CPU as ever) or "bfloat16" (bfloat16 operands, float32 accumulation and
        activations between layers).
      conv: "auto" (by platform), "xla" (the plain form) or "gemm" (the CPU form).
      unroll: run K equal steps unrolled instead of scanned (compile time grows
        with K); the default scans.
      memory: how the backward pass comes by activations: "store" keeps them, "remat"
        computes each step or block again from its input, "reversible" also computes
        that input, from the step's output (flows only; flowsr_jax/bijectors/scan.py).
      hoist: compute the conditioning's share of all K steps before the loop over them, as
        one wide convolution, with determinants and inverses (memory "store", samplers);
        without it every step convolves [latent, conditioning] (for benchmarks).
      subpixel: evaluate convolutions of enlarged features at the small size
        (nets/upsampled.py); without it they are enlarged first (for benchmarks).
    """

    dtype: str = "float32"
    conv: str = "auto"
    unroll: bool = False
    memory: str = "store"
    hoist: bool = True
    subpixel: bool = True

    def __post_init__(self) -> None:
        choice("dtype", self.dtype, DTYPES)
        choice("conv", self.conv, ("auto", "xla", "gemm"))
        choice("memory", self.memory, MEMORY)

    @property
    def operands(self) -> jnp.dtype:
        """Of the arrays that are multiplied."""
        return jnp.dtype("bfloat16" if self.dtype == "bfloat16" else "float32")

    @property
    def precision(self) -> lax.Precision:
        """In which float32 arrays are multiplied."""
        return lax.Precision.HIGH if self.dtype == "tensorfloat32" else HIGHEST


PLAIN = Compute(conv="xla")


def conv2d(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    compute: Compute = Compute(),
    padding: Padding | None = None,
) -> Array:
    """Return the 2-D convolution, stride 1, zero padding that keeps the size.

    Args:
      x: [B,H,W,Ci].
      kernel: [kh,kw,Ci,Co].
      bias: [Co] or None.
      compute: precision and form.
      padding: ((top, bottom), (left, right)), together kh-1 and kw-1; None for odd kh and kw
        puts half on each side.

    Returns:
      [B,H,W,Co] float32.
    """
    if compute.dtype == "bfloat16":
        x, kernel = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    padding = padding or tuple((n // 2, n // 2) for n in kernel.shape[:2])

    def xla(x: Array, kernel: Array) -> Array:
        return convolve(padding, 1, x, kernel, compute.precision)

    def gemm(x: Array, kernel: Array) -> Array:
        return _conv_gemm(padding, compute.precision, x, kernel)

    if kernel.shape[:2] == (1, 1):
        y = matmul(x, kernel[0, 0], compute.precision)
    elif compute.conv == "xla":
        y = xla(x, kernel)
    elif compute.conv == "gemm":
        y = gemm(x, kernel)
    else:
        y = lax.platform_dependent(x, kernel, cpu=gemm, default=xla)
    return y if bias is None else y + bias


def matmul(x: Array, w: Array, precision: lax.Precision = HIGHEST) -> Array:
    """Return x [...,Ci] times w [Ci,Co] over the last axis, accumulated in float32."""
    return _matmul(x, w, precision) if x.dtype == jnp.float32 else _matmul_half(x, w)


def _matmul(x: Array, w: Array, precision: Precision = HIGHEST) -> Array:
    return jnp.matmul(x, w, precision=precision, preferred_element_type=jnp.float32)


# Below: gradients of bfloat16 operands.  Autodiff would multiply the float32 gradient by
# them in float32, which costs an accelerator several times the forward pass.  The sum over
# the batch stays float32: sharded devices then add float32 partial sums, where bfloat16
# would lose digits in the all-reduce.


@jax.custom_vjp
def _matmul_half(x: Array, w: Array) -> Array:
    return _matmul(x, w)


def _matmul_half_fwd(x: Array, w: Array) -> tuple[Array, tuple[Array, Array]]:
    return _matmul(x, w), (x, w)


def _matmul_half_bwd(operands: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, w = operands
    g = g.astype(x.dtype)
    return _matmul(g, w.T).astype(x.dtype), _contract(x, g).astype(w.dtype)


_matmul_half.defvjp(_matmul_half_fwd, _matmul_half_bwd)


def bilinear(multiply: Callable[..., Array], x: Array, y: Array) -> Array:
    """Return multiply(x, y, float32) of two activations.

    Args:
      multiply: (x, y, dtype) -> result of that dtype, linear in x and in y.
      x, y: of one dtype.
    """
    return multiply(x, y, jnp.float32) if x.dtype == jnp.float32 else _half(multiply, x, y)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _half(multiply: Callable[..., Array], x: Array, y: Array) -> Array:
    return multiply(x, y, jnp.float32)


def _half_fwd(
    multiply: Callable[..., Array], x: Array, y: Array
) -> tuple[Array, tuple[Array, Array]]:
    return multiply(x, y, jnp.float32), (x, y)


def _half_bwd(
    multiply: Callable[..., Array], operands: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
    x, y = operands
    g = g.astype(x.dtype)
    (dx,) = jax.linear_transpose(lambda x: multiply(x, y, x.dtype), x)(g)
    (dy,) = jax.linear_transpose(lambda y: multiply(x, y, y.dtype), y)(g)
    return dx, dy


_half.defvjp(_half_fwd, _half_bwd)


def convolve(
    padding: Padding, stride: int, x: Array, kernel: Array, precision: lax.Precision = HIGHEST
) -> Array:
    """Return the compiler's convolution of operands of one dtype, float32."""
    if x.dtype == jnp.float32:
        return _convolve(padding, stride, x, kernel, precision=precision)
    return _convolve_half(padding, stride, x, kernel)


def _convolve(
    padding: Padding,
    stride: int,
    x: Array,
    kernel: Array,
    dims: tuple[str, str, str] = DIMS,
    spread: tuple[int, int] = (1, 1),
    precision: Precision = HIGHEST,
) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        lhs_dilation=(spread[0],) * 2,
        rhs_dilation=(spread[1],) * 2,
        dimension_numbers=dims,
        precision=precision,
        preferred_element_type=jnp.float32,
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _convolve_half(padding: Padding, stride: int, x: Array, kernel: Array) -> Array:
    return _convolve(padding, stride, x, kernel)


def _convolve_half_fwd(
    padding: Padding, stride: int, x: Array, kernel: Array
) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(padding, stride, x, kernel), (x, kernel)


def _convolve_half_bwd(
    padding: Padding, stride: int, operands: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
    x, kernel = operands
    g = g.astype(x.dtype)
    sides = range(2)
    reach = [stride * (g.shape[1 + i] - 1) + 1 for i in sides]  # of g, spread by the stride
    before = [kernel.shape[i] - 1 - padding[i][0] for i in sides]
    around = [(before[i], x.shape[1 + i] - reach[i] + padding[i][0]) for i in sides]
    dx = _convolve(around, 1, g, _flip(kernel), spread=(stride, 1))
    # x's channels stand for the batch, g for the kernel: one output per tap.
    ends = [kernel.shape[i] - 1 + reach[i] - x.shape[1 + i] - padding[i][0] for i in sides]
    taps = [(padding[i][0], ends[i]) for i in sides]
    dw = _convolve(taps, 1, x, g, ("CHWN", "IHWO", "HWNC"), spread=(1, stride))
    return dx.astype(x.dtype), dw.astype(kernel.dtype)


_convolve_half.defvjp(_convolve_half_fwd, _convolve_half_bwd)


def _flip(kernel: Array) -> Array:
    return kernel[::-1, ::-1].transpose(0, 1, 3, 2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _conv_gemm(padding: Padding, precision: Precision, x: Array, kernel: Array) -> Array:
    return convolve(padding, 1, x, kernel, precision)


def _conv_gemm_fwd(
    padding: Padding, precision: Precision, x: Array, kernel: Array
) -> tuple[Array, tuple[Array, Array]]:
    return convolve(padding, 1, x, kernel, precision), (x, kernel)


def _conv_gemm_bwd(
    padding: Padding, precision: Precision, residuals: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
    x, kernel = residuals
    g = g.astype(x.dtype)
    dx = convolve(_reversed(padding), 1, g, _flip(kernel), precision)
    dw = _kernel_gradient(padding, x, g, kernel, precision)
    return dx.astype(x.dtype), dw.astype(kernel.dtype)


def _reversed(padding: Padding) -> Padding:
    return tuple((after, before) for before, after in padding)


def _kernel_gradient(
    padding: Padding, x: Array, g: Array, kernel: Array, precision: Precision = HIGHEST
) -> Array:
    """Return the sum over positions of x (shifted) times g, as one matrix product."""
    b, h, w, ci = x.shape
    kh, kw, _, co = kernel.shape
    taps = [(i, j) for i in range(kh) for j in range(kw)]
    shift_x = ci <= co
    source = x if shift_x else g
    sides = padding if shift_x else _reversed(padding)
    padded = jnp.pad(source, ((0, 0), *sides, (0, 0)))
    copies = []
    for i, j in taps:
        # Output p reads the padded x at p + (i, j) through tap (i, j), so that x at q meets the
        # gradient of output q - (i, j): where g is shifted instead, tap offsets are mirrored.
        top, left = (i, j) if shift_x else (kh - 1 - i, kw - 1 - j)
        copies.append(padded[:, top : top + h, left : left + w])
    stacked = jnp.concatenate(copies, axis=-1)
    if shift_x:
        return _contract(stacked, g, precision).reshape(kernel.shape)
    grad = _contract(x, stacked, precision).reshape(ci, len(taps), co)
    return grad.transpose(1, 0, 2).reshape(kernel.shape)


def _contract(a: Array, b: Array, precision: Precision = HIGHEST) -> Array:
    """Return the product of [B,H,W,I] and [B,H,W,O] summed over images and positions: [I,O].

    Two axes, not an einsum over four: the CPU compiler's product of three contracted
    axes with a constant zero gradient reads memory that nobody wrote.
    """
    return matmul(a.reshape(-1, a.shape[-1]).T, b.reshape(-1, b.shape[-1]), precision)


_conv_gemm.defvjp(_conv_gemm_fwd, _conv_gemm_bwd)
