"""The studies: a config and what its variants change in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Study:
    """One ablation.

    Attributes:
      name: of its files.
      config: the config that it varies, a name in configs/.
      steps: default steps of the last phase.
      small: overrides of every variant, {dotted path: value}.
      variants: {name: overrides}.  One without overrides is run in OUT/base-SEED, which all
        studies of a folder share.
      paper: what the paper found, in words.
    """

    name: str
    config: str
    steps: int
    small: Mapping[str, Any]
    variants: Mapping[str, Mapping[str, Any]]
    paper: str


# Scanned steps compile faster than unrolled ones, which matters more in so short runs.
_SMALL = {
    "model.compute.unroll": False,
    "train.valid_crop": 64,
    "train.valid_draws": 1,
    "train.sheet_images": 0,
}
_GLOW = {**_SMALL, "model.levels": 2, "model.hidden": 32, "data.patch_size": 16}
_SRFLOW = {
    **_SMALL,
    "model.steps": (0, 2),
    "model.hidden": 32,
    "model.transition_steps": 1,
    # The paper's conditioning: features alone, and HR itself is modelled.
    "model.shift_by_encoder": False,
    "model.condition_on_estimate": False,
    "data.patch_size": 32,
    "train.phases.encoder.steps": 150,
}
_RECALLED = "(recalled; judged by pictures, PSNR, SSIM and LPIPS, not by bits/dim)"


def _srflow(name: str, variants: Mapping[str, Mapping[str, Any]], paper: str) -> Study:
    return Study(
        f"srflow_{name}", "srflow_quickstart", 150, _SRFLOW, variants, f"{paper} {_RECALLED}"
    )


_ALL = (
    Study(
        "glow_permutation",
        "glow_quickstart",
        400,
        _GLOW,
        {
            f"{permutation}_{coupling}": {
                "model.permutation": permutation,
                "model.coupling": coupling,
            }
            for coupling in ("additive", "affine")
            for permutation in ("reverse", "shuffle", "conv1x1")
        },
        "conv1x1 below shuffle and reverse with both couplings; affine converges faster than "
        "additive (Figure 3, curves only)",
    ),
    _srflow(
        "steps",
        {"K1": {"model.steps": (0, 1)}, "K2": {}, "K4": {"model.steps": (0, 4)}},
        "more flow steps are better",
    ),
    _srflow(
        "channels",
        {"hidden8": {"model.hidden": 8}, "hidden32": {}, "hidden64": {"model.hidden": 64}},
        "more channels are better",
    ),
    _srflow(
        "transition",
        {
            "transition0": {"model.transition_steps": 0},
            "transition1": {},
            "transition2": {"model.transition_steps": 2},
        },
        "transition steps are better than none",
    ),
    _srflow(
        "injector",
        {"injector": {}, "no_injector": {"model.injector": False}},
        "injectors are better than none",
    ),
)
STUDIES = {study.name: study for study in _ALL}
