"""What a model is: one parameter object, one family record, one registry.

`Params` is the pytree that every public function takes.  A `Family` is a frozen
record of pure functions.  The public verbs, the trainer, the command lines and
the tests loop over the records in the registry and know no family by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from flowsr_jax.config import nearest


@jax.tree_util.register_pytree_with_keys_class
class Params(Mapping):
    """Model parameters: a nested dict of arrays and the frozen model config.

    A pytree: jax.tree.map, grad, jit, vmap, optax and device_put see the arrays;
    the config is static metadata (part of the tree structure, never traced).
    Reads like a dict: `params["encoder"]`, `for group in params`.

    Attributes:
      tree: {group: nested dict of arrays}; the top-level keys are the parameter
        groups that can be trained with different optimisers.
      config: the frozen dataclass of the family's hyper-parameters; its class
        attribute `family` names the family.
    """

    __slots__ = ("tree", "config")

    def __init__(self, tree: Mapping[str, Any], config: Any):
        object.__setattr__(self, "tree", dict(tree))
        object.__setattr__(self, "config", config)

    def __setattr__(self, name, value):
        raise AttributeError(f"Params is immutable; use replace({name}=...)")

    def __getitem__(self, group: str):
        return self.tree[group]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tree)

    def __len__(self) -> int:
        return len(self.tree)

    def replace(self, **groups) -> Params:
        """Return a copy with the named groups exchanged."""
        return Params({**self.tree, **groups}, self.config)

    def tree_flatten_with_keys(self):
        keys = sorted(self.tree)
        children = tuple((jax.tree_util.DictKey(k), self.tree[k]) for k in keys)
        return children, (tuple(keys), self.config)

    @classmethod
    def tree_unflatten(cls, aux, children):
        keys, config = aux
        return cls(dict(zip(keys, children, strict=True)), config)

    def __repr__(self) -> str:
        count = sum(getattr(leaf, "size", 0) for leaf in jax.tree.leaves(self.tree))
        return f"Params(family={self.config.family!r}, parameters={count:,}, config={self.config})"


@dataclasses.dataclass(frozen=True)
class View:
    """One column of a validation table and picture sheet.

    Attributes:
      name: column title, e.g. "T=0.8".
      sample: pure jittable function (params, lr, key) -> image [B,H,W,3].
      stochastic: several draws differ (so diversity is measured).
    """

    name: str
    sample: Callable[..., jax.Array]
    stochastic: bool = False


@dataclasses.dataclass(frozen=True)
class Family:
    """The record of one model family: pure functions, nothing else.

    Required:
      name: key of the registry and of `config.family`.
      config_class: frozen dataclass of hyper-parameters.
      init: (config, key) -> Params.
      losses: {name: loss}; each loss has the one signature
        (params, state, batch, key, **options) -> (scalar, (new_state, metrics)):
        batch is a dict of float32 arrays in [0,1]; metrics is a dict of scalars;
        options come from the phase's `loss_options`.
      check_lr: (config, lr) -> None; raises ValueError for an input that the
        model cannot take (before any compilation).
      sample: (params, lr, key, *, temperature, num_samples, **family options); with
        `noise_shapes` it also takes `noise=`, the list of standard-normal arrays
        [B,...] ([num_samples,B,...] with num_samples) used in place of draws from the
        key, which may then be None.

    Optional (None when the family lacks the verb):
      check_hr: (config, hr) -> None; raises for HR images that the model cannot take.
        Families that have it need no LR: their `encode` and `decode` take none.
      encode, decode: exact latents and log-likelihood: (params, hr, lr) ->
        (latents, log_prob [B]), (params, latents, lr) -> hr; without lr where there is
        `check_hr`.  They may take `label=` and other options.
      likelihood: `encode` gives a log-likelihood (else None in its place).
      bits_per_dim: (params, hr, key, **options) -> [B]; where it is not that of 8-bit images.
      downscale, upscale: of a rescaling model, which makes its own LR images:
        (params, hr, *, quantize) -> lr, (params, lr, key, **options) -> hr.
      init_from_data: (params, batch, key, **loss_options) -> Params; the
        data-dependent initialisation (ActNorm), run once before a phase.
      init_state: (config) -> dict of arrays carried beside the weights; its entry
        "statistics", if the parameters have that group, is the group's current value.
      views: (config, loss_name) -> tuple[View, ...] for validation.
      check_invertibility: (params, lr, key) -> report.
      latent_shapes: (config, lr_shape) -> shapes of encode's latents.
      noise_shapes: (config, lr_shape, **sample's options) -> shapes [B,H,W,C] of the
        noise that `sample` draws; H and W proportional to the LR's (so that noise can
        be made block by block).  None: `sample` is deterministic.
      predict_noise: (params, noisy, level, condition) -> eps; one call of a diffusion
        network.
      recognise_torch: (state dict) -> bool: these keys belong to this family.
      from_torch: (state dict, **overrides) -> Params.
      group_files: {group: (state dict) -> its parameters}: groups that have an official
        weight file of their own (a phase's `init_files`).
      notes: (config) -> lines that a training run says at its beginning.
      multiple: (config) -> int; LR sides must be multiples of it.
    """

    name: str
    config_class: type
    init: Callable
    losses: Mapping[str, Callable]
    check_lr: Callable
    sample: Callable
    check_hr: Callable | None = None
    encode: Callable | None = None
    decode: Callable | None = None
    likelihood: bool = True
    bits_per_dim: Callable | None = None
    downscale: Callable | None = None
    upscale: Callable | None = None
    init_from_data: Callable | None = None
    init_state: Callable = lambda config: {}
    views: Callable = lambda config, loss: ()
    check_invertibility: Callable | None = None
    latent_shapes: Callable | None = None
    noise_shapes: Callable | None = None
    predict_noise: Callable | None = None
    recognise_torch: Callable | None = None
    from_torch: Callable | None = None
    group_files: Mapping[str, Callable] = dataclasses.field(default_factory=dict)
    notes: Callable = lambda config: ()
    multiple: Callable = lambda config: 1

    VERBS = (
        "sample",
        "encode",
        "decode",
        "downscale",
        "upscale",
        "check_invertibility",
        "predict_noise",
    )


_REGISTRY: dict[str, Callable[[], Family]] = {}


def register(name: str, load: Callable[[], Family]) -> None:
    """Add a family; `load` imports and returns its record on first use."""
    _REGISTRY[name] = load


def families() -> tuple[str, ...]:
    """Names of all known families."""
    return tuple(sorted(_REGISTRY))


def get_family(name: str) -> Family:
    """Return the record of a family.

    Raises:
      ValueError: unknown name; the message lists the known ones.
    """
    if name not in _REGISTRY:
        known = ", ".join(families())
        raise ValueError(
            f"unknown model family {name!r}{nearest(name, _REGISTRY)} (known: {known})"
        )
    return _REGISTRY[name]()


def family_of(params: Params) -> Family:
    """Return the family record that a parameter object belongs to."""
    if not isinstance(params, Params):
        raise TypeError(
            "params must be a flowsr_jax Params (from load, from_torch or init), "
            f"got {type(params).__name__}"
        )
    return get_family(params.config.family)


def draws_alone(params: Params) -> bool:
    """Whether the model draws images from nothing: `check_lr` lets None pass."""
    try:
        family_of(params).check_lr(params.config, None)
    except (TypeError, ValueError):
        return False
    return True


def verb(params: Params, name: str) -> Callable:
    """Return a family's function for a verb, or raise one error listing its verbs."""
    family = family_of(params)
    function = getattr(family, name)
    if function is None:
        have = [v for v in Family.VERBS if getattr(family, v, None) is not None]
        raise ValueError(f"family {family.name!r} has no {name!r}; it has: {', '.join(have)}")
    return function
