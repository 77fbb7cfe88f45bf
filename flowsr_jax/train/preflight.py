"""What a run will need, looked at before its first step: data, options, groups, files, programs.

All phases are checked, so that a mistake in the second is not told after days of the first.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from flowsr_jax import memory
from flowsr_jax.config import ConfigError, nearest
from flowsr_jax.models.base import Family, Params
from flowsr_jax.train.begin import take_over
from flowsr_jax.train.config import Config, PhaseConfig
from flowsr_jax.train.state import create, trained_groups
from flowsr_jax.train.step import make_step, to_float

Batch = dict[str, jax.ShapeDtypeStruct]


def check_run(
    config: Config, family: Family, mesh: Mesh, source: Any, pairs: Sequence[Any], begun: int = -1
) -> None:
    """Raise ConfigError for what would end a run later; nothing is compiled.

    The program of the phase that runs next is not traced here, since it is traced at once.

    Args:
      config: the run's configuration.
      family: of its model.
      mesh: its devices.
      source: its training images.
      pairs: its validation pairs.
      begun: index of the phase under way, -1 before the first; earlier ones are over.

    Raises:
      ConfigError: one line that names the field, or the image, and what is right.
    """
    _check_data(config, family, source)
    params = jax.eval_shape(functools.partial(family.init, config.model), _key())
    _check_pairs(config, family, params, pairs)
    for index, phase in enumerate(config.train.phases):
        if index < begun:
            continue
        trained_groups(phase, params)
        for name, options in phase.losses().items():
            where = f"train.phases[{index}] ({phase.name!r}): loss_options"
            _check_options(where, f"the loss {name!r}", family.losses[name], options)
        if phase.init_from_data:
            where = f"train.phases[{index}] ({phase.name!r}): loss_options"
            _check_options(where, "init_from_data", family.init_from_data, phase.loss_options)
        if index > begun and (phase.init_from or phase.init_files):
            take_over(params, phase)
        if index > max(begun, 0):
            _trace(config, family, mesh, phase, batch_shapes(config, source))


@contextlib.contextmanager
def explained(config: Config, phase: PhaseConfig) -> Iterator[None]:
    """Turn an error of tracing into a ConfigError that names the phase, the data and the model.

    Raises:
      ConfigError: a TypeError or ValueError in the block.
    """
    try:
        yield
    except ConfigError as error:
        text = str(error)
        raise ConfigError(text if "phase" in text else f"phase {phase.name!r}: {text}") from None
    except (TypeError, ValueError) as error:
        if type(error) not in (TypeError, ValueError):
            raise  # a file's
        data = config.data
        raise ConfigError(
            f"phase {phase.name!r} cannot run with data.scale = {data.scale}, data.channels = "
            f"{data.channels}, data.patch_size = {data.patch_size}, its loss_options and this "
            f"model: {' '.join(str(error).split())}{_hint(error)}"
        ) from error


def batch_shapes(config: Config, source: Any) -> Batch:
    """Return the shapes and dtypes of the global batches of a run."""
    data, count = config.data, config.train.batch_size
    lr = np.float32 if data.float_lr else np.uint8

    def images(side: int, dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((count, side, side, data.channels), dtype)

    batch = {
        "hr": images(data.patch_size, np.uint8),
        "lr": images(data.patch_size // data.scale, lr),
    }
    if "label" in source.fields:
        batch["label"] = jax.ShapeDtypeStruct((count,), np.int32)
    return batch


def _check_data(config: Config, family: Family, source: Any) -> None:
    model, data = config.model, config.data
    scale = family.scale(model)
    if scale != data.scale:
        raise ConfigError(
            f"data.scale = {data.scale}, but the model's scale is {scale}: set data.scale = "
            f"{scale}, or the model's (model.scale, of SRFlow model.encoder.scale)"
        )
    if (classes := family.classes(model)) and "label" not in source.fields:
        raise ConfigError(
            f"model.classes = {classes}, but data.source = {data.source!r} has no labels "
            "('digits' and some sets of 'tfds' have): set model.classes = 0, or another source"
        )
    shapes = batch_shapes(config, source)
    size = math.prod(shapes["hr"].shape) // jax.process_count()
    memory.require("train.batch_size", config.train.batch_size, size, host=True)
    if family.check_hr:
        _check_image(
            f"data.patch_size = {data.patch_size}, data.channels = {data.channels}",
            functools.partial(family.check_hr, model), shapes["hr"],
        )  # fmt: skip
    elif family.kind(model) == "super_resolution":
        _check_image(
            f"data.patch_size = {data.patch_size} at scale {data.scale}",
            functools.partial(family.check_lr, model), shapes["lr"],
        )  # fmt: skip


def _check_pairs(config: Config, family: Family, params: Params, pairs: Sequence[Any]) -> None:
    """Check every validation image, and what the model makes of the first one."""
    kind, shapes = family.kind(config.model), set()
    for pair in pairs:
        hr, lr = (jax.ShapeDtypeStruct((1, *pair[k].shape), np.float32) for k in ("hr", "lr"))
        where = f"validation image {pair['name']!r}"
        if family.check_hr:
            _check_image(where, functools.partial(family.check_hr, config.model), hr)
        if kind == "rescaling":
            lr = jax.eval_shape(functools.partial(family.downscale, quantize=False), params, hr)
        elif kind == "super_resolution":
            _check_image(where, functools.partial(family.check_lr, config.model), lr)
        shapes.add((hr.shape, lr.shape))
    if kind == "unconditional" or not shapes:
        return
    wanted, given = min(shapes)
    lr = jax.ShapeDtypeStruct(given, np.float32)
    for phase in {phase.loss: phase for phase in config.train.phases}.values():
        for view in family.views(config.model, phase.loss):
            with explained(config, phase):
                image = jax.eval_shape(view.sample, params, lr, _key())
            if image.shape != wanted:
                raise ConfigError(
                    f"the model makes images {image.shape[1:]} of {given[1:]}, the data have "
                    f"{wanted[1:]}: other channels or another scale"
                )


def _check_image(where: str, check: Callable[[Any], None], image: Any) -> None:
    try:
        jax.eval_shape(lambda x: check(x), jax.ShapeDtypeStruct(image.shape, np.float32))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: the model takes no such images: {error}") from None


def _check_options(where: str, what: str, function: Callable, options: Mapping[str, Any]) -> None:
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return  # handed on to another function, which tracing will ask
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    for name in options:
        if name not in known:
            listed = f"options: {', '.join(known)}" if known else "it has none"
            raise ConfigError(
                f"{where}.{name} is no option of {what}{nearest(name, known)} ({listed})"
            )


def _trace(config: Config, family: Family, mesh: Mesh, phase: PhaseConfig, batch: Batch) -> None:
    def begin(key):
        return create(
            family.init(config.model, key), family.init_state(config.model), phase, config.train
        )

    with explained(config, phase):
        state = jax.eval_shape(begin, _key())
        if phase.init_from_data:
            init = functools.partial(family.init_from_data, **phase.loss_options)
            jax.eval_shape(lambda p, b, k: init(p, to_float(b), k), state.params, batch, _key())
        jax.eval_shape(make_step(family, phase, config.train, mesh), state, batch, _key())


def _hint(error: BaseException) -> str:
    """Return the nearest right option, where a function was called with one that it lacks."""
    found = re.search(r"(\w+)\(\) got an unexpected keyword argument '(\w+)'", str(error))
    known: set[str] = set()
    trace = error.__traceback__ if found else None
    while trace:  # the functions that handed the options on, and the one that they called
        frame, trace = trace.tb_frame, trace.tb_next
        for name in (frame.f_code.co_name, found[1]):
            if inspect.isfunction(function := frame.f_globals.get(name)):
                known |= set(inspect.signature(function).parameters)
    return nearest(found[2], sorted(known)) if known else ""


def _key() -> Any:
    return jax.eval_shape(jax.random.key, 0)
