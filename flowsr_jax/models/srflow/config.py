"""Hyper-parameters of SRFlow.

Official weights fit the defaults; the options marked "ours" are off for them.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

from flowsr_jax.config import (
    ConfigError,
    Depth,
    DepthOr0,
    NotNegative,
    Positive,
    Range,
    Width,
    check_ranges,
    choice,
)
from flowsr_jax.models.rrdb.config import RRDBConfig
from flowsr_jax.nets.choice import NetworkConfig
from flowsr_jax.nets.conv import Compute

GreyLevels = Annotated[float, Range(0, 255)]


@dataclasses.dataclass(frozen=True)
class SRFlowConfig:
    """Hyper-parameters of SRFlow.

    Attributes:
      encoder: the LR encoder (RRDB); its scale is the model's scale.
      steps: conditional flow steps K per level, one entry per level.  Level l works
        at H/2^l; an entry may be 0 (transition steps only).
      transition_steps: ActNorm + 1x1 steps after each squeeze.
      hidden: width of the coupling and injector nets.
      stacked_blocks: 0-based RRDBs whose outputs condition the flow.
      splits: levels (from 1) after which half of the channels becomes latent; None
        is the released rule: every level below L - 1.
      affine_eps: scale floor; the scale is sigmoid(r + 2) + affine_eps.
      scale_form: "sigmoid2" (released), or "tanh", "atan", "sigmoid": scales bounded
        on both sides by exp(+-scale_clamp) (ours; for flows that explode).
      shift_by_encoder: the flow models HR minus the encoder's image (ours).
      condition_on_estimate: the squeezed encoder image joins the conditioning (ours).
      conditional_prior: the latents of splits and the last latent are whitened by Gaussians
        whose mean and deviation the conditioning predicts (ours): temperature 1 is meant.
      told_noise: with s > 0 the networks are told the deviation of the noise on HR, in grey
        levels of 255 from 0 to s, as one more channel of the conditioning (ours; SoftFlow,
        Kim et al., NeurIPS 2020; NCSR, Kim and Son, CVPRW 2021).  Train with
        loss_options.noise = "told".
      draw_noise: the deviation at which `sample` draws by default; one denoising step
        takes it away again.
      injector: affine injectors; False is the paper's ablation (the released code has no
        such option), in which the couplings alone see the conditioning.
      network: the network of couplings and injectors, by its name; None is the released one.
      temperature: default temperature of `sample`.
      official_extras: carry the released files' unused tensors for export.
      compute: precision and form of the flow's networks.
    """

    family: ClassVar[str] = "srflow"
    encoder: RRDBConfig = RRDBConfig()
    steps: tuple[DepthOr0, ...] = (16, 16, 16)
    transition_steps: DepthOr0 = 2
    hidden: Width = 64
    stacked_blocks: tuple[DepthOr0, ...] = (1, 8, 15, 22)
    splits: tuple[Depth, ...] | None = None
    affine_eps: NotNegative = 1e-4
    scale_form: str = "sigmoid2"
    scale_clamp: Positive = 1.0
    shift_by_encoder: bool = False
    condition_on_estimate: bool = False
    conditional_prior: bool = False
    told_noise: GreyLevels = 0.0
    draw_noise: GreyLevels = 0.0
    injector: bool = True
    network: NetworkConfig | None = None
    temperature: NotNegative = 0.9
    official_extras: bool = False
    compute: Compute = Compute()

    def __post_init__(self) -> None:
        check_ranges(self)
        choice("scale_form", self.scale_form, ("sigmoid2", "tanh", "atan", "sigmoid"))
        most = self.encoder.num_upconvs + 1
        if not 1 <= self.levels <= most:
            raise ConfigError(
                f"steps = {self.steps} gives {self.levels} levels; scale {self.scale} allows "
                f"1 to {most} (the deepest works at half the LR size)"
            )
        if not (sum(self.steps) or self.transition_steps):
            raise ConfigError(f"steps = {self.steps} and transition_steps = 0 leave no flow step")
        if self.draw_noise > self.told_noise:
            raise ConfigError(
                f"draw_noise = {self.draw_noise:g} must be at most told_noise = {self.told_noise:g}"
            )
        for field in ("stacked_blocks", "splits"):
            values = getattr(self, field) or ()
            if len(set(values)) < len(values):
                raise ConfigError(f"{field} = {values} must be different numbers")
        bad = [b for b in self.stacked_blocks if b >= self.encoder.nb]
        if bad:
            raise ConfigError(
                f"stacked_blocks = {self.stacked_blocks} names block {bad[0]}, but the encoder has "
                f"nb = {self.encoder.nb} (0-based)"
            )
        if self.splits is not None and any(s >= self.levels for s in self.splits):
            raise ConfigError(f"splits = {self.splits} must name levels 1 to {self.levels - 1}")

    @property
    def scale(self) -> int:
        return self.encoder.scale

    @property
    def levels(self) -> int:
        """L."""
        return len(self.steps)

    @property
    def split_levels(self) -> tuple[int, ...]:
        """Levels (from 1) that end in a split."""
        return tuple(range(1, self.levels - 1)) if self.splits is None else self.splits

    @property
    def multiple(self) -> int:
        """LR sides must be multiples of this: 2^L / scale, at least 1."""
        return max(1, 2**self.levels // self.scale)

    def cond_channels(self, level: int) -> int:
        """Return the width of the conditioning of a level (from 1)."""
        width = self.encoder.nf * (1 + len(self.stacked_blocks))
        width += 3 * 4**level if self.condition_on_estimate else 0
        return width + (self.told_noise > 0)
