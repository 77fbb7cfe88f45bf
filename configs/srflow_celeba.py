"""SRFlow 8x on aligned CelebA faces (160x160 from 20x20).

    python launch/train.py --config=configs/srflow_celeba.py
    python launch/train.py --config=configs/srflow_celeba.py:smoke     # a minute on a CPU

Expects folders of aligned 160x160 face crops in data/CelebA/train and data/CelebA/valid.

Published (5000 CelebA test faces, temperature 0.8; recalled from the paper, not re-read):
PSNR 25.24, SSIM 0.71, LPIPS 0.110, LR-PSNR 50.85, diversity 5.21.  Ours: not run.
"""

from ml_collections import ConfigDict

from configs.common import encoder_phase, flow_phase, folder_data, paper_training, smoke


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "smoke"):
        raise ValueError(f"srflow_celeba has the variant smoke, not {arg!r}")
    config = ConfigDict()
    config.name = "srflow_celeba_smoke" if arg else "srflow_celeba"
    config.seed = 10
    config.model = {
        "family": "srflow",
        "encoder": {"scale": 8, "nf": 64, "gc": 32, "nb": 8},
        "steps": (16, 16, 16, 16),
        "transition_steps": 2,
        "hidden": 64,
        "stacked_blocks": (1, 3, 5, 7),
        "temperature": 0.8,
    }
    config.data = folder_data(8, "data/CelebA/train", "data/CelebA/valid")
    config.train = paper_training([encoder_phase(), flow_phase()])
    if arg == "smoke":
        smoke(config)
    return config
