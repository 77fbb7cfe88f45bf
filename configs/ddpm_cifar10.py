"""DDPM on CIFAR-10: images from nothing, in discrete time; by class with `:classes`.

    python launch/train.py --config=configs/ddpm_cifar10.py
    python launch/train.py --config=configs/ddpm_cifar10.py:classes
    python launch/train.py --config=configs/ddpm_cifar10.py:smoke      # a minute on a CPU

Expects cifar10 prepared by tensorflow-datasets in data/tfds (docs/data.md).

Published (Ho et al., 2020; recalled, not re-read): FID 3.17, IS 9.46, bits/dim <= 3.75 after
800k steps of batch 128; 35.7M parameters, T = 1000, betas 1e-4 to 0.02, dropout 0.1, Adam
2e-4, averaged weights 0.9999, L2.  The network here is that one in the public SR3 code's
details, with 33.6M parameters.  Ours: not run.
"""

from ml_collections import ConfigDict

from configs.sr3_ffhq import diffusion_training, folder_data, public_unet, smoke

VARIANTS = ("", "classes", "smoke")


def get_config(arg: str = "") -> ConfigDict:
    if arg not in VARIANTS:
        raise ValueError(f"ddpm_cifar10 has the variants {', '.join(VARIANTS[1:])}, not {arg!r}")
    config = ConfigDict()
    config.name = "ddpm_cifar10" + (f"_{arg}" if arg else "")
    config.seed = 0
    config.model = {"family": "sr3", "scale": 1}
    config.model.unet = public_unet(
        cond_channels=0,
        channels=128,
        multipliers=(1, 2, 2, 2),
        image_size=32,
        conditioning="time",
        init="zero_last",
    )
    config.model.unet.dropout = 0.1
    config.model.schedule = {"steps": 1000, "start": 1e-4, "end": 2e-2}
    config.model.sampler = {"variance": "beta"}
    config.data = folder_data(1, None, None, 32)
    config.data.update({"source": "tfds", "tfds_name": "cifar10", "tfds_dir": "data/tfds"})
    config.data.valid_split = "test"
    training = {"lr": 2e-4, "warmup_steps": 5000, "steps": 800_000, "batch_size": 128}
    if arg == "classes":
        config.model.classes = 10
        config.train = diffusion_training(
            ("unet", "classes"), drop_label=0.1, norm="l2", **training
        )
    else:
        config.train = diffusion_training(norm="l2", **training)
    if arg == "smoke":
        smoke(config)
        config.data.update({"tfds_name": None, "tfds_dir": None})
    return config
