"""What a model is: one parameter object, one family record, one registry.

`Params` is the pytree that every public function takes.  A `Family` is a frozen
record of pure functions.  The public verbs, the trainer, the command lines and
the tests loop over the records in the registry and know no family by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax

from flowsr_jax.models.inputs import check_lr
from flowsr_jax.registry import Registry

if TYPE_CHECKING:
    from flowsr_jax.models.importer import Importer


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

    def __init__(self, tree: Mapping[str, Any], config: Any) -> None:
        object.__setattr__(self, "tree", dict(tree))
        object.__setattr__(self, "config", config)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"Params is immutable; use replace({name}=...)")

    def __getitem__(self, group: str) -> Any:
        return self.tree[group]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tree)

    def __len__(self) -> int:
        return len(self.tree)

    def replace(self, **groups: Any) -> Params:
        """Return a copy with the named groups exchanged."""
        return Params({**self.tree, **groups}, self.config)

    def tree_flatten_with_keys(
        self,
    ) -> tuple[tuple[tuple[Any, Any], ...], tuple[tuple[str, ...], Any]]:
        keys = sorted(self.tree)
        children = tuple((jax.tree_util.DictKey(k), self.tree[k]) for k in keys)
        return children, (tuple(keys), self.config)

    @classmethod
    def tree_unflatten(cls, aux: tuple[tuple[str, ...], Any], children: Iterable[Any]) -> Params:
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


KINDS = ("super_resolution", "rescaling", "unconditional")


@dataclasses.dataclass(frozen=True)
class Family:
    """The record of one model family: pure functions and facts, nothing else.

    What a model can do is read from here.  A fact that depends on the hyper-parameters is a
    function of the config.

    Required:
      name: key of the registry and of `config.family`.
      config_class: frozen dataclass of hyper-parameters; its class attribute `family` is the
        name.
      init: (config, key) -> Params.
      losses: {name: loss}; each loss has the one signature
        (params, state, batch, key, **options) -> (scalar, (new_state, metrics)):
        batch is a dict of float32 arrays in [0,1]; metrics is a dict of scalars;
        options come from the phase's `loss_options`.
      sample: (params, lr, key, *, temperature, num_samples, **family options); with
        `noise_shapes` it also takes `noise=`, the list of standard-normal arrays
        [B,...] ([num_samples,B,...] with num_samples) used in place of draws from the
        key, which may then be None.

    Facts, with defaults of a 3-channel super-resolver:
      kind: (config) -> "super_resolution": `sample`, `encode` and `decode` take an LR image;
        "rescaling": `sample` takes an LR image that `downscale` made, `encode` and `decode`
        take none; "unconditional": nothing takes an LR image.
      scale: (config) -> HR sides divided by LR sides.
      channels, lr_channels: (config) -> channels of the images drawn, and of LR images.
      multiple: (config) -> int; LR sides must be multiples of it.
      image_shape: (config) -> shape of one image that an unconditional model draws.
      n_bits: (config) -> bits per value of the images that are modelled.
      classes: (config) -> number of classes that `label=` chooses from; 0 is none.
      stochastic: `sample` draws; if False its key is None and never used.
      default_temperature: (config) -> the temperature that None stands for, or None for a
        family whose noise has no scale of its own.
      likelihood: `encode` gives a log-likelihood (else None in its place).
      codec_groups: parameter groups of a rescaling model that make and restore LR images; none
        is all of them.
      repairs_jpeg: (config) -> a rescaling model restores LR images after JPEG too.

    Verbs and more (None when the family lacks the verb):
      module: (config) -> the model as a flax.linen module, whose parameters are the groups of
        `Params`.
      check_hr: (config, hr) -> None; raises for HR images that `encode` without an LR
        image cannot take.  Required for such a family if it has `encode`.
      encode, decode: exact latents and log-likelihood: (params, hr, lr) ->
        (latents, log_prob [B]), (params, latents, lr) -> hr; without lr unless the kind is
        "super_resolution".  They may take `label=` and other options.
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
        be made block by block).  None: the noise of a stochastic family cannot be given.
      predict_noise: (params, noisy, level, condition) -> eps; one call of a diffusion
        network.
      programs: (family, config, lr_shape, options) -> {name: Program}; what is exported.
        None is `programs.verb_programs`: the verbs above.
      weights: how official weights are read and written.
      notes: (config) -> lines that a training run says at its beginning.
    """

    name: str
    config_class: type
    init: Callable
    losses: Mapping[str, Callable]
    sample: Callable

    kind: Callable[[Any], str] = lambda config: "super_resolution"
    scale: Callable[[Any], int] = lambda config: config.scale
    channels: Callable[[Any], int] = lambda config: 3
    lr_channels: Callable[[Any], int] = lambda config: 3
    multiple: Callable[[Any], int] = lambda config: 1
    image_shape: Callable[[Any], tuple[int, ...]] | None = None
    n_bits: Callable[[Any], int] = lambda config: 8
    classes: Callable[[Any], int] = lambda config: 0
    stochastic: bool = True
    default_temperature: Callable[[Any], float | None] = lambda config: None
    likelihood: bool = True
    codec_groups: tuple[str, ...] = ()
    repairs_jpeg: Callable[[Any], bool] = lambda config: False

    module: Callable[[Any], Any] | None = None
    check_hr: Callable | None = None
    encode: Callable | None = None
    decode: Callable | None = None
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
    programs: Callable | None = None
    weights: Importer | None = None
    notes: Callable = lambda config: ()

    VERBS = (
        "sample",
        "encode",
        "decode",
        "downscale",
        "upscale",
        "check_invertibility",
        "predict_noise",
    )

    def check_lr(self, config: Any, lr: Any) -> None:
        """Check an LR batch [B,h,w,C] before any compilation; None for unconditional models.

        Raises:
          TypeError, ValueError: an input that the model cannot take.
        """
        if self.kind(config) == "unconditional":
            if lr is not None:
                raise ValueError(
                    f"{self.name} draws images from nothing: pass None for lr, and shape= or "
                    "num_samples="
                )
            return
        if lr is None:
            raise ValueError(
                f"{self.name} draws HR images of LR images: lr must be "
                f"[B,h,w,{self.lr_channels(config)}], got None"
            )
        check_lr(lr, self.lr_channels(config), self.multiple(config))


FAMILIES: Registry[Family] = Registry("model family")


def register_family(name: str, family: Family | str) -> None:
    """Add a family: its record, or "module:attribute" of the record, imported on first use.

    Raises:
      ValueError: the name is taken.
    """
    FAMILIES.register(name, family)


def families() -> tuple[str, ...]:
    """Return the names of all known families."""
    return FAMILIES.names()


def get_family(name: str) -> Family:
    """Return the record of a family.

    Raises:
      ValueError: an unknown name; the message lists the known ones.
    """
    return FAMILIES.get(name)


def family_of(params: Params) -> Family:
    """Return the family record that a parameter object belongs to."""
    if not isinstance(params, Params):
        raise TypeError(
            "params must be a flowsr_jax Params (from load, from_torch or init), "
            f"got {type(params).__name__}"
        )
    return get_family(params.config.family)


def kind_of(params: Params) -> str:
    """Return the kind of a model; see `Family.kind`."""
    return family_of(params).kind(params.config)


def scale_of(params: Params) -> int:
    """Return HR sides divided by LR sides."""
    return family_of(params).scale(params.config)


def module(params: Params) -> tuple[Any, dict[str, Any]]:
    """Return (module, variables): the model as a flax.linen module, and what its `apply` takes.

    `variables` is {"params": the groups of `params`}.  The methods are the module's own, for
    instance `module.apply(variables, hr, lr, method="encode")`.

    Raises:
      ValueError: the family has no module.
    """
    return verb(params, "module")(params.config), {"params": dict(params.tree)}


def verb(params: Params, name: str) -> Callable:
    """Return a family's function for a verb, or raise one error listing its verbs."""
    family = family_of(params)
    function = getattr(family, name)
    if function is None:
        have = [v for v in Family.VERBS if getattr(family, v) is not None]
        raise ValueError(f"family {family.name!r} has no {name!r}; it has: {', '.join(have)}")
    return function
