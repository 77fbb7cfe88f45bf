"""The verbs of flows that draw images from nothing: Glow, RealNVP and NICE share them.

Images are float in [0,1] as everywhere.  Level k of 8 bits is the cell of width 1/255
around k/255; a flow works on (255 x + 1/2) / 256, which puts the cells side by side in
[0,1].  So rounding a drawn image to 8 bits is the released codes' floor.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from flowsr_jax import memory
from flowsr_jax.bijectors import Rescale
from flowsr_jax.bijectors.invertibility import InvertibilityReport, inspect_inverse
from flowsr_jax.math import gaussian
from flowsr_jax.math.arrays import is_traced, shown
from flowsr_jax.models.base import Params, View
from flowsr_jax.models.inputs import check_key, check_label, check_num_samples
from flowsr_jax.types import AnyArray, Array, Shape


def pixels(scale: float = 1.0, shift: float = 0.0) -> Rescale:
    """Return the bijector from images in [0,1] to scale * (255 x + 1/2) / 256 + shift."""
    return Rescale(scale * 255 / 256, scale * 0.5 / 256 + shift)


def dequantize(image: AnyArray, u: AnyArray, n_bits: int = 8) -> Array:
    """Return 8-bit images in [0,1], reduced to n_bits, spread over their cells by u in [0,1).

    The released Glow's preprocessing and noise; docs/papers/glow.md section 3.
    """
    step = 2.0 ** (8 - n_bits)
    levels = jnp.floor(jnp.rint(255.0 * image) / step) * step
    return (levels + step * u - 0.5) / 255.0


def to_uint8(image: Array, n_bits: int = 8) -> Array:
    """Return the image at its n_bits levels: floor to the cell, clip; for 8 bits, plain rounding.

    The released Glow's postprocessing; docs/papers/glow.md section 3.
    """
    cells = jnp.floor((255.0 * image + 0.5) / 256.0 * 2.0**n_bits)
    return jnp.clip(cells * 2.0 ** (8 - n_bits), 0.0, 255.0).astype(jnp.uint8)


def noisy(batch: Mapping[str, AnyArray], key: Array, n_bits: int = 8) -> Array:
    """Return `dequantize` of batch["hr"] by batch["noise"] in [0,1) if it is there, else by key."""
    hr = batch["hr"]
    u = batch["noise"] if "noise" in batch else jax.random.uniform(key, hr.shape, jnp.float32)
    return dequantize(hr, u, n_bits)


def to_bits(log_prob: Array, dims: int, n_bits: int = 8) -> Array:
    """Return bits per dimension of n_bits images from a density on [0,1]-valued images.

    -log_prob / (ln 2 * dims) + log2(255) are those of 8 bits; a cell of n_bits is
    2^(8 - n_bits) as wide.  Never compare numbers of different n_bits.
    """
    return gaussian.bits_per_dim(log_prob, dims) - (8 - n_bits)


def check_shape(config: Any, shape: Shape) -> None:
    """Raise ValueError unless images of `shape` [B,H,W,C] can be squeezed."""
    h, w, channels = shape[1:]
    m = config.multiple
    if channels != config.channels:
        raise ValueError(f"images must have {config.channels} channels, got shape {tuple(shape)}")
    if h % m or w % m:
        up = f"{-(-h // m) * m}x{-(-w // m) * m}"
        down = f"{h // m * m}x{w // m * m}, or " if h >= m and w >= m else ""
        raise ValueError(
            f"image height and width must be multiples of {m}, got {h}x{w}; take {down}{up}"
        )


def _check_temperature(temperature: ArrayLike, batch: int) -> Array:
    if np.shape(temperature) not in ((), (batch,)):
        raise ValueError(
            f"temperature must be one number or one per image, [{batch}], got shape "
            f"{np.shape(temperature)}"
        )
    if not is_traced(temperature):
        values = np.asarray(temperature)
        if not (np.all(np.isfinite(values)) and np.all(values >= 0)):
            raise ValueError(f"temperature must be finite and >= 0, got {shown(temperature)}")
    return jnp.asarray(temperature, jnp.float32)


@dataclasses.dataclass(frozen=True)
class Unconditional:
    """Encode, decode, sample, ... of a family, from its two passes.

    The config of the family has `image_shape` (the default shape of one drawn image),
    `classes` (0 without), `n_bits` and `temperature`.

    Attributes:
      forward: (params, image, label) -> (latents, log p [B] of the density on [0,1]-valued
        images, nats); pure.
      inverse: (params, latents, label) -> image; pure.
      check_shape: (config, shape [B,...]) -> None; ValueError for images of another shape.
      check_image: (config, image) -> None; that, and dtype and range.
      latent_shapes: (config, shape [B,...]) -> shapes of the latents.
      layers: (params, latents, label) -> (flow, its parameters, what its inverse takes,
        its cond).
      prior: (config, key, shape) -> one latent of the prior, at temperature 1.
    """

    forward: Callable[..., Any]
    inverse: Callable[..., Any]
    check_shape: Callable[..., None]
    check_image: Callable[..., None]
    latent_shapes: Callable[..., list]
    layers: Callable[..., tuple]
    prior: Callable[..., Any] = lambda config, key, shape: jax.random.normal(
        key, shape, jnp.float32
    )

    def encode(
        self, params: Params, hr: AnyArray, *, label: ArrayLike | None = None
    ) -> tuple[list[Array], Array]:
        """Return exact latents (finest level first) and log p(hr) in nats [B]; no noise added.

        Args:
          params: model parameters.
          hr: images [B,H,W,C] in [0,1]; continuous values are as good as 8-bit ones.
          label: class of the images, of a class-conditional model.
        """
        self.check_image(params.config, hr)
        return _encode(self, params, hr, check_label(params.config, label, hr.shape[0]))

    def log_prob(self, params: Params, hr: AnyArray, *, label: ArrayLike | None = None) -> Array:
        """Return log p(hr) in nats [B], of the density on [0,1]-valued images."""
        return self.encode(params, hr, label=label)[1]

    def decode(
        self, params: Params, latents: Iterable[AnyArray], *, label: ArrayLike | None = None
    ) -> Array:
        """Return the image [B,H,W,C] of a list of latents, not clipped: the inverse of `encode`.

        Raises:
          ValueError: latents that are not those of one image shape.
        """
        latents = list(latents)
        self._check_latents(params.config, "latents", latents)
        label = check_label(params.config, label, latents[0].shape[0])
        return _decode(self, params, latents, label)

    def bits_per_dim(
        self,
        params: Params,
        hr: AnyArray,
        key: Array | None = None,
        *,
        label: ArrayLike | None = None,
    ) -> Array:
        """Return bits per dimension [B] of n_bits images; see `to_bits`.

        With a `key` the image is reduced to n_bits and one draw of uniform noise is added
        (dequantisation), as the published numbers are measured; without one the density
        is taken at the image as it is.
        """
        config = params.config
        self.check_image(config, hr)
        if key is not None:
            check_key(key)
            hr = noisy({"hr": hr}, key, config.n_bits)
        log_prob = self.encode(params, hr, label=label)[1]
        return to_bits(log_prob, int(np.prod(hr.shape[1:])), config.n_bits)

    def sample(
        self,
        params: Params,
        lr: None,
        key: Array | None,
        *,
        shape: Sequence[int] | None = None,
        num_samples: int | None = None,
        temperature: ArrayLike | None = None,
        label: ArrayLike | None = None,
        noise: Iterable[AnyArray] | None = None,
    ) -> Array:
        """Draw images.

        Args:
          params: model parameters.
          lr: None; it is there because other families need one.
          key: PRNG key; may be None with `noise`.
          shape: of one image, [H,W,C], or of the batch, [B,H,W,C]; None is the config's.
          num_samples: B, where `shape` does not say it; else the number of labels, or 1.
          temperature: factor of the latents, one number or one per image [B]; None is the
            model's default.
          label: class of all images, or of each [B], of a class-conditional model.
          noise: latents at temperature 1, in the shapes of `latent_shapes`, in place of
            draws from the key.

        Returns:
          [B,H,W,C] float32, not clipped.

        Raises:
          TypeError, ValueError: an argument that the model cannot take.
        """
        config = params.config
        noise = None if noise is None else list(noise)
        shape = self._drawn_shape(config, shape, num_samples, label, noise)
        if noise is None:
            check_key(key)
        else:
            self._check_latents(config, "noise", noise, shape)
        temperature = config.temperature if temperature is None else temperature
        temperature = _check_temperature(temperature, shape[0])
        label = check_label(config, label, shape[0])
        return _sample(self, params, key, noise, temperature, label, shape=shape)

    def check_invertibility(
        self,
        params: Params,
        lr: None = None,
        key: Array | None = None,
        *,
        temperature: ArrayLike | None = None,
        limit: float = 1e-3,
        label: ArrayLike | None = None,
    ) -> InvertibilityReport:
        """Return a report of a flow's numerical invertibility on one drawn image, layer by layer.

        See flowsr_jax.check_invertibility.
        """
        config = params.config
        label = 0 if config.classes and label is None else label
        label = check_label(config, label, 1)
        temperature = config.temperature if temperature is None else temperature
        key = jax.random.key(0) if key is None else key
        shapes = self.latent_shapes(config, (1, *config.image_shape))
        latents = [temperature * z for z in self._draw(config, key, shapes)]
        flow, flow_params, latents, cond = self.layers(params, latents, label)
        return inspect_inverse(flow, flow_params, latents, cond, limit)[0]

    def views(self, config: Any, loss: str = "") -> tuple[View, ...]:
        """Return draws of the validation images' shape: at the default temperature and at 1."""
        del loss
        return tuple(
            View(f"T={t:g}", functools.partial(_view, self, temperature=t), stochastic=t > 0)
            for t in dict.fromkeys((config.temperature, 1.0))
        )

    def _draw(self, config: Any, key: Array, shapes: Sequence[Shape]) -> list[Array]:
        keys = jax.random.split(key, len(shapes))
        return [self.prior(config, k, s) for k, s in zip(keys, shapes, strict=True)]

    def _drawn_shape(
        self,
        config: Any,
        shape: Sequence[int] | None,
        num_samples: int | None,
        label: Any,
        noise: Sequence[Any] | None,
    ) -> Shape:
        """Return the shape [B,...] of the batch that is asked for."""
        rank = len(config.image_shape)
        shape = config.image_shape if shape is None else tuple(shape)
        check_num_samples(num_samples)
        if len(shape) == rank:
            batch = num_samples or (np.shape(label) or (1,))[0]
            if noise and num_samples is None:
                batch = (np.shape(noise[0]) or (1,))[0]
            shape = (batch, *shape)
        elif len(shape) != rank + 1:
            raise ValueError(
                f"shape must be that of one image, as {config.image_shape}, or of a batch, got "
                f"{shape}"
            )
        elif num_samples not in (None, shape[0]):
            raise ValueError(f"shape = {shape} and num_samples = {num_samples} do not agree")
        if not all(isinstance(n, int) and n > 0 for n in shape):
            raise ValueError(f"shape must hold positive integers, got {shape}")
        self.check_shape(config, shape)
        memory.require("shape", shape, 4 * math.prod(shape), count=shape[0])
        return shape

    def _check_latents(
        self, config: Any, name: str, latents: Sequence[Any], shape: Shape | None = None
    ) -> None:
        """Raise unless the latents are those of images of `shape` (None: of some shape)."""
        got = [tuple(getattr(z, "shape", ())) for z in latents]
        if shape is None:
            shape = self._shape_of(config, got)
        want = None if shape is None else [tuple(s) for s in self.latent_shapes(config, shape)]
        if got != want:
            example = shape or (1, *config.image_shape)
            shapes = [tuple(s) for s in self.latent_shapes(config, example)]
            raise ValueError(
                f"{name} must have shapes as {shapes}, those of images {example}, got {got}"
            )

    def _shape_of(self, config: Any, got: Sequence[Shape]) -> Shape | None:
        """Return the image shape whose last latent has the last of these shapes, or None."""
        rank = len(config.image_shape) + 1
        small = self.latent_shapes(config, (1, *config.image_shape))[-1]
        if not got or len(got[-1]) != len(small):
            return None
        if len(small) != rank:
            return (got[-1][0], *config.image_shape)
        # Latents shrink with the image, channels apart.
        factor = [n / s for n, s in zip(config.image_shape[:-1], small[1:-1], strict=True)]
        sides = [round(f * n) for f, n in zip(factor, got[-1][1:-1], strict=True)]
        shape = (got[-1][0], *sides, config.image_shape[-1])
        return shape if all(shape) else None


@functools.partial(jax.jit, static_argnums=0)
def _encode(
    flow: Unconditional, params: Params, hr: Array, label: Array | None
) -> tuple[list[Array], Array]:
    return flow.forward(params, jnp.asarray(hr, jnp.float32), label)


@functools.partial(jax.jit, static_argnums=0)
def _decode(
    flow: Unconditional, params: Params, latents: Sequence[Array], label: Array | None
) -> Array:
    return flow.inverse(params, [jnp.asarray(z, jnp.float32) for z in latents], label)


@functools.partial(jax.jit, static_argnums=0, static_argnames="shape")
def _sample(
    flow: Unconditional,
    params: Params,
    key: Any,
    noise: Sequence[Array] | None,
    temperature: Array,
    label: Array | None,
    *,
    shape: Shape,
) -> Array:
    config = params.config
    if noise is None:
        noise = flow._draw(config, key, flow.latent_shapes(config, shape))
    scaled = [jnp.reshape(temperature, (-1,) + (1,) * (z.ndim - 1)) * z for z in noise]
    return flow.inverse(params, scaled, label)


@functools.partial(jax.jit, static_argnums=0)
def _view(
    flow: Unconditional, params: Params, lr: Array, key: Array, *, temperature: float
) -> Array:
    config, label = params.config, None
    if config.classes:
        label = jax.random.randint(jax.random.fold_in(key, 1), lr.shape[:1], 0, config.classes)
    return flow.sample(params, None, key, shape=lr.shape, temperature=temperature, label=label)
