"""A small Glow on 32x32 patches of the photographs embedded in installed packages.

python launch/train.py --config=configs/glow_quickstart.py --workdir=runs/glow_quickstart
python launch/train.py --config=configs/glow_quickstart.py:smoke
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "smoke"):
        raise ValueError(f"glow_quickstart has the variant smoke, not {arg!r}")
    config = ConfigDict()
    config.name = "glow_quickstart_smoke" if arg else "glow_quickstart"
    config.seed = 0
    config.model = {
        "family": "glow",
        "levels": 3,
        "steps": 4,
        "hidden": 64,
        # On the CPU unrolled steps with the compiler's own convolution gradients are fastest.
        "compute": {"conv": "xla", "unroll": True},
    }
    config.data = {"source": "embedded", "scale": 1, "patch_size": 32, "color_permutations": True}
    group = {"lr": 2e-3, "schedule": "cosine", "warmup_steps": 50, "clip_norm": 1.0}
    config.train = {
        "batch_size": 16,
        "ema_decay": 0.99,
        "phases": [
            {
                "name": "flow",
                "loss": "nll",
                "steps": 1000,
                "init_from_data": True,
                "groups": [{"name": name, **group} for name in ("flow", "prior")],
            }
        ],
        "log_every": 50,
        "checkpoint_every": 500,
        "valid_crop": 256,
        "valid_draws": 1,
        "sheet_images": 3,
    }
    if arg == "smoke":
        config.model.update({"levels": 2, "steps": 1, "hidden": 8})
        config.train.update({"batch_size": 4, "log_every": 2, "valid_crop": 32})
        config.train.phases[0]["steps"] = 6
    return config
