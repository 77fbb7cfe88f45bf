"""Ahead-of-time compiling: FLOPs by hand, collectives of texts and programs, and a TPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from flowsr_jax.aot import chips, estimate, hlo, plan, report
from flowsr_jax.aot.collectives import collectives
from flowsr_jax.aot.flops import Count, count_flops
from flowsr_jax.aot.traffic import hbm_bytes
from flowsr_jax.config import ConfigError
from flowsr_jax.nets.conv import Compute, conv2d

ROOT = Path(__file__).parent.parent
F32 = jnp.float32
X, W = jax.ShapeDtypeStruct((2, 8, 6, 3), F32), jax.ShapeDtypeStruct((3, 3, 3, 5), F32)
CONV = 2 * (2 * 8 * 6 * 5) * (3 * 3 * 3)  # FLOPs of X convolved with W
DIMS = ("NHWC", "HWIO", "NHWC")


def count(f, *shapes, platform="tpu"):
    return count_flops(jax.make_jaxpr(f)(*shapes), platform)


@pytest.mark.parametrize("dtype, passes", [("float32", 6), ("tensorfloat32", 3), ("bfloat16", 1)])
def test_flops_of_a_convolution_and_of_its_gradients(dtype, passes):
    conv = lambda x, w: conv2d(x, w, compute=Compute(dtype))  # noqa: E731
    found = count(conv, X, W)
    assert (found.flops, found.passes) == (CONV, passes * CONV)
    both = jax.grad(lambda x, w: conv(x, w).sum(), (0, 1))
    assert count(both, X, W).flops == 3 * CONV


def test_flops_of_the_platform_asked_for():
    f = lambda x, w: lax.platform_dependent(  # noqa: E731
        x, w, cpu=lambda x, w: 0 * x.sum(), default=lambda x, w: conv2d(x, w).sum()
    )
    assert count(f, X, W).flops == CONV
    assert count(f, X, W, platform="cpu").flops == 0


def test_flops_of_a_strided_convolution_and_its_gradient():
    def f(x, w):
        return lax.conv_general_dilated(x, w, (2, 2), ((1, 1), (1, 1)), dimension_numbers=DIMS)

    forward = 2 * (2 * 4 * 3 * 5) * 27
    found = count(f, X, W)
    assert (found.flops, found.passes) == (forward, forward)  # default precision: one pass
    # To the input: over a gradient widened by zeros, of which a quarter are values.
    to_input = jax.grad(lambda x, w: f(x, w).sum())
    assert count(to_input, X, W).flops == 2 * forward


def test_flops_of_loops_branches_and_products():
    a = jax.ShapeDtypeStruct((4, 5), F32)
    b = jax.ShapeDtypeStruct((5, 5), F32)
    once = 2 * 4 * 5 * 5
    times = lambda x, w: jnp.matmul(x, w, precision="high")  # noqa: E731

    def scanned(x, w):
        return lax.scan(lambda c, _: (times(c, w), None), x, None, length=7)[0]

    found = count(jax.jit(scanned), a, b)
    assert (found.flops, found.passes, found.open_loops) == (7 * once, 21 * once, 0)
    gradient = jax.grad(lambda x, w: jax.checkpoint(scanned)(x, w).sum(), 1)
    # The loop once more, and two products in each turn of its backward pass.
    assert count(gradient, a, b).flops == pytest.approx(4 * 7 * once, abs=7 * once)

    def loop(x, w, n):
        return lax.fori_loop(0, n, lambda _, c: times(c, w), x)

    assert count(lambda x, w: jax.jit(loop)(x, w, jnp.int32(9)), a, b).flops == 9 * once
    unknown = count(loop, a, b, jax.ShapeDtypeStruct((), jnp.int32))
    assert (unknown.flops, unknown.open_loops) == (once, 1)
    branch = lambda p, x, w: lax.cond(p, times, lambda x, w: x, x, w)  # noqa: E731
    assert count(branch, jax.ShapeDtypeStruct((), bool), a, b).flops == once


TEXT = """\
HloModule jit_step, is_scheduled=true, num_partitions=8

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %c = f32[]{:T(128)} add(%a, %b)
}

%body (p: (s32[], f32[16,64])) -> (s32[], f32[16,64]) {
  %p = (s32[]{:T(128)}, f32[16,64]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %x = f32[16,64]{1,0:T(8,128)} get-tuple-element(%p), index=1
  %one = s32[]{:T(128)} constant(1)
  %next = s32[]{:T(128)} add(%i, %one)
  %sum = f32[16,64]{1,0:T(8,128)} all-reduce(%x), replica_groups=[2,4]<=[8], to_apply=%add
  ROOT %out = (s32[]{:T(128)}, f32[16,64]{1,0:T(8,128)}) tuple(%next, %sum)
}

%cond (q: (s32[], f32[16,64])) -> pred[] {
  %q = (s32[]{:T(128)}, f32[16,64]{1,0:T(8,128)}) parameter(0)
  %n = s32[]{:T(128)} constant(5)
  %j = s32[]{:T(128)} get-tuple-element(%q), index=0
  ROOT %lt = pred[]{:T(512)} compare(%j, %n), direction=LT
}

ENTRY %main (arg: f32[16,64], w: bf16[8,3]) -> f32[16,64] {
  %arg = f32[16,64]{1,0:T(8,128)} parameter(0)
  %w = bf16[8,3]{1,0:T(8,128)(2,1)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  %t = (s32[]{:T(128)}, f32[16,64]{1,0:T(8,128)}) tuple(%zero, %arg)
  %loop = (s32[]{:T(128)}, f32[16,64]{1,0:T(8,128)}) while(%t), condition=%cond, body=%body
  %got = f32[16,64]{1,0:T(8,128)} get-tuple-element(%loop), index=1
  %s = (bf16[8,3]{1,0}, bf16[64,3]{1,0}) all-gather-start(%w), \
replica_groups=mesh['data'=2,'fsdp'=4] {'data','fsdp'}, dimensions={0}, \
metadata={op_name="jit(step)/gathered"}
  %d = bf16[64,3]{1,0} all-gather-done(%s)
  %v = f32[16,64]{1,0:T(8,128)S(1)} copy(%got)
  ROOT %r = f32[16,64]{1,0:T(8,128)} add(%v, %v)
}
"""


def test_collectives_of_a_text_with_a_loop_and_an_asynchronous_form():
    module = hlo.parse(TEXT)
    assert (module.entry, module.devices) == ("main", 8)
    reduce, gather = collectives(module)
    assert (reduce.kind, reduce.count, reduce.bytes) == ("all-reduce", 5, 5 * 4096)
    assert reduce.sent == 5 * 4096 * 2 * 3 / 4 and reduce.largest == 4096  # groups of four
    assert (gather.kind, gather.count, gather.bytes) == ("all-gather", 1, 8 * 48)
    assert gather.sent == 7 * 48 and gather.source == "jit(step)/gathered"
    assert not reduce.unknown


def test_a_loop_of_unknown_length_is_said():
    text = TEXT.replace("%n = s32[]{:T(128)} constant(5)", "%n = s32[]{:T(128)} parameter(1)")
    reduce = next(c for c in collectives(hlo.parse(text)) if c.kind == "all-reduce")
    assert (reduce.count, reduce.unknown) == (1, True)


def test_traffic_counts_padded_arrays_in_the_hbm_alone():
    # Lanes of 64 are padded to 128: the copy reads 8 KiB, the sum writes 8 KiB; what lies on
    # the chip (%v) counts nothing.  The counter's addition: three scalars, five turns.
    assert hbm_bytes(hlo.parse(TEXT)) == 2 * 8192 + 5 * 3 * 4


COPIES = """HloModule copies, is_scheduled=true

ENTRY %main (w: f32[8,16,128]) -> f32[2,16,128] {
  %w = f32[8,16,128]{2,1,0:T(8,128)} parameter(0)
  %part = ((f32[8,16,128]{2,1,0:T(8,128)}), f32[2,16,128]{2,1,0:T(8,128)S(1)}, s32[]{:S(2)}) \
slice-start(%w), slice={[2:4], [0:16], [0:128]}
  %got = f32[2,16,128]{2,1,0:T(8,128)S(1)} slice-done(%part)
  %back = (f32[2,16,128]{2,1,0:T(8,128)}, f32[2,16,128]{2,1,0:T(8,128)S(1)}, u32[]{:S(2)}) \
copy-start(%got)
  ROOT %out = f32[2,16,128]{2,1,0:T(8,128)} copy-done(%back)
}
"""


def test_traffic_of_asynchronous_forms_counts_what_moves():
    # The slice reads its own 16 KiB of the 64; the copy writes them back.
    assert hbm_bytes(hlo.parse(COPIES)) == 2 * (2 * 16 * 128 * 4)


PROGRAM = """
import jax, jax.numpy as jnp
jax.config.update("jax_num_cpu_devices", 8)
from train_cases import FAMILY, TinyConfig, registered
from flowsr_jax.aot import hlo, plan
from flowsr_jax.aot.collectives import collectives
from flowsr_jax.train.config import resolve
import json, sys
with registered():
    config = resolve(json.loads(sys.argv[1]))
    phase = plan.phase_of(config)
    mesh = plan.mesh_of(config, jax.devices())
    compiled = plan.training_step(config, phase, mesh).lower().compile()
    found = collectives(hlo.parse(compiled.as_text()))
    print(json.dumps([plan.gradient_bytes(config, phase), [vars(c) for c in found]]))
"""


def tiny(**train) -> dict:
    """A run of the one-convolution family of train_cases."""
    phase = {"name": "fit", "loss": "mse", "steps": 4, "groups": [{"name": "*", "lr": 0.1}]}
    return {
        "name": "tiny",
        "model": {"family": "tiny"},
        "data": {"source": "embedded", "scale": 2, "patch_size": 8},
        "train": {"batch_size": 16, "phases": [phase], **train},
    }


def child(code: str, *arguments: str, **environment: str) -> str:
    """Run Python in a process of its own and return what it prints."""
    paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_eight_devices_reduce_the_gradients_and_send_nothing_else():
    printed = child(PROGRAM, json.dumps(tiny()), JAX_PLATFORMS="cpu")
    gradients, found = json.loads(printed.splitlines()[-1])
    assert [c["kind"] for c in found] == ["all-reduce"]
    # Besides the gradients a few scalars: the loss and the metrics.
    assert gradients <= found[0]["bytes"] <= gradients + 64


def test_topologies_by_name():
    chip, grid = chips.parse_topology("v5e:4x4")
    assert (chip.name, grid) == ("v5e", (4, 4))
    assert chips.parse_topology("v5p:4x8x8")[1] == (4, 8, 8)
    for name in ("v6e-16", "v5e", "v5e:2x2x2", "v4:4x4", "v9:2x2", "v5e:0x4", "v5e:axb"):
        with pytest.raises(ConfigError, match=f"topology = '{name}' is not .*v5e:4x4"):
            chips.parse_topology(name)


def test_without_libtpu_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install libtpu"):
        chips.devices_of("v5e:2x2")


def memory_of(total, limit=1000):
    memory = estimate.Memory(0, 0, total, 0, total, limit)
    return estimate.Result(memory, Count(1e9, 6e9), (), 0.0, None, 0.0)


@pytest.mark.parametrize("base, slope, best", [(100, 90, 10), (100, 300, 3), (990, 50, 0)])
def test_largest_batch_is_one_that_was_compiled(base, slope, best):
    made = []

    def compile_batch(batch):
        made.append(batch)
        return memory_of(base + slope * batch)

    found, result = estimate.largest_batch(compile_batch, {2: compile_batch(2)}, 1, tries=5)
    assert found == best and len(made) <= 6
    assert result is None if best == 0 else result.memory.total == base + slope * best


def test_largest_batch_is_searched_on_until_the_chip_is_nearly_full():
    # Memory bends, so that the first line gives a batch that leaves a third of the chip.
    sizes = {}

    def compile_batch(batch):
        sizes[batch] = 100 + 70 * min(batch, 4) + 30 * max(batch - 4, 0)
        return memory_of(sizes[batch])

    found, _ = estimate.largest_batch(compile_batch, {2: compile_batch(2)}, 1)
    assert sizes[found] >= 900 and max(sizes.values()) <= 1000
    assert list(sizes) == [2, 4, 12, 24]  # a program twice as large, then by lines


def test_what_the_compiler_says_when_memory_runs_out():
    message = (
        "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory "
        "required for HLO temporaries (512.00G) exceeds available HBM (15.75G). See https://x/1.2G"
    )
    assert estimate._needed(message) == 512 << 30
    assert estimate._needed("INTERNAL: 3.0G") is None


def test_rows_are_kept_and_found_again(tmp_path):
    about = {"config": "a", "phase": "fit", "program": "step", "topology": "v5e:2x4"}
    about["digest"] = "0" * 8
    row = report.make_row(memory_of(2000), 16, 8, about | {"gradient_bytes": 4_000_000})
    assert not row["fits"] and "DOES NOT FIT" in report.to_text(row)
    report.save_row(str(tmp_path), row)
    assert report.find_row(str(tmp_path), about) == json.loads(json.dumps(row))
    assert report.find_row(str(tmp_path), about | {"digest": "1" * 8}) is None
    table = (tmp_path / "table.md").read_text().splitlines()
    assert len(table) == 3 and table[2].count("|") == len(report.COLUMNS) + 1
    assert "| 4.000 |" in table[2]  # MB of gradients


def test_a_batch_that_does_not_divide_is_refused_before_compiling():
    from train_cases import registered

    from flowsr_jax.train.config import resolve

    with registered():
        config = resolve(tiny(batch_size=3, accumulate=1))
        with pytest.raises(ConfigError, match="batch_size = 3 does not divide over 2 devices"):
            plan.mesh_of(config, jax.devices()[:1] * 2)
        with pytest.raises(ConfigError, match="phase = 'fut' is not one of fit"):
            plan.phase_of(config, "fut")


TPU = """
import json, sys
from train_cases import registered
from flowsr_jax.aot.run import compile_run
from flowsr_jax.train.config import resolve
with registered():
    rows = compile_run(resolve(json.loads(sys.argv[1])), ["v5e:2x2"], output=sys.argv[2])
    again = compile_run(resolve(json.loads(sys.argv[1])), ["v5e:2x2"], output=sys.argv[2])
assert rows == again
print("ROWS" + json.dumps(rows))
"""


@pytest.mark.tpu_aot
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
def test_a_tiny_run_compiles_for_a_tpu(tmp_path):
    printed = child(
        TPU, json.dumps(tiny()), str(tmp_path),
        JAX_PLATFORMS="cpu", TPU_SKIP_MDS_QUERY="1", ALLOW_MULTIPLE_LIBTPU_LOAD="1",
    )  # fmt: skip
    step, sampler = json.loads(printed.partition("ROWS")[2])
    memory = step["memory_bytes"]
    assert step["fits"] and 0 < memory["arguments"] < memory["total"] < memory["chip"]
    assert [c["kind"] for c in step["collectives"]] == ["all-reduce"]
    sent = step["collectives"][0]["bytes"]
    assert step["gradient_bytes"] <= sent <= step["gradient_bytes"] + 64
    assert step["per_chip_batch"] == 4 and sampler["collectives"] == []
    # One 3x3 convolution of 3 to 3 channels at 8x8, forwards and to its kernel.
    conv = 2 * 8 * 8 * 9 * 3 * 3
    assert (sampler["flops_per_image"], step["flops_per_image"]) == (conv, 2 * conv)
    assert step["estimate_s"]["total"] > 0
    for text in ("HBM per chip", "all-reduce", "at peak rates", "Not measured"):
        assert text in printed
    assert "v5e:2x2" in (tmp_path / "table.md").read_text()
