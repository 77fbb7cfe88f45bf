"""The registry of bijector cases.

Every entry gets all invariants of tests/test_bijectors.py.  A family that adds a
bijector adds a case here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from flowsr_jax.bijectors import (
    ActNorm,
    Additive,
    Affine,
    BatchNorm,
    Bijector,
    BorderedSplit,
    Chain,
    CheckerboardCoupling,
    ConditionalPrior,
    Conv1x1,
    Conv1x1PLU,
    ConvDown,
    Coupling,
    Deinterleave,
    Flatten,
    Haar,
    Injector,
    Invert,
    InvertibleBlock,
    Logit,
    MultiScale,
    Part,
    RationalQuadratic,
    Rescale,
    Reverse,
    ScaleForm,
    Scaling,
    Scan,
    Shift,
    Shuffle,
    Split,
    Squeeze,
    Swap,
    TopPrior,
    Within,
)
from flowsr_jax.nets.conv import Compute
from flowsr_jax.nets.coupling_net import CouplingNet
from flowsr_jax.nets.dense_block import DenseBlock
from flowsr_jax.nets.glow_net import GlowNet
from flowsr_jax.nets.mlp import MLP
from flowsr_jax.nets.realnvp_net import RealNVPNet
from flowsr_jax.nets.upsampled import Upsampled
from flowsr_jax.testing import moved


@dataclasses.dataclass(frozen=True)
class Case:
    """One bijector with an input shape (without batch) and a way to make its cond."""

    name: str
    bijector: Bijector
    shape: tuple[int, ...]
    cond: Callable[[Any], Any] | None = None
    bad_shape: tuple[int, ...] | None = None

    def params(self, key):
        """Initial parameters, every float leaf moved away from its start value."""
        return moved(self.bijector.init(key, self.shape))

    def __str__(self):
        return self.name


def _image_cond(h, w, c):
    return lambda key: jax.random.normal(key, (2, h, w, c))


_NET = CouplingNet(hidden=5)
_COND_NET = CouplingNet(hidden=5, cond_channels=3)
_GEMM_NET = CouplingNet(hidden=5, cond_channels=3, compute=Compute(conv="gemm"))
_XLA_NET = CouplingNet(hidden=5, cond_channels=3, compute=Compute(conv="xla"))
_MLP = MLP(width=5, layers=2, bound=None, cond_channels=3)
_FORMS = {
    "sigmoid2": ScaleForm("sigmoid2"),
    "sigmoid2_eps": ScaleForm("sigmoid2", eps=1e-4),
    "exp": ScaleForm("exp"),
    "tanh": ScaleForm("tanh", clamp=2.0),
    "atan": ScaleForm("atan", clamp=2.0),
    "sigmoid": ScaleForm("sigmoid", clamp=1.0),
}


def _flow_step(net):
    return Chain(
        (
            ("actnorm", ActNorm()),
            ("conv1x1", Conv1x1()),
            ("injector", Injector(net)),
            ("coupling", Coupling(net)),
        )
    )


def _multiscale(split, prior=None):
    def level(net, k):
        scan = Scan(_flow_step(net), k)
        return Chain((("squeeze", Squeeze()), ("steps", scan)))

    return MultiScale((level(_COND_NET, 2), level(_COND_NET, 1)), (split, prior), key="levels")


def _multiscale_cond(key):
    a, b = jax.random.split(key)
    shapes = ((2, 2, 2, 3), (2, 1, 1, 3))
    return {"levels": [jax.random.normal(k, s) for k, s in zip((a, b), shapes, strict=True)]}


CASES = [
    Case("squeeze", Squeeze(), (4, 2, 3), bad_shape=(3, 2, 3)),
    Case("squeeze_space_to_depth", Squeeze(order="space_to_depth"), (4, 2, 2), bad_shape=(4, 3, 2)),
    Case("squeeze_realnvp", Squeeze(order="realnvp"), (2, 4, 2), bad_shape=(5, 4, 2)),
    Case("unsqueeze", Invert(Squeeze()), (2, 2, 8), bad_shape=(2, 2, 6)),
    Case("actnorm", ActNorm(), (2, 3, 4), bad_shape=(2, 3, 5)),
    Case("actnorm_glow", ActNorm(logscale_factor=3.0), (2, 2, 4), bad_shape=(2, 2, 3)),
    Case("actnorm_inverted", Invert(ActNorm(3.0)), (2, 3, 4), bad_shape=(2, 3, 5)),
    Case("actnorm_vector", ActNorm(), (4,), bad_shape=(5,)),
    Case("conv1x1", Conv1x1(), (2, 3, 4), bad_shape=(2, 3, 3)),
    Case("conv1x1_vector", Conv1x1(), (4,), bad_shape=(3,)),
    Case("conv1x1_inverted", Invert(Conv1x1()), (2, 3, 4), bad_shape=(2, 3, 3)),
    Case(
        "chain_inverted",
        Invert(Scan(_flow_step(_COND_NET), 2)),
        (2, 2, 4),
        cond=_image_cond(2, 2, 3),
    ),
    Case("conv1x1_plu", Conv1x1PLU(), (2, 2, 4), bad_shape=(2, 2, 5)),
    Case("reverse", Reverse(), (2, 2, 4)),
    Case("shuffle", Shuffle(), (2, 2, 6), bad_shape=(2, 2, 5)),
    Case(
        "shift", Shift("estimate"), (2, 2, 3), cond=lambda k: {"estimate": _image_cond(2, 2, 3)(k)}
    ),
    Case("injector", Injector(_COND_NET), (2, 3, 4), cond=_image_cond(2, 3, 3)),
    Case("additive", Coupling(_NET, Additive()), (2, 3, 4), bad_shape=(2, 3, 1)),
    Case(
        "additive_conditional",
        Coupling(_COND_NET, Additive()),
        (2, 3, 5),
        cond=_image_cond(2, 3, 3),
        bad_shape=(2, 3, 1),
    ),
    *[
        Case(f"affine_{name}", Coupling(_NET, Affine(form)), (3, 2, 4), bad_shape=(3, 2, 1))
        for name, form in _FORMS.items()
    ],
    *[
        Case(
            f"affine_half_{'pre' if first else 'post'}_conditional",
            Coupling(_COND_NET, Affine(_FORMS["tanh"], layout="half", shift_first=first)),
            (2, 3, 5),
            cond=_image_cond(2, 3, 3),
            bad_shape=(2, 3, 1),
        )
        for first in (True, False)
    ],
    Case("coupling_gemm", Coupling(_GEMM_NET), (3, 2, 4), cond=_image_cond(3, 2, 3)),
    Case("coupling_xla", Coupling(_XLA_NET), (3, 2, 4), cond=_image_cond(3, 2, 3)),
    *[
        Case(f"spline_{name}", bijector, (2, 3, 4), cond=_image_cond(2, 3, 3))
        for name, bijector in (
            ("coupling", Coupling(_COND_NET, RationalQuadratic(4))),
            ("injector", Injector(_COND_NET, RationalQuadratic(3, bound=1.0))),
            ("checkerboard", CheckerboardCoupling(_COND_NET, RationalQuadratic(2), "odd")),
        )
    ],
    Case("split", Split(), (2, 2, 4), bad_shape=(2, 2, 1)),
    Case("split_conditional", Split(0.25, 3), (2, 3, 4), _image_cond(2, 3, 3), (2, 3, 1)),
    Case("conditional_prior", ConditionalPrior(3), (2, 3, 4), cond=_image_cond(2, 3, 3)),
    Case(
        "conditional_prior_of_parts",
        ConditionalPrior(3),
        (2, 2, 4),
        cond=lambda key: (
            Upsampled(jax.random.normal(key, (2, 1, 1, 2)), 2),
            Upsampled(jax.random.normal(key, (2, 2, 2, 1)), 1),
        ),
    ),
    Case("chain", _flow_step(_COND_NET), (2, 2, 4), cond=_image_cond(2, 2, 3)),
    Case("scan", Scan(_flow_step(_COND_NET), 3), (2, 2, 4), cond=_image_cond(2, 2, 3)),
    Case(
        "scan_unrolled_remat",
        Scan(_flow_step(_COND_NET), 2, unroll=True, memory="remat"),
        (2, 2, 4),
        cond=_image_cond(2, 2, 3),
    ),
    Case(
        "scan_reversible",
        Scan(_flow_step(_COND_NET), 3, memory="reversible"),
        (2, 2, 4),
        cond=_image_cond(2, 2, 3),
    ),
    Case("multiscale", _multiscale(Split()), (4, 4, 2), cond=_multiscale_cond, bad_shape=(6, 4, 2)),
    Case(
        "multiscale_conditional_priors",
        _multiscale(Split(0.5, 3), ConditionalPrior(3)),
        (4, 4, 2),
        cond=_multiscale_cond,
    ),
    Case("haar", Haar(), (4, 2, 3), bad_shape=(3, 2, 3)),
    Case("conv_down_2", ConvDown(2), (2, 4, 3), bad_shape=(3, 4, 3)),
    Case("conv_down_3", ConvDown(3), (3, 6, 2), bad_shape=(4, 6, 2)),
    Case("invertible_block", InvertibleBlock(DenseBlock(4)), (2, 3, 12), bad_shape=(2, 3, 3)),
    Case(
        "invertible_block_color",
        InvertibleBlock(DenseBlock(4), low=1, scale=ScaleForm("sigmoid", clamp=0.5)),
        (2, 3, 3),
        bad_shape=(2, 3, 1),
    ),
    Case("rescale", Rescale(-3.0, 0.5), (2, 3, 2)),
    Case("scaling", Scaling(), (6,), bad_shape=(5,)),
    Case(
        "logit",
        Chain((("into_unit_interval", Invert(Logit())), ("logit", Logit(0.1, 0.8)))),
        (2, 2, 2),
    ),
    Case("batchnorm", BatchNorm(), (2, 3, 4), bad_shape=(2, 3, 5)),
    Case("batchnorm_sites", BatchNorm(sites="odd"), (3, 3, 2), bad_shape=(3, 3, 3)),
    *[
        Case(f"checkerboard_{sites}", CheckerboardCoupling(_NET, affine, sites), (3, 2, 2))
        for sites, affine in (("even", Affine(_FORMS["tanh"])), ("odd", Additive()))
    ],
    Case(
        "checkerboard_realnvp_net",
        CheckerboardCoupling(RealNVPNet(2, 1, True), Affine(_FORMS["exp"], "half")),
        (3, 2, 2),
    ),
    Case(
        "coupling_glow_net",
        Coupling(GlowNet(hidden=5), Affine(_FORMS["sigmoid2"])),
        (3, 2, 4),
        bad_shape=(3, 2, 1),
    ),
    Case("bordered_split", BorderedSplit(), (2, 2, 4), bad_shape=(2, 2, 1)),
    Case("top_prior", TopPrior(), (2, 3, 4), bad_shape=(2, 3, 5)),
    Case(
        "top_prior_classes",
        TopPrior(classes=3),
        (2, 2, 4),
        cond=lambda key: {"label": jax.random.randint(key, (2,), 0, 3)},
        bad_shape=(2, 2, 3),
    ),
    *[
        Case(
            f"mlp_{name}",
            bijector,
            (4,),
            cond=lambda key: jax.random.normal(key, (2, 3)),
        )
        for name, bijector in (
            ("coupling", Coupling(_MLP, Affine(_FORMS["tanh"]))),
            ("injector", Injector(_MLP)),
            ("scan", Scan(Chain((("actnorm", ActNorm()), ("coupling", Coupling(_MLP)))), 3)),
        )
    ],
    Case("flatten", Flatten((2, 2, 3)), (2, 2, 3), bad_shape=(2, 3, 3)),
    Case("deinterleave", Deinterleave(), (5,)),
    Case("swap", Swap(), (2, 2, 5), bad_shape=(2, 2, 1)),
    Case("part_first", Part(ActNorm(), "first"), (2, 2, 5), bad_shape=(2, 2, 7)),
    Case("part_last", Part(ActNorm(), "last"), (2, 2, 5), bad_shape=(2, 2, 7)),
    Case(
        "within_squeeze",
        Within(Squeeze(), Coupling(_NET)),
        (4, 2, 2),
        bad_shape=(3, 2, 2),
    ),
    Case("within_swap", Within(Swap(), Coupling(_NET)), (2, 2, 5), bad_shape=(2, 2, 1)),
]
