"""A small IRN on the photographs embedded in installed packages: minutes on two cores.

    python launch/train.py --config=configs/irn_quickstart.py          # x2
    python launch/train.py --config=configs/irn_quickstart.py:x4

Trains on astronaut, rocket, hubble, china and the motorcycle pair, and is measured on
coffee, chelsea and flower, which it never sees.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    variant = arg or "x2"
    if variant not in ("x2", "x4"):
        raise ValueError(f"irn_quickstart has the variants x2 and x4, not {arg!r}")
    config = ConfigDict()
    config.name = f"irn_quickstart_{variant}"
    config.seed = 0
    config.model = {
        "family": "irn",
        "scale": 2 if variant == "x2" else 4,
        "blocks": (4,) if variant == "x2" else (3, 3),
        "growth": 16,
        # z = 0 in training too: a few blocks cannot shrink unit noise to nothing in minutes.
        "temperature": 0.0,
        # On the CPU unrolled steps with the compiler's own convolution gradients are fastest.
        "compute": {"conv": "xla", "unroll": True},
    }
    config.data = {
        "source": "embedded",
        "scale": config.model.scale,
        "patch_size": 48 if variant == "x2" else 64,
        "color_permutations": True,
        "float_lr": True,
    }
    config.train = {
        "batch_size": 8,
        "ema_decay": 0.997,
        "log_every": 50,
        "valid_every": 0,
        "checkpoint_every": 500,
        "sheet_images": 3,
        "valid_draws": 3,
        "phases": [
            {
                "name": "rescale",
                "loss": "rescale",
                "steps": 3000,
                "groups": [
                    {
                        "name": "generator",
                        "lr": 1e-3,
                        "schedule": "cosine",
                        "warmup_steps": 100,
                        "final_lr": 1e-5,
                        "clip_norm": 10.0,
                    }
                ],
            }
        ],
    }
    return config
