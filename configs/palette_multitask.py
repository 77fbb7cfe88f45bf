"""Palette on all four tasks at once: colourisation, inpainting, uncropping, JPEG restoration.

    python launch/train.py --config=configs/palette_multitask.py
    python launch/train.py --config=configs/palette_multitask.py:smoke      # a minute on a CPU

Expects ImageNet prepared by tensorflow-datasets (docs/data.md) in data/tfds, cut at random to
256x256 (the paper crops the largest square and resizes it).  Holes are marked in the source
image by one exact colour (docs/diffusion.md); the model fills them with noise.

Published: 552M parameters, the guided-diffusion U-Net for 256x256 with attention at 32, 16
and 8; L2, batch 1024, 1M steps, Adam 1e-4, warm-up 10k, averaged weights 0.9999; training
schedule linear 1e-6 to 0.01 with T = 2000, inference linear 1e-4 to 0.09 with 1000.  Multi-task
FID 6.8 (inpainting), 3.7 (colourisation), 7.0 (JPEG, Q = 5); per task: the other configs.
Our network has that one's widths in this library's blocks: 517M.  Ours: not run.
"""

from ml_collections import ConfigDict

from configs.sr3_ffhq import diffusion_training, folder_data, paper_unet, smoke


def get_config(arg: str = "") -> ConfigDict:
    return palette("multitask", ("colorize", "inpaint", "uncrop", "jpeg"), "some", arg)


def palette(name: str, tasks: tuple[str, ...], holes: str | None, arg: str) -> ConfigDict:
    """The common configuration of the tasks; `holes`: as in SR3Config."""
    if arg not in ("", "smoke"):
        raise ValueError(f"palette_{name} has the variant smoke, not {arg!r}")
    config = ConfigDict()
    config.name = f"palette_{name}" + (f"_{arg}" if arg else "")
    config.seed = 0
    config.model = {"family": "sr3", "scale": 1, "holes": holes}
    config.model.unet = paper_unet((1, 1, 2, 2, 4, 4), 2, 256, channels=256)
    config.model.unet.update({"attn_res": (32, 16, 8), "head_channels": 64, "affine": True})
    config.model.sampler = {"schedule": {"steps": 1000, "start": 1e-4, "end": 0.09}}
    config.data = folder_data(1, None, None, 256)
    config.data.update({"source": "tfds", "tfds_name": "imagenet2012", "tfds_dir": "data/tfds"})
    config.data.degradation = {"kind": "palette", "tasks": tasks}
    config.train = diffusion_training(norm="l2", batch_size=1024)
    config.train.valid_crop = 256
    if arg == "smoke":
        smoke(config)
        config.model.unet.head_channels = 8
        config.data.update({"tfds_name": None, "tfds_dir": None})
    return config
