"""RealNVP's architecture, as in the released code.

Exact numerics: docs/papers/glow.md section 6.  Dinh, Sohl-Dickstein and Bengio (2017).
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from flowsr_jax.bijectors import (
    Affine,
    BatchNorm,
    Bijector,
    Chain,
    CheckerboardCoupling,
    Coupling,
    Logit,
    Part,
    ScaleForm,
    Squeeze,
    Swap,
    Within,
)
from flowsr_jax.math.gaussian import standard_normal_log_prob
from flowsr_jax.models.base import Params
from flowsr_jax.models.realnvp.config import RealNVPConfig
from flowsr_jax.models.unconditional import pixels
from flowsr_jax.nets.layers import Tree
from flowsr_jax.nets.realnvp_net import STATISTICS, RealNVPNet
from flowsr_jax.types import Array, PyTree, Shape, State

AFFINE = Affine(ScaleForm("exp"), layout="half", shift_first=True)


def build_flow(config: RealNVPConfig) -> Chain:
    """Return the flow as a bijector: image -> one latent of the image's shape."""
    parts: list[tuple[str, Bijector]] = [("pixels", pixels())]
    if config.width:
        parts.append(("logit", Logit(config.low, config.width)))
    return Chain((*parts, ("scale_0", build_scale(config, 0))))


def build_scale(config: RealNVPConfig, k: int) -> Chain:
    """Return the flow from scale k on: checkerboards, channels, then half of the pixels goes on."""
    dim = config.dim * 2**k
    last = k == config.scales - 1
    checkers = [
        (f"coupling_{i}", _checkerboard(config, dim, ("even", "odd")[i % 2]))
        for i in range(4 if last else 3)
    ]
    if last:
        return Chain(tuple(checkers))
    channels = Chain(
        tuple((f"coupling_{4 + i}", _channels(config, 2 * dim, swap=i == 1)) for i in range(3))
    )
    # The ordered squeeze puts the diagonal pixels of each block into the first channels.
    rest = Within(Squeeze(order="realnvp"), Part(build_scale(config, k + 1), "first"))
    return Chain((*checkers, ("channels", Within(Squeeze(), channels)), (f"scale_{k + 1}", rest)))


def _checkerboard(config: RealNVPConfig, dim: int, passed: str) -> Bijector:
    net = RealNVPNet(dim, config.blocks, True, config.compute, parent=None)
    changed = "odd" if passed == "even" else "even"
    coupling = CheckerboardCoupling(net, AFFINE, passed)
    return Chain((("coupling", coupling), ("bn_out", BatchNorm(sites=changed))))


def _channels(config: RealNVPConfig, dim: int, swap: bool) -> Bijector:
    """Return the coupling that changes the last half of the channels, or the first (swap)."""
    net = RealNVPNet(dim, config.blocks, False, config.compute, parent=None)
    step = Chain((("coupling", Coupling(net, AFFINE)), ("bn_out", Part(BatchNorm(), "last"))))
    return Within(Swap(), step) if swap else step


def split_statistics(tree: PyTree) -> tuple[PyTree, PyTree]:
    """Return (weights, moving statistics): two trees of dicts from one, by the names of leaves."""
    weights, statistics = {}, {}
    for name, value in tree.items():
        if isinstance(value, dict):
            parts = split_statistics(value)
            for side, part in zip((weights, statistics), parts, strict=True):
                if part:
                    side[name] = part
        else:
            (statistics if name in STATISTICS else weights)[name] = value
    return weights, statistics


def merge(weights: PyTree, statistics: PyTree) -> PyTree:
    """Return one tree of two: the inverse of `split_statistics`."""
    merged = dict(weights)
    for name, value in statistics.items():
        inside = isinstance(value, dict) and name in merged
        merged[name] = merge(merged[name], value) if inside else value
    return merged


class RealNVP(nn.Module):
    """RealNVP as a Flax module; its parameters are the groups of `Params`.

    These are {"flow", "statistics"}: the moving statistics are parameters that no optimiser
    should train.
    """

    config: RealNVPConfig

    def setup(self) -> None:
        self.flow = Tree(lambda key: init_groups(self.config, key)[0])
        self.statistics = Tree(lambda key: init_groups(self.config, key)[1])

    def __call__(self, image: Array) -> Array:
        """Return log p(image) in nats [B]; see `encode`."""
        return self.encode(image)[1]

    def encode(self, image: Array) -> tuple[list[Array], Array]:
        """Return ([latent], log p(image) [B] in nats) of images [B,H,W,C] in [0,1].

        The moving statistics normalise.
        """
        z, logdet = build_flow(self.config).forward(merge(self.flow(), self.statistics()), image)
        return [z], logdet + standard_normal_log_prob(z)

    def decode(self, latents: list[Array]) -> Array:
        """Return the image [B,H,W,C] of [latent], by the moving statistics; not clipped."""
        return build_flow(self.config).inverse(merge(self.flow(), self.statistics()), latents[0])[0]


def init_groups(config: RealNVPConfig, key: Array) -> tuple[PyTree, PyTree]:
    """Return (weights, moving statistics) at first."""
    shape = (2 * config.multiple, 2 * config.multiple, config.channels)
    return split_statistics(build_flow(config).init(key, shape))


def init(config: RealNVPConfig, key: Array) -> Params:
    """Return random parameters with the released code's initial values; moving variances are 1.

    Groups: "flow", and "statistics" (the moving ones), which no optimiser should train.
    """
    weights, statistics = init_groups(config, key)
    return Params({"flow": weights, "statistics": statistics}, config)


def init_state(config: RealNVPConfig) -> State:
    """Return {"statistics": initial moving statistics}, as `init` gives them."""
    shapes = jax.eval_shape(lambda key: init(config, key)["statistics"], jax.random.key(0))
    return {
        "statistics": jax.tree_util.tree_map_with_path(
            lambda path, leaf: jnp.full(leaf.shape, float(path[-1].key == "var")), shapes
        )
    }


def latent_shapes(config: RealNVPConfig, shape: Shape) -> list[tuple[int, ...]]:
    """Return [the shape of the images]."""
    return [tuple(shape)]


def flow_params(params: Params) -> PyTree:
    """Return the parameters of `build_flow`: weights and moving statistics together."""
    return merge(params["flow"], params["statistics"])


def forward(params: Params, image: Array, label: Array | None = None) -> tuple[list[Array], Array]:
    """Return `RealNVP.encode` of parameters; there are no labels."""
    return RealNVP(params.config).apply({"params": params.tree}, image, method="encode")  # ty: ignore[invalid-explicit-return]


def inverse(params: Params, latents: list[Array], label: Array | None = None) -> Array:
    """Return `RealNVP.decode` of parameters; there are no labels."""
    return RealNVP(params.config).apply({"params": params.tree}, latents, method="decode")  # ty: ignore[invalid-explicit-return]


def forward_train(params: Params, image: Array) -> tuple[Array, Array, PyTree]:
    """Return (latent, log p(image) [B], the batch's statistics), by the batch's statistics."""
    used, z, logdet = build_flow(params.config).forward_train(flow_params(params), image)
    return z, logdet + standard_normal_log_prob(z), split_statistics(used)[1]


def move_statistics(config: RealNVPConfig, moving: PyTree, used: PyTree) -> PyTree:
    """Return moving - momentum * (moving - used), leaf by leaf; no gradient."""
    used = jax.lax.stop_gradient(used)
    return jax.tree.map(lambda m, b: m - config.momentum * (m - b), moving, used)
