"""Glow on downsampled ImageNet, 32x32 (Kingma and Dhariwal, 2018).

    python launch/prepare_data.py --tfds downsampled_imagenet/32x32 --data-dir D --manual-dir M
    python launch/train.py --config=configs/glow_imagenet32.py --config.data.tfds_dir=D
    python launch/train.py --config=configs/glow_imagenet32.py:smoke      # a minute on a CPU

Published, bits/dim: 4.09 (8 bits), 1.99 (5 bits: --config.model.n_bits=5); RealNVP 4.28.
Ours: not run.  Training: see glow_cifar10.py; no augmentation.
"""

from ml_collections import ConfigDict

from configs.glow_cifar10 import published_model, published_training, smoke, tfds_data


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "smoke"):
        raise ValueError(f"glow_imagenet32 has the variant smoke, not {arg!r}")
    config = ConfigDict()
    config.name = "glow_imagenet32_smoke" if arg else "glow_imagenet32"
    config.seed = 0
    config.model = published_model(levels=3, steps=48)
    config.data = tfds_data("downsampled_imagenet/32x32", 32)
    config.train = published_training(workers=8, batch_size=512)
    if arg == "smoke":
        smoke(config)
    return config
