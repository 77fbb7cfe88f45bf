"""The invariants of a bijector, as assertions: for tests of your own bijectors and flows.

    from flowsr_jax.testing import check_bijector

    def test_my_bijector():
        check_bijector(MyBijector(), shape=(2, 3, 4))

docs/bijectors.md says more.  tests/test_bijectors.py runs the same on every bijector of the
library.  Needs no test framework; every failure is an AssertionError that names the invariant.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flowsr_jax.bijectors import Bijector
from flowsr_jax.bijectors.invertibility import elementary_layers
from flowsr_jax.math.gaussian import sum_event
from flowsr_jax.types import Array, PyTree, Shape


def check_bijector(
    bijector: Bijector,
    shape: tuple[int, ...],
    *,
    cond: Any = None,
    params: Any = None,
    x: Any = None,
    bad_shape: tuple[int, ...] | None = None,
) -> None:
    """Assert every invariant on a batch of two; seconds for a small input.

    Round trip, logdet against the autodiff Jacobian in both directions, jit and `prepare`
    against the plain calls, finite gradients, independence of the examples of a batch,
    `init_from_data` and `forward_train`, `output_shape`, `parts` and `scales`, and a rejected
    shape.

    Args:
      bijector: forward may give one array or a pytree of them, as a multi-scale flow does.
      shape: of one example, small: the Jacobian has its size squared.
      cond: pytree of arrays [2, ...], or None.
      params: None takes those of `init`, moved away from their start (`moved`), where an
        identity would hide mistakes.
      x: float32 [2, *shape]; None draws standard normal values.
      bad_shape: of one example that the bijector must reject with a ValueError.

    Raises:
      AssertionError: the first invariant that does not hold.
    """
    checks = Invariants(bijector, shape, cond=cond, params=params, x=x)
    checks.round_trip()
    checks.jacobian()
    checks.jit_and_prepare()
    checks.gradients()
    checks.independence()
    checks.data_init()
    checks.announced_shape()
    checks.layers()
    if bad_shape is not None:
        checks.rejects(bad_shape)


def moved(params: Any, fixed: tuple[str, ...] = ("p", "sign_s")) -> Any:
    """Return `params` with noise of deviation 0.1 on every float leaf, always the same.

    Args:
      params: nested dicts of arrays.
      fixed: names of leaves that stay (those that a bijector never trains).
    """
    rng = np.random.default_rng(1)

    def move(path: tuple[Any, ...], leaf: Array) -> Array:
        noise = 0.1 * rng.standard_normal(leaf.shape, np.float32)
        keep = leaf.dtype != jnp.float32 or path[-1].key in fixed
        return leaf if keep else jnp.asarray(leaf + noise)

    return jax.tree_util.tree_map_with_path(move, params)


class Invariants:
    """One bijector with parameters, a batch of two and cond; each method asserts one invariant.

    Arguments as of `check_bijector`.  Programs are compiled once for all methods.
    """

    def __init__(
        self,
        bijector: Bijector,
        shape: Shape,
        *,
        cond: PyTree = None,
        params: PyTree = None,
        x: PyTree = None,
    ) -> None:
        if x is None:
            x = np.random.default_rng(2).standard_normal((2, *shape), np.float32)
        self.bijector, self.cond, self.x = bijector, cond, jnp.asarray(x)
        self.params = moved(bijector.init(jax.random.key(7), shape)) if params is None else params

    @functools.cached_property
    def _programs(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        return jax.jit(self.bijector.forward), jax.jit(self.bijector.inverse)

    def forward(self, *args: Any) -> tuple[Any, Array]:
        """Return the bijector's forward, under jit."""
        return self._programs[0](*args)

    def inverse(self, *args: Any) -> tuple[Any, Array]:
        """Return the bijector's inverse, under jit."""
        return self._programs[1](*args)

    @functools.cached_property
    def _output(self) -> tuple[Any, Array]:
        return self.forward(self.params, self.x, self.cond)

    def round_trip(self) -> None:
        """Assert that inverse(forward(x)) is x, and that the logdets cancel and are float32 [B]."""
        y, logdet = self._output
        back, inverse_logdet = self.inverse(self.params, y, self.cond)
        np.testing.assert_allclose(back, self.x, atol=2e-5, err_msg="round trip")
        total = logdet + inverse_logdet
        np.testing.assert_allclose(total, 0.0, atol=2e-4, err_msg="sum of the logdets")
        for name, found in (("forward", logdet), ("inverse", inverse_logdet)):
            kind = f"logdet of {name}: {found.dtype}{list(found.shape)}, not float32[2]"
            assert found.shape == (2,) and found.dtype == jnp.float32, kind

    def jacobian(self) -> None:
        """Assert that logdet is log|det| of the autodiff Jacobian, in both directions."""
        y, logdet = self._output
        logdets = {"forward": logdet, "inverse": self.inverse(self.params, y, self.cond)[1]}

        @jax.jit
        @jax.vmap
        def jacobians(x: PyTree, y: PyTree, cond: PyTree) -> dict[str, Array]:
            """Return the Jacobians of one example, taken as a batch of one."""
            one = jax.tree.map(lambda c: c[None], cond)

            def of(method: Callable[..., Any], at: PyTree) -> Array:
                at = jax.tree.map(lambda leaf: leaf[None], at)

                def run(flat: Array) -> Array:
                    return flatten(method(self.params, unflatten(flat[None], at), one)[0])[0]

                return jax.jacrev(run)(flatten(at)[0])

            return {
                "forward": of(self.bijector.forward, x),
                "inverse": of(self.bijector.inverse, y),
            }

        for direction, found in jacobians(self.x, y, self.cond).items():
            expected = np.linalg.slogdet(np.asarray(found, np.float64))[1]
            limit = 2e-4 * max(1.0, np.abs(expected).max())
            name = f"logdet of {direction} against its Jacobian"
            np.testing.assert_allclose(logdets[direction], expected, atol=limit, err_msg=name)

    def jit_and_prepare(self) -> None:
        """Assert that jit changes nothing, nor does handing over what `prepare` gives."""
        b, params, x, cond = self.bijector, self.params, self.x, self.cond

        @jax.jit
        def prepared(params: PyTree, x: PyTree, y: PyTree, cond: PyTree) -> PyTree:
            ready = b.prepare(params, cond), b.prepare(params, cond, inverse=True)
            return b.forward(params, x, cond, ready[0]), b.inverse(params, y, cond, ready[1])

        plain = b.forward(params, x, cond)
        back = b.inverse(params, plain[0], cond)
        jitted = self.forward(params, x, cond), self.inverse(params, plain[0], cond)
        others = {"jit": jitted, "prepare": prepared(params, x, plain[0], cond)}
        for name, other in others.items():
            for a, c in zip(jax.tree.leaves((plain, back)), jax.tree.leaves(other), strict=True):
                np.testing.assert_allclose(a, c, atol=1e-5, rtol=1e-5, err_msg=name)

    def gradients(self) -> None:
        """Assert that gradients by x and by the float parameters are finite."""
        floats = jax.tree.map(lambda p: p.dtype == jnp.float32, self.params)

        def loss(trained: PyTree, x: PyTree) -> Array:
            merged = jax.tree.map(lambda f, t, p: t if f else p, floats, trained, self.params)
            y, logdet = self.bijector.forward(merged, x, self.cond)
            return jnp.sum(jnp.square(flatten(y))) - jnp.sum(logdet)

        trained = jax.tree.map(lambda f, p: p if f else jnp.zeros(()), floats, self.params)
        grads = jax.jit(jax.grad(loss, (0, 1)))(trained, self.x)
        finite = all(bool(jnp.all(jnp.isfinite(g))) for g in jax.tree.leaves(grads))
        assert finite, "gradients are not finite"

    def independence(self) -> None:
        """Assert that an example alone gives what it gives in a batch."""
        y, logdet = self._output
        cond = jax.tree.map(lambda c: c[:1], self.cond)
        y1, logdet1 = self.forward(self.params, self.x[:1], cond)
        assert logdet1.shape == (1,), f"logdet of a batch of one: {logdet1.shape}"
        np.testing.assert_allclose(logdet1[0], logdet[0], atol=1e-4, err_msg="batch of one")
        np.testing.assert_allclose(flatten(y1)[0], flatten(y)[0], atol=1e-5, err_msg="batch of one")

    def data_init(self) -> None:
        """Assert that what learns from a batch keeps the structure, and gives a pass with it."""
        b, y = self.bijector, self._output[0]

        @jax.jit
        def learn(params: PyTree, x: PyTree, y: PyTree, cond: PyTree) -> dict[str, Any]:
            return {
                "init_from_data": (b.init_from_data(params, x, cond), False),
                "forward_train": (b.forward_train(params, x, cond), False),
                "init_from_data of the inverse": (b.init_from_data(params, y, cond, True), True),
            }

        for name, ((new, out, logdet), inverse) in learn(self.params, self.x, y, self.cond).items():
            kept = jax.tree.structure(new) == jax.tree.structure(self.params)
            assert kept, f"{name} changes the structure of the parameters"
            run, given = (self.inverse, y) if inverse else (self.forward, self.x)
            again, logdet_again = run(new, given, self.cond)
            np.testing.assert_allclose(flatten(again), flatten(out), atol=1e-4, err_msg=name)
            np.testing.assert_allclose(logdet, logdet_again, atol=1e-3, err_msg=name)

    def layers(self) -> None:
        """Assert that `parts` in a row are forward, and that `scales` multiply to its volume."""

        @jax.jit
        def walk(params: PyTree, x: PyTree, cond: PyTree) -> tuple[list[Array], Array]:
            latents, logdet = [], jnp.zeros(len(x))
            for _, layer, p, c in elementary_layers(self.bijector, params, cond):
                scales = layer.scales(p, x, c)
                logdet = logdet + (0.0 if scales is None else sum_event(jnp.log(scales)))
                x, _ = layer.forward(p, x, c)
                if layer.diverts:
                    x, latent = x
                    latents.append(latent)
            return [*latents, x], logdet

        y, logdet = self._output
        found, volume = walk(self.params, self.x, self.cond)
        if self.bijector.diverts:
            y = y[::-1]  # (rest, latent): a flow lists the rest last
        np.testing.assert_allclose(flatten(found), flatten(y), atol=1e-5, err_msg="parts")
        limit = 2e-4 * max(1.0, float(jnp.max(jnp.abs(logdet))))
        message = "scales: their logarithms do not sum to the logdet"
        np.testing.assert_allclose(volume, logdet, atol=limit, err_msg=message)

    def announced_shape(self) -> None:
        """Assert that output_shape is the shape of forward's output."""
        found = [y.shape[1:] for y in jax.tree.leaves(self._output[0])]
        said = self.bijector.output_shape(self.x.shape[1:])
        said = [said] if isinstance(said[0], int) else list(said)
        assert found == [tuple(s) for s in said], f"output_shape is {said}, the output {found}"

    def rejects(self, bad_shape: Shape) -> None:
        """Assert that forward of examples of `bad_shape` raises a ValueError with a number."""
        try:
            self.bijector.forward(self.params, jnp.zeros((2, *bad_shape)), self.cond)
        except ValueError as error:
            assert any(c.isdigit() for c in str(error)), f"no number in the message: {error}"
        else:
            raise AssertionError(f"shape {bad_shape} is not rejected")


def flatten(tree: PyTree) -> Array:
    """Return a pytree of [B, ...] arrays as [B, D]."""
    return jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(tree)], 1)


def unflatten(flat: Array, tree: PyTree) -> PyTree:
    """Undo `flatten`: [B, D] to arrays of the shapes of `tree`."""
    leaves, structure = jax.tree.flatten(tree)
    ends = np.cumsum([leaf[0].size for leaf in leaves])[:-1]
    parts = jnp.split(flat, ends, axis=1)
    return jax.tree.unflatten(
        structure, [p.reshape(-1, *leaf.shape[1:]) for p, leaf in zip(parts, leaves, strict=True)]
    )
