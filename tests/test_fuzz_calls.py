"""Wrong public calls: each raises a ValueError or TypeError of one line, and compiles nothing."""

from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest

import flowsr_jax
from flowsr_jax.models.base import get_family
from flowsr_jax.models.glow import GlowConfig
from flowsr_jax.models.irn import IRNConfig
from flowsr_jax.models.nice import NICEConfig
from flowsr_jax.models.rrdb.config import RRDBConfig
from flowsr_jax.models.sr3 import SR3Config
from flowsr_jax.models.srflow import SRFlowConfig
from flowsr_jax.nets.unet import UNetConfig

KEY = jax.random.key(0)
UNET = UNetConfig(
    channels=4, multipliers=(1,), res_blocks=1, attn_res=(), norm_groups=2, image_size=16
)
ENCODER = RRDBConfig(scale=2, nf=2, gc=2, nb=1)
CONFIGS = {
    "rrdb": ENCODER,
    "srflow": SRFlowConfig(ENCODER, steps=(1, 1), transition_steps=1, hidden=2, stacked_blocks=()),
    "sr3": SR3Config(2, UNET),
    "irn": IRNConfig(scale=2, blocks=(1,), growth=2),
    "nice": NICEConfig(shape=(4, 4, 1), couplings=2, layers=1, hidden=2),
    "glow": GlowConfig(levels=2, steps=1, hidden=2),
}
LR, HR = np.full((1, 4, 4, 3), 0.5, "f"), np.full((1, 8, 8, 3), 0.5, "f")
# Arrays that no image can be: by place in the message of errors they do not matter.
IMAGES = {
    "rank": LR[0],
    "channels": LR[..., :2],
    "bytes": (255 * LR).astype(np.uint8),
    "range": 200 * LR,
    "nan": np.nan * LR,
    "inf": np.inf * LR,
    "empty": LR[:0],
    "flat": LR[:, :0],
    "text": "a.png",
    "list": LR.tolist(),
    "number": 3,
    "complex": LR + 1j,
    "object": LR.astype(object),
    "bool": LR > 0,
}
KEYS = (3, "key", np.zeros(3), np.zeros(2, np.int32), jax.random.split(KEY), KEY.shape, LR)
TEMPERATURES = (-1, np.nan, np.inf, "x", 1j, [0.1, 0.2], LR, -np.inf, True)
COUNTS = (0, -1, 1.5, "x", True, np.nan, 10**12, [1])


@pytest.fixture(scope="module")
def models():
    """Zeros in the shape of parameters: no program may get to run."""

    def zeros(config):
        made = jax.eval_shape(lambda: get_family(config.family).init(config, KEY))
        return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), made)

    return {name: zeros(config) for name, config in CONFIGS.items()}


def calls(m):
    """Yield (name, call)."""
    F = flowsr_jax
    drawing = ("rrdb", "srflow", "sr3", "irn")
    for name, (kind, image) in itertools.product(drawing, IMAGES.items()):
        yield f"sample {name} {kind}", lambda n=name, x=image: F.sample(m[n], x, KEY)
    for name, key in itertools.product(("srflow", "sr3", "irn"), KEYS):
        yield f"sample {name} key {key!r}", lambda n=name, k=key: F.sample(m[n], LR, k)
    for name, t in itertools.product(("srflow", "sr3", "irn"), TEMPERATURES):
        yield (
            f"sample {name} temperature {t!r}",
            lambda n=name, t=t: F.sample(m[n], LR, KEY, temperature=t),
        )
    for name, n in itertools.product((*drawing[1:], "nice", "glow"), COUNTS):
        lr = None if name in ("nice", "glow") else LR
        yield (
            f"sample {name} num_samples {n!r}",
            lambda name=name, n=n, lr=lr: F.sample(m[name], lr, KEY, num_samples=n),
        )
    for name, kind in itertools.product(("srflow", "irn", "nice", "glow"), IMAGES):
        image = IMAGES[kind]
        if name == "glow" and kind == "rank":
            continue
        lr = (LR,) if name == "srflow" else ()
        yield f"encode {name} {kind}", lambda n=name, x=image, lr=lr: F.encode(m[n], x, *lr)
        if name != "irn":
            yield f"bits {name} {kind}", lambda n=name, x=image, lr=lr: F.bits_per_dim(m[n], x, *lr)
    for kind, image in IMAGES.items():
        yield f"downscale {kind}", lambda x=image: F.downscale(m["irn"], x)
        if kind != "bytes":
            yield f"upscale {kind}", lambda x=image: F.upscale(m["irn"], x)
        yield f"check_invertibility {kind}", lambda x=image: F.check_invertibility(m["srflow"], x)
    for name in ("rrdb", "sr3"):
        yield f"encode {name}", lambda n=name: F.encode(m[n], HR, LR)
        yield f"decode {name}", lambda n=name: F.decode(m[n], [HR], LR)
        yield f"downscale {name}", lambda n=name: F.downscale(m[n], HR)
        yield f"bits {name}", lambda n=name: F.bits_per_dim(m[n], HR, LR)
        yield f"check {name}", lambda n=name: F.check_invertibility(m[n], LR)
    for latents in ([], [HR], None, 3, "x", [LR, LR, LR], [None]):
        for name in ("srflow", "irn", "nice", "glow"):
            lr = (LR,) if name == "srflow" else ()
            yield (
                f"decode {name} {latents!r:.20}",
                lambda n=name, z=latents, lr=lr: F.decode(m[n], z, *lr),
            )
    for steps in (0, -1, 1.5, "x", 10**9, [3]):
        yield f"steps {steps!r}", lambda s=steps: F.sample(m["sr3"], LR, KEY, steps=s)
    for guidance in ("x", -1, np.nan, [1], LR):
        yield (
            f"guidance {guidance!r:.9}",
            lambda g=guidance: F.sample(m["sr3"], LR, KEY, guidance=g),
        )
    for trajectory in (-1, 10**9, 1.5, "x"):
        yield (
            f"trajectory {trajectory!r}",
            lambda k=trajectory: F.sample(m["sr3"], LR, KEY, trajectory=k),
        )
    for option in ("banana", "sampler", "shape", "label", "cond_level", "noise", "x_T"):
        yield f"option {option}", lambda o=option: F.sample(m["sr3"], LR, KEY, **{o: "x"})
    for level in (None, "x", [0.1, 0.2], -1.0, np.nan):
        yield f"level {level!r}", lambda v=level: F.predict_noise(m["sr3"], HR, v, HR)
    for scale in (0, -1, np.nan, np.inf, "x", None, True, [2], 1j, 1e12, 1e-12):
        yield f"imresize {scale!r}", lambda s=scale: F.imresize(LR[0], s)
    for shape in ((0, 1), (1,), "x", (1.5, 2), (-1, 2), 3, (10**9, 10**9)):
        yield f"imresize {shape!r}", lambda s=shape: F.imresize(LR[0], output_shape=s)
    for limit in (-1, "x", np.nan, None):
        yield f"limit {limit!r}", lambda v=limit: F.check_invertibility(m["srflow"], LR, limit=v)
    for quantize in ("x", 3, None):
        yield f"quantize {quantize!r}", lambda q=quantize: F.downscale(m["irn"], HR, quantize=q)
    for path in ("", "missing", 3, None, b"\0", "n" * 300, "a\0b"):
        yield f"load {path!r:.9}", lambda p=path: F.load(p)
        yield f"from_torch {path!r:.9}", lambda p=path: F.from_torch(p)
        yield f"save {path!r:.9}", lambda p=path: F.save(m["rrdb"], "/proc/x" if p else p)
        yield f"to_torch {path!r:.9}", lambda p=path: F.to_torch(m["rrdb"], p)
    for params in (None, {}, 3, "demo", [LR]):
        yield f"params {params!r:.9}", lambda p=params: F.sample(p, LR, KEY)
        yield f"save params {params!r:.9}", lambda p=params: F.save(p, "/proc/x")


@pytest.fixture
def compiled():
    """The programs that are compiled meanwhile, by their seconds."""
    seconds = []

    def record(event, duration, **_):
        if event.endswith("backend_compile_duration"):
            seconds.append(duration)

    jax.monitoring.register_event_duration_secs_listener(record)
    yield seconds
    jax.monitoring.unregister_event_duration_listener(record)


def test_wrong_calls_raise_one_line(models, tmp_path, monkeypatch, compiled):
    monkeypatch.chdir(tmp_path)
    every, faults = list(calls(models)), []
    compiled.clear()
    for name, call in every:
        try:
            call()
            faults.append((name, "was taken"))
        except (ValueError, TypeError, OSError) as error:
            if not str(error) or "\n" in str(error):
                faults.append((name, type(error).__name__, str(error)))
        except BaseException as error:
            faults.append((name, type(error).__name__, str(error)[:200]))
    print(len(every), "calls")
    for fault in faults:
        print(*(" ".join(part.split())[:150] for part in fault))
    # A number becomes an array of its dtype; nothing else is compiled.
    assert len(every) >= 200 and not faults and len(compiled) < 3
