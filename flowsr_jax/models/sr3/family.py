"""SR3's validation views and family record."""

from __future__ import annotations

import functools

import jax

from flowsr_jax.models.base import Family, View
from flowsr_jax.models.sr3 import torch_map
from flowsr_jax.models.sr3.arguments import check_lr
from flowsr_jax.models.sr3.config import SR3Config
from flowsr_jax.models.sr3.losses import eps_loss
from flowsr_jax.models.sr3.model import init, predict_noise
from flowsr_jax.models.sr3.sampling import sample


def noise_shapes(config: SR3Config, lr_shape, **options):
    """Shapes of `sample`'s `noise`: the start of the chain, [B,s*h,s*w,C]."""
    del options
    b, h, w, _ = lr_shape
    return [(b, config.scale * h, config.scale * w, config.unet.image_channels)]


def views(config: SR3Config, loss: str) -> tuple[View, ...]:
    """DPM-Solver++(2M) with noise in 20 steps, and an ancestral chain of at most 100."""
    del loss
    few, more = min(20, config.schedule.steps), min(100, config.schedule.steps)
    return (
        View(f"2M, {few} steps", _view("dpmpp2m", few, eta=1.0), stochastic=True),
        View(f"ancestral, {more} steps", _view("ancestral", more), stochastic=True),
    )


def _view(sampler: str, steps: int, **options):
    return functools.partial(_draw_view, sampler=sampler, steps=steps, **options)


def _draw_view(params, lr, key, **options):
    classes = params.config.classes
    if classes:  # validation does not say which
        label = jax.random.randint(jax.random.fold_in(key, 4), lr.shape[:1], 0, classes)
        options["label"] = label
    return sample(params, lr, key, **options)


FAMILY = Family(
    name="sr3",
    config_class=SR3Config,
    init=init,
    losses={"eps": eps_loss},
    check_lr=check_lr,
    sample=sample,
    views=views,
    noise_shapes=noise_shapes,
    predict_noise=predict_noise,
    recognise_torch=torch_map.from_torch.recognise,
    from_torch=torch_map.from_torch,
)
