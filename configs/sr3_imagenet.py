"""SR3 64 -> 256 on ImageNet, and the stages of a class-conditional cascade around it.

    python launch/train.py --config=configs/sr3_imagenet.py           # 64 -> 256, the paper's
    python launch/train.py --config=configs/sr3_imagenet.py:base      # classes -> 64x64
    python launch/train.py --config=configs/sr3_imagenet.py:16_64     # 16 -> 64
    python launch/train.py --config=configs/sr3_imagenet.py:stage     # 64 -> 256 of a cascade
    python launch/train.py --config=configs/sr3_imagenet.py:smoke     # a minute on a CPU
    python launch/cascade.py -n runs/sr3_imagenet_base runs/sr3_imagenet_stage -o OUT --label 207

Expects ImageNet prepared by tensorflow-datasets (docs/data.md) in data/tfds; for `base` and
`16_64`, 64x64 (imagenet_resized/64x64).  The 64 -> 256 stages are trained on crops of 256x256
of the photographs, not on resized ones: images with a shorter side below 256 are left out.

Published, 64 -> 256: SR3 FID 5.2, IS 180.1, PSNR 26.4, SSIM 0.762; regression 15.2, 121.1,
27.9, 0.801; reference images FID 1.9, IS 240.8.  Class-conditional cascade 64 -> 256: FID-50k
11.3 with, 13.1 without Gaussian blur of the conditions.  625M parameters, 1M steps of batch
256, no dropout; this reading of the network has 609M.  CDM's cascade: FID 1.48 (64), 3.52
(128), 4.88 (256).  The blur's numbers are CDM's (SR3 prints none), as are the noise of `16_64`
and the 10 % of dropped classes.  Ours: not run.
"""

from ml_collections import ConfigDict

from configs.sr3_ffhq import diffusion_training, folder_data, paper_unet, smoke

VARIANTS = ("", "base", "16_64", "stage", "smoke", "smoke_base", "smoke_16_64")


def get_config(arg: str = "") -> ConfigDict:
    if arg not in VARIANTS:
        raise ValueError(f"sr3_imagenet has the variants {', '.join(VARIANTS[1:])}, not {arg!r}")
    config = ConfigDict()
    config.name = "sr3_imagenet" + (f"_{arg}" if arg else "")
    config.seed = 0
    small = arg.removeprefix("smoke_") in ("base", "16_64")
    size, scale = (64, 1 if "base" in arg else 4) if small else (256, 4)
    config.model = {"family": "sr3", "scale": scale}
    config.model.unet = paper_unet((1, 2, 4, 4, 8, 8), 3, 256)
    groups = ["unet"]
    options = {}
    if small:
        config.model.unet = paper_unet((1, 2, 4, 4), 3, 64)
        config.model.unet.dropout = 0.1
    if "base" in arg:
        config.model.unet.cond_channels = 0
    if "16_64" in arg:
        config.model.augmented = True
        groups.append("augmentation")
        options["cond_noise"] = 0.3
    if small or arg == "stage":
        config.model.classes = 1000
        groups.append("classes")
        options["drop_label"] = 0.1
    config.data = folder_data(scale, None, None, size)
    config.data.source = "tfds"
    config.data.tfds_name = "imagenet_resized/64x64" if small else "imagenet2012"
    config.data.tfds_dir = "data/tfds"
    if arg == "stage":
        config.data.lr_blur = (0.4, 0.6)
    config.train = diffusion_training(tuple(groups), **options)
    config.train.valid_crop = size
    if arg.startswith("smoke"):
        smoke(config)
        config.data.update({"tfds_name": None, "tfds_dir": None})
        if "classes" in config.model:  # the embedded photographs have no labels
            config.model.classes = 0
            groups.remove("classes")
            config.train.phases[0]["groups"] = config.train.phases[0]["groups"][: len(groups)]
            config.train.phases[0]["loss_options"].pop("drop_label")
    return config
