"""Glow on CelebA-HQ, 256x256 at 5 bits (Kingma and Dhariwal, 2018).

    python launch/prepare_data.py --tfds celeb_a_hq/256 --data-dir D --manual-dir M
    python launch/train.py --config=configs/glow_celebahq256.py --config.data.tfds_dir=D
    python launch/train.py --config=configs/glow_celebahq256.py:smoke     # a minute on a CPU

Published, bits/dim: 1.03 of 5-bit images (not comparable with 8 bits); temperature 0.7; about
a week on 40 GPUs, one image on each.  Ours: not run.  27,000 images train, 3,000 validate;
horizontal flips are ours to switch on (--config.data.flips=True).  Training: see
glow_cifar10.py.
"""

from ml_collections import ConfigDict

from configs.glow_cifar10 import published_model, published_training, smoke, tfds_data


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "smoke"):
        raise ValueError(f"glow_celebahq256 has the variant smoke, not {arg!r}")
    config = ConfigDict()
    config.name = "glow_celebahq256_smoke" if arg else "glow_celebahq256"
    config.seed = 0
    config.model = published_model(levels=6, steps=32, size=256, coupling="additive", n_bits=5)
    config.data = tfds_data(
        "celeb_a_hq/256", 256, train_split="train[:27000]", valid_split="train[27000:]"
    )
    config.train = published_training(workers=40, batch_size=40)
    config.train.update({"valid_images": 100, "sheet_images": 4})
    if arg == "smoke":
        smoke(config)
    return config
