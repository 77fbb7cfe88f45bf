"""A score network on CIFAR-10: denoising score matching, annealed Langevin dynamics.

    python launch/train.py --config=configs/score_cifar10.py
    python launch/train.py --config=configs/score_cifar10.py:smoke      # a minute on a CPU

Expects cifar10 prepared by tensorflow-datasets in data/tfds (docs/data.md).  The network is
the U-Net of DDPM, told sqrt(gamma) with sigma^2 = (1 - gamma) / gamma: its eps is -sigma times
the score, and the L2 loss on it is score matching weighted by sigma^2.

Published: NCSN (Song & Ermon, 2019) FID 25.3, IS 8.87 with 10 sigmas from 1 to 0.01, 100
steps each of size 2e-5; NCSNv2 (2020) FID 10.9 with 232 sigmas from 50 to 0.01, 5 steps each
of size 6.2e-6, averaged weights 0.999 (both recalled, not re-read).  Taken here are the second
paper's; its sigmas and the root of its step size are doubled, as images lie in [-1,1].
Ours: not run.
"""

from ml_collections import ConfigDict

from configs.sr3_ffhq import diffusion_training, folder_data, public_unet, smoke


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "smoke"):
        raise ValueError(f"score_cifar10 has the variant smoke, not {arg!r}")
    config = ConfigDict()
    config.name = "score_cifar10" + (f"_{arg}" if arg else "")
    config.seed = 0
    config.model = {"family": "sr3", "scale": 1}
    config.model.unet = public_unet(
        cond_channels=0, channels=128, multipliers=(1, 2, 2, 2), image_size=32, dropout=0.1
    )
    levels = 8 if arg else 232
    config.model.schedule = {"name": "geometric", "steps": levels, "start": 0.02, "end": 100.0}
    config.model.sampler = {
        "name": "langevin",
        "corrector_steps": 5,
        "step_size": 4 * 6.2e-6,
        "clip": "none",
    }
    config.data = folder_data(1, None, None, 32)
    config.data.update({"source": "tfds", "tfds_name": "cifar10", "tfds_dir": "data/tfds"})
    config.data.valid_split = "test"
    config.train = diffusion_training(
        levels="discrete", norm="l2", warmup_steps=0, steps=300_000, batch_size=128, ema_decay=0.999
    )
    if arg == "smoke":
        smoke(config)
        config.data.update({"tfds_name": None, "tfds_dir": None})
    return config
