"""SR3 4x on DIV2K: photographs of any size from random crops.

    python launch/train.py --config=configs/sr3_div2k.py
    python launch/train.py --config=configs/sr3_div2k.py:smoke      # a minute on a CPU

Expects data/DIV2K/DIV2K_train_HR/*.png and data/DIV2K/DIV2K_valid_HR/*.png.  No attention, so
that what is learnt from 128x128 crops holds at any size, and v is predicted, which keeps
colours steadier than the noise does in large images.

Published: none for this set (the paper's 64 -> 256 is sr3_imagenet.py).  Ours: not run.
"""

from ml_collections import ConfigDict

from configs.sr3_ffhq import diffusion_training, folder_data, public_unet, smoke


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "smoke"):
        raise ValueError(f"sr3_div2k has the variant smoke, not {arg!r}")
    config = ConfigDict()
    config.name = "sr3_div2k" + (f"_{arg}" if arg else "")
    config.seed = 0
    config.model = {"family": "sr3", "scale": 4, "prediction": "v"}
    config.model.unet = public_unet(multipliers=(1, 2, 4, 8), attn_res=(), mid_attention=False)
    config.model.unet.dropout = 0.0
    config.data = folder_data(4, "data/DIV2K/DIV2K_train_HR", "data/DIV2K/DIV2K_valid_HR", 128)
    config.data.rotations = True
    config.train = diffusion_training(steps=500_000, batch_size=64, norm="l2")
    config.train.valid_crop = 256
    if arg == "smoke":
        smoke(config)
    return config
