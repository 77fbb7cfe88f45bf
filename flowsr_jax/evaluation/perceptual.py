"""LPIPS and DISTS where their weights are at hand; a line saying so where they are not."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

from flowsr_jax.evaluation.pairs import EvaluationError
from flowsr_jax.evaluation.protocols import Protocol


@dataclasses.dataclass(frozen=True)
class Perceptual:
    """The learned metrics of a run; None is one without weights.

    Attributes:
      lpips: (a, b) -> distance of two uint8 [H,W,3] images.
      lpips_map: (a, b) -> float32 [H,W].
      lpips_pairs: (images [N,H,W,3]) -> mean distance over all pairs of them.
      dists: (a, b) -> distance.
      notes: lines to print: what is measured with which weights, and what is not.
    """

    lpips: Callable[..., float] | None = None
    lpips_map: Callable[..., np.ndarray] | None = None
    lpips_pairs: Callable[..., float] | None = None
    dists: Callable[..., float] | None = None
    notes: tuple[str, ...] = ()


def load_perceptual(
    lpips: Sequence[str] | None, dists: Sequence[str] | None, protocol: Protocol
) -> Perceptual:
    """Read the weights.

    Args:
      lpips: files for `load_lpips_weights`; empty or None looks among the installed ones.
      dists: files for `load_dists_weights`: alpha and beta, then any of the backbone;
        None leaves DISTS out.
      protocol: says which LPIPS.

    Raises:
      EvaluationError: weights that were asked for (not None) cannot be read.
    """
    from flowsr_jax import metrics

    net = protocol.lpips_net
    found, notes = Perceptual(), []
    try:
        weights = metrics.load_lpips_weights(list(lpips) if lpips else None, net=net)
    except (ValueError, OSError) as error:
        if lpips is not None:
            raise EvaluationError(f"LPIPS: {error}") from None
        notes.append(f"lpips is not measured: {error}")
    else:
        measure = functools.partial(metrics.lpips, weights, net=net)
        maps = functools.partial(measure, spatial=True)
        pairs = functools.partial(metrics.pairwise_lpips, weights, net=net)
        found = dataclasses.replace(found, lpips=measure, lpips_map=maps, lpips_pairs=pairs)
        how = "mean of the spatial map" if protocol.lpips_spatial else "scalar"
        notes.append(f"lpips: version 0.1, {net}, {how}")
    if dists is not None:
        try:
            if not dists:
                raise EvaluationError("the file with alpha and beta must be named")
            weights = metrics.load_dists_weights(dists[0], list(dists[1:]) or None)
        except (ValueError, OSError) as error:
            raise EvaluationError(f"DISTS: {error}") from None
        found = dataclasses.replace(found, dists=functools.partial(metrics.dists, weights))
        notes.append("dists: images are not shrunk to 256 first")
    return dataclasses.replace(found, notes=tuple(notes))
