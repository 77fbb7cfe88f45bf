"""The layers of all networks: flax.linen modules with this library's precision and gradients.

A layer's leaves are named as in saved folders: "w", "b", "logs", "scale", "bias".  The
arithmetic is that of nets/conv.py: bfloat16 multiplies bfloat16 and adds up in float32, biases
and scales are float32 always.  Flax's own `nn.Conv` would round the bias and the sum.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import chex
import flax
import flax.linen as nn
import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
from jax import lax

from flowsr_jax.nets import random
from flowsr_jax.nets.conv import PLAIN, Compute, conv2d, matmul
from flowsr_jax.types import Array, PyTree, Shape

Initializer = Callable[..., jax.Array]
LOGSCALE = 3.0  # of zero-initialised layers: stored log-scales are a third of the ones applied
EPSILON = 1e-5  # of group normalisation

# ---- initial values: (key, shape) -> float32 array, without a program for every shape


def zeros(key: Array, shape: Shape) -> Array:
    """Return zeros, float32."""
    del key
    return jax.device_put(np.zeros(shape, np.float32))


def ones(key: Array, shape: Shape) -> Array:
    """Return ones, float32."""
    del key
    return jax.device_put(np.ones(shape, np.float32))


@functools.cache
def normal(scale: float) -> Initializer:
    """Return the initialiser of normal values of standard deviation `scale`."""
    return lambda key, shape: scale * random.normal(key, shape)


@functools.cache
def uniform(bound: float) -> Initializer:
    """Return the initialiser of values uniform in [-bound, bound)."""
    return lambda key, shape: random.uniform(key, shape, bound)


@functools.cache
def kaiming(gain: float) -> Initializer:
    """Return the initialiser of normal values of variance 2 gain^2 / fan-in (He et al., 2015)."""

    def draw(key: Array, shape: Shape) -> Array:
        return gain * math.sqrt(2.0 / math.prod(shape[:-1])) * random.normal(key, shape)

    return draw


def torch_default(fan_in: int) -> dict[str, Any]:
    """Return the two initialisers of PyTorch's layers: uniform in +-1/sqrt(fan-in), bias too."""
    init = uniform(1.0 / math.sqrt(fan_in))
    return {"kernel_init": init, "bias_init": init}


# ---- parameters


def leaf(module: nn.Module, name: str, init: Initializer, shape: tuple[int, ...]) -> Array:
    """Return `module.param(name, init, shape)`, without drawing initial values at every call.

    Flax compares with the shape of freshly drawn values, which costs as long to trace as the
    layer itself.

    Raises:
      ValueError: the leaf that was handed over has another shape.
    """
    if not module.has_variable("params", name):
        return module.param(name, init, shape)
    value = module.get_variable("params", name)
    if value.shape != tuple(shape):
        where, got = "/".join((*module.path, name)), tuple(value.shape)
        raise ValueError(f"{where} has the shape {got}, the network needs {tuple(shape)}")
    return value


class Tree(nn.Module):
    """Parameters that a function of explicit parameters takes: a dict of arrays and dicts.

    Calling it returns them.

    Attributes:
      draw: (key) -> initial parameters; {} if there are none.
    """

    draw: Callable[[jax.Array], PyTree]

    def __call__(self) -> dict:
        if self.is_initializing() and not self.variables:
            for name, value in self.draw(self.make_rng("params")).items():
                self.put_variable("params", name, value)
        return flax.core.unfreeze(self.variables.get("params", {}))  # ty: ignore[invalid-argument-type]


# ---- layers


class Conv(nn.Module):
    """Convolution of images, zero padding that keeps the size: [B,H,W,Ci] to [B,H,W,features].

    Leaves "w" [k,k,Ci,features] and, with `use_bias`, "b" [features].  The result is float32.

    Attributes:
      features: output channels.
      kernel_size: k.
      use_bias: whether a bias is added.
      kernel_init, bias_init: (key, shape) -> initial values.
      compute: precision and form.
    """

    features: int
    kernel_size: int = 3
    use_bias: bool = True
    kernel_init: Initializer = kaiming(1.0)
    bias_init: Initializer = zeros
    compute: Compute = Compute()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        chex.assert_rank(x, 4)
        k = self.kernel_size
        w = leaf(self, "w", self.kernel_init, (k, k, x.shape[-1], self.features))
        y = self.convolve(x, w)
        return y + leaf(self, "b", self.bias_init, (self.features,)) if self.use_bias else y

    def convolve(self, x: Array, w: Array) -> Array:
        """Return the convolution of x by w, without the bias, float32."""
        return conv2d(x, w, None, self.compute)


class ZeroConv(nn.Module):
    """(conv3x3(x) + b) * exp(3 logs), all zero at first: Glow's Conv2dZeros.

    [B,H,W,Ci] to [B,H,W,features], float32; leaves "w", "b" and "logs".
    Source: Kingma and Dhariwal, Glow (2018), and its released code.
    """

    features: int
    compute: Compute = Compute()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        w = leaf(self, "w", zeros, (3, 3, self.inputs(x.shape[-1]), self.features))
        b = leaf(self, "b", zeros, (self.features,))
        logs = leaf(self, "logs", zeros, (self.features,))
        return (self.convolve(x, w) + b) * jnp.exp(LOGSCALE * logs)

    def inputs(self, channels: int) -> int:
        """Return the kernel's input channels for x of that many."""
        return channels

    def convolve(self, x: Array, w: Array) -> Array:
        """Return the convolution of x by w, without the bias, float32."""
        return conv2d(x, w, None, self.compute)


class Dense(nn.Module):
    """x @ w + b over the last axis: [..., I] to [..., features], float32.

    Leaves "w" [I,features] and, with `use_bias`, "b".
    """

    features: int
    use_bias: bool = True
    kernel_init: Initializer = kaiming(1.0)
    bias_init: Initializer = zeros
    compute: Compute = PLAIN

    @nn.compact
    def __call__(self, x: Array) -> Array:
        w = leaf(self, "w", self.kernel_init, (x.shape[-1], self.features))
        dtype = self.compute.operands
        y = matmul(x.astype(dtype), w.astype(dtype), self.compute.precision)
        return y + leaf(self, "b", self.bias_init, (self.features,)) if self.use_bias else y


class ChannelAffine(nn.Module):
    """(x + bias) * exp(logscale * logs) over the last axis: ActNorm without its logdet.

    Leaves "bias" and "logs" [C].  Where "params" is mutable outside of `init`, as in
    `apply(..., mutable=["params"])`, they are first taken from x [..., C], so that the result
    has mean 0 and variance 1 per channel: bias = -mean, logscale * logs =
    -log(sqrt(variance) + 1e-6), biased variance, over all axes but the last.  Under jit with a
    sharded batch these are statistics over all devices.
    """

    logscale: float = 1.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        bias = leaf(self, "bias", zeros, x.shape[-1:])
        logs = leaf(self, "logs", zeros, x.shape[-1:])
        if self.is_mutable_collection("params") and not self.is_initializing():
            bias, logs = channel_statistics(x)
            logs = logs if self.logscale == 1.0 else logs / self.logscale
            self.put_variable("params", "bias", bias)
            self.put_variable("params", "logs", logs)
        return (x + bias) * jnp.exp(logs if self.logscale == 1.0 else self.logscale * logs)


def channel_statistics(x: Array) -> tuple[Array, Array]:
    """Return the (bias, logs) [C] that whiten x [..., C] per channel; see `ChannelAffine`."""
    axes = tuple(range(x.ndim - 1))
    bias = -jnp.mean(x, axis=axes)
    variance = jnp.mean(jnp.square(x + bias), axis=axes)
    return bias, -jnp.log(jnp.sqrt(variance) + 1e-6)


class GroupNorm(nn.Module):
    """Normalise [B,H,W,C] over H, W and each of `groups` contiguous channel groups.

    Biased variance, epsilon 1e-5; computed in float32, returned in the dtype of x.  Leaves
    "scale" and "bias" [C].
    """

    groups: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        b, _, _, c = x.shape
        scale, bias = leaf(self, "scale", ones, (c,)), leaf(self, "bias", zeros, (c,))
        y = x.astype(jnp.float32)

        def over_groups(per_channel: Array) -> Array:
            mean = jnp.mean(per_channel.reshape(b, self.groups, c // self.groups), axis=-1)
            return jnp.repeat(mean, c // self.groups, axis=-1)[:, None, None, :]

        # Channel sums first: the groups are narrow, and reducing them alone is slow.
        y = y - over_groups(jnp.mean(y, axis=(1, 2)))
        variance = over_groups(jnp.mean(jnp.square(y), axis=(1, 2)))
        y = y * (lax.rsqrt(variance + EPSILON) * scale) + bias
        return y.astype(x.dtype)


# ---- functions without parameters


def leaky_relu(x: Array, strict: bool = False) -> Array:
    """Return x, or 0.2 x where it is negative.

    Released codes differ in the derivative at exactly 0, which dense blocks of zeros meet: it
    is 1 here, and 0.2 with `strict`, as in PyTorch.
    """
    return jnp.where(x > 0 if strict else x >= 0, x, 0.2 * x)


def pixel_shuffle(x: Array, factor: int) -> Array:
    """Return [B,fH,fW,C] of [B,H,W,C f f]; channel c*f*f + dy*f + dx, PyTorch's order."""
    b, h, w, c = x.shape
    c //= factor * factor
    x = x.reshape(b, h, w, c, factor, factor).transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(b, h * factor, w * factor, c)


def half_size(x: Array) -> Array:
    """Return means of 2x2 blocks (bilinear half, align_corners false): [B,H,W,C] to half."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))


# ---- equal blocks in a row


def init_params(module: nn.Module, key: Array, *args: Any) -> PyTree:
    """Return the parameters that `module.lazy_init(key, *args)` would draw, in less time.

    The module is traced once for all keys; what is left of it, the draws, runs without being
    compiled as a whole (nets/random.py says why).  `lazy_init` is the better choice for one
    module with orthogonal values, which are made on the host.

    Args:
      module: unbound, without collections other than "params".
      key: PRNG key.
      *args: of `__call__`: arrays, or their `jax.ShapeDtypeStruct`, or None.
    """
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), args)
    leaves, treedef = jax.tree.flatten(shapes)
    draw, structure = _traced_init(module, treedef, tuple(leaves), jax.typeof(key))  # ty: ignore[invalid-argument-type]
    # Constants of the trace come out as NumPy's.
    drawn = [x if isinstance(x, jax.Array) else jax.device_put(x) for x in draw(key)]
    return jax.tree.unflatten(structure, drawn)


@functools.lru_cache(maxsize=256)
def _traced_init(module: Any, treedef: Any, leaves: Any, key_type: Any) -> tuple[Any, Any]:
    args = jax.tree.unflatten(treedef, leaves)
    key = jax.ShapeDtypeStruct(key_type.shape, key_type.dtype)
    init = jax.make_jaxpr(lambda key: module.lazy_init(key, *args)["params"], return_shape=True)
    jaxpr, shapes = init(key)
    return jax.extend.core.jaxpr_as_fun(_draws(jaxpr)), jax.tree.structure(shapes)


def _draws(closed: Any) -> Any:
    """Return the jaxpr without what its results do not need: what is computed with the weights."""
    needed, kept = set(map(id, closed.jaxpr.outvars)), []
    for eqn in reversed(closed.jaxpr.eqns):
        if needed & set(map(id, eqn.outvars)):
            kept.append(eqn)
            needed |= set(map(id, eqn.invars))
    return closed.replace(jaxpr=closed.jaxpr.replace(eqns=kept[::-1]))


def stacked(block: nn.Module, length: int) -> Callable[[Array, Shape], PyTree]:
    """Return the initialiser of `length` equal blocks, their leaves stacked along a first axis.

    A loop and not `nn.scan`, whose own initialisation compiles for seconds.

    Args:
      block: maps [B,...] to the same shape; made with parent=None.
      length: K.

    Returns:
      (key, shape of one example [...]) -> parameters of the K blocks, for `self.param`.
    """

    def init(key: Array, shape: Shape) -> PyTree:
        x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        blocks = [init_params(block, jax.random.fold_in(key, k), x) for k in range(length)]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)

    return init


def run_blocks(
    block: nn.Module, params: PyTree, x: Array, compute: Compute, keep: bool = False
) -> tuple[Array, Array | None]:
    """Evaluate stacked blocks one after the other, compiled once.

    Args:
      block: unbound (parent=None).
      params: K parameter sets, stacked along a first axis (`stacked`).
      x: what the first block takes.
      compute: `memory` "remat" computes each block again in the backward pass; `unroll`
        writes the loop out.
      keep: also return the blocks' outputs.

    Returns:
      (output of the last block, outputs of all [K,...] or None).
    """

    def run(x: Array, p: PyTree) -> tuple[Array, Array | None]:
        x = block.apply({"params": p}, x)  # ty: ignore[invalid-assignment]
        return x, x if keep else None

    if compute.memory == "remat":
        run = jax.checkpoint(run)  # ty: ignore[invalid-assignment]
    length = len(jax.tree.leaves(params)[0])
    return lax.scan(run, x, params, length=length, unroll=length if compute.unroll else 1)
