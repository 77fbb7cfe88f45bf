"""Glow on downsampled ImageNet, 64x64 (Kingma and Dhariwal, 2018).

    python launch/prepare_data.py --tfds downsampled_imagenet/64x64 --data-dir D --manual-dir M
    python launch/train.py --config=configs/glow_imagenet64.py --config.data.tfds_dir=D
    python launch/train.py --config=configs/glow_imagenet64.py:smoke      # a minute on a CPU

Published, bits/dim: 3.81 (8 bits), 1.76 (5 bits: --config.model.n_bits=5); RealNVP 3.98.
Ours: not run.  Training: see glow_cifar10.py; no augmentation.
"""

from ml_collections import ConfigDict

from configs.glow_cifar10 import published_model, published_training, smoke, tfds_data


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "smoke"):
        raise ValueError(f"glow_imagenet64 has the variant smoke, not {arg!r}")
    config = ConfigDict()
    config.name = "glow_imagenet64_smoke" if arg else "glow_imagenet64"
    config.seed = 0
    config.model = published_model(levels=4, steps=48, size=64)
    config.data = tfds_data("downsampled_imagenet/64x64", 64)
    config.train = published_training(workers=8, batch_size=128)
    if arg == "smoke":
        smoke(config)
    return config
