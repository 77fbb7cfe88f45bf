"""With jax_enable_x64 all verbs work and return the documented float32.

Tracing is enough: what would be float64 shows in the shapes.
"""

from __future__ import annotations

import functools

import frozen_cases
import jax
import jax.numpy as jnp
import pytest

from flowsr_jax.models import get_family

CASES = ("rrdb", "srflow", "srflow_ours", "sr3", "ddpm", "irn", "glow_classes", "realnvp", "nice")


@pytest.mark.parametrize("case", CASES)
def test_verbs_return_float32(case):
    programs = frozen_cases.verbs(case)
    with jax.enable_x64(True):
        for program, (function, *args) in programs.items():
            if program in ("sample", "encode"):
                assert_float32(program, jax.eval_shape(function, *args))
        family = get_family(frozen_cases.CASES[case][0])
        if "encode" in programs and frozen_cases.CASES[case][0] != "irn":
            encode, params, *images = programs["encode"]
            latents = jax.eval_shape(encode, params, *images)[0]
            options = getattr(encode, "keywords", {})
            decode = functools.partial(family.decode, **options)
            assert_float32("decode", jax.eval_shape(decode, params, latents, *images[1:]))


def assert_float32(program, shapes):
    found = {x.dtype for x in jax.tree.leaves(shapes) if jnp.issubdtype(x.dtype, jnp.floating)}
    assert found == {jnp.dtype("float32")}, f"{program}: {found}"
