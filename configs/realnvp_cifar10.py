"""RealNVP on CIFAR-10 (Dinh, Sohl-Dickstein and Bengio, 2017), as in the released code.

    python launch/prepare_data.py --tfds cifar10 --data-dir D
    python launch/train.py --config=configs/realnvp_cifar10.py --config.data.tfds_dir=D
    python launch/train.py --config=configs/realnvp_cifar10.py:smoke      # a minute on a CPU

Published, bits/dim: CIFAR-10 3.49, ImageNet 32 4.28, ImageNet 64 3.98 (the last two with
scales 4 and 5, width 32, blocks 4 and 2).  Ours: not run; the number of steps is ours.
Averaged weights are off, because the moving statistics are those of the raw weights.
"""

from ml_collections import ConfigDict

from configs.glow_cifar10 import tfds_data


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "smoke"):
        raise ValueError(f"realnvp_cifar10 has the variant smoke, not {arg!r}")
    config = ConfigDict()
    config.name = "realnvp_cifar10_smoke" if arg else "realnvp_cifar10"
    config.seed = 0
    config.model = {"family": "realnvp", "scales": 2, "dim": 64, "blocks": 8}
    config.data = tfds_data("cifar10", 32, valid_split="test") | {"flips": True}
    config.train = {
        "batch_size": 64,
        "clip_norm": 100.0,
        "phases": [
            {
                "name": "flow",
                "loss": "nll",
                "steps": 500_000,
                "loss_options": {"l2": 5e-5},
                "groups": [{"name": "flow", "lr": 1e-3}],
            }
        ],
        "valid_every": 10_000,
        "valid_images": 500,
        "valid_draws": 1,
        "sheet_images": 8,
    }
    if arg == "smoke":
        config.model.update({"dim": 4, "blocks": 1, "size": 16})
        config.data = {"source": "embedded", "scale": 1, "patch_size": 16, "rotations": False}
        config.train.update({"batch_size": 8, "log_every": 2, "valid_every": 0})
        config.train.update({"valid_images": 2, "valid_crop": 16, "checkpoint_every": 4})
        config.train.phases[0]["steps"] = 6
    return config
