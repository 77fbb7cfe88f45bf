"""RRDB on DIV2K (or DF2K): the L1 super-resolver, SRFlow's encoder as a model of its own.

    python launch/train.py --config=configs/rrdb_div2k.py              # 4x
    python launch/train.py --config=configs/rrdb_div2k.py:8x
    python launch/train.py --config=configs/rrdb_div2k.py:smoke        # a minute on a CPU

Published (DIV2K validation 4x; recalled from SRFlow's table, not re-read): PSNR 29.44,
SSIM 0.84, LR-PSNR 49.20.  Ours: not run.
"""

from ml_collections import ConfigDict

from configs.common import encoder_phase, folder_data, paper_training, smoke


def get_config(arg: str = "") -> ConfigDict:
    variant = arg or "4x"
    if variant not in ("4x", "8x", "smoke"):
        raise ValueError(f"rrdb_div2k has the variants 4x, 8x and smoke, not {arg!r}")
    scale = 8 if variant == "8x" else 4
    config = ConfigDict()
    config.name = "rrdb_div2k" if variant == "4x" else f"rrdb_div2k_{variant}"
    config.seed = 10
    config.model = {"family": "rrdb", "scale": scale, "nf": 64, "gc": 32, "nb": 23}
    config.data = folder_data(scale, "data/DIV2K/DIV2K_train_HR", "data/DIV2K/DIV2K_valid_HR")
    config.train = paper_training([encoder_phase()])
    if variant == "smoke":
        smoke(config)
    return config
