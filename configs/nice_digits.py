"""A small NICE on the 1797 handwritten digits in scikit-learn: half a minute on two cores.

python launch/train.py --config=configs/nice_digits.py
python launch/train.py --config=configs/nice_digits.py:smoke
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "smoke"):
        raise ValueError(f"nice_digits has the variant smoke, not {arg!r}")
    config = ConfigDict()
    config.name = "nice_digits_smoke" if arg else "nice_digits"
    config.seed = 0
    config.model = {"family": "nice", "shape": (8, 8, 1), "layers": 1, "hidden": 50}
    config.data = {
        "source": "digits",
        "channels": 1,
        "scale": 1,
        "patch_size": 8,
        "flips": False,
        "rotations": False,
    }
    group = {"name": "flow", "lr": 2e-2, "schedule": "cosine", "warmup_steps": 50}
    config.train = {
        "batch_size": 200,
        "ema_decay": 0.99,
        "phases": [{"name": "flow", "loss": "nll", "steps": 1200, "groups": [group]}],
        "log_every": 100,
        "valid_images": 299,
        "valid_draws": 1,
        "sheet_images": 8,
    }
    if arg == "smoke":
        config.model.hidden = 16
        config.train.update({"batch_size": 8, "log_every": 2, "valid_images": 2, "sheet_images": 2})
        config.train.phases[0]["steps"] = 6
    return config
