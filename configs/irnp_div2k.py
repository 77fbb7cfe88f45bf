"""IRN+ on DIV2K, x4: trained IRN weights, then a discriminator and VGG19 features.

    python launch/train.py --config=configs/irnp_div2k.py
    python launch/train.py --config=configs/irnp_div2k.py:vgg \
        --config.train.phases.plus.init_files.features=vgg19.pth
    python launch/train.py --config=configs/irnp_div2k.py:smoke        # a minute on a CPU

Begins with the weights in runs/irn_div2k_x4 (a run, a model folder or an official file:
--config.train.phases.plus.init_from=IRN_x4.pth).  `:vgg` adds the perceptual term; its
weights are torchvision's VGG19 as a file.  Without them the run says that it goes on
without the term.

The numbers are the released option file's: 400k steps, Adam 1e-4 halved at 50k, 100k,
200k, 300k, weights of the guidance 16, reconstruction 0.01, features 0.01, GAN 1; the
discriminator alone learns for the first 5000 steps.  Ours: not run.
"""

from ml_collections import ConfigDict

from configs.irn_div2k import rescaling_data, rescaling_training, smoke

MILESTONES = (50_000, 100_000, 200_000, 300_000)


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "vgg", "smoke"):
        raise ValueError(f"irnp_div2k has the variants vgg and smoke, not {arg!r}")
    config = ConfigDict()
    config.name = f"irnp_div2k_{arg}" if arg else "irnp_div2k"
    config.seed = 10
    config.model = {
        "family": "irn",
        "scale": 4,
        "discriminator": {"nf": 64, "size": 144},
        "features": arg == "vgg",
    }
    config.data = rescaling_data(4)
    common = {"lr": 1e-4, "schedule": "halve_at", "milestones": MILESTONES}
    phase = {
        "name": "plus",
        "loss": "plus",
        "steps": 400_000,
        "init_from": "runs/irn_div2k_x4",
        "init_groups": ("generator",),
        "init_files": {"features": "data/vgg19.pth"} if arg == "vgg" else {},
        "groups": [
            {
                "name": "generator",
                "from_step": 5_000,
                "weight_decay": 1e-5,
                "clip_norm": 10.0,
                **common,
            },
            {
                "name": "discriminator",
                "loss": "discriminator",
                "betas": (0.9, 0.99),
                "clip_norm": 0.0,
                **common,
            },
        ],
    }
    config.train = rescaling_training([phase])
    if arg == "smoke":
        smoke(config)
        config.model.discriminator = {"nf": 4, "size": 48}
        config.train.phases[0].update({"init_from": None, "init_groups": ()})
        config.train.phases[0]["groups"][0]["from_step"] = 2
    return config
