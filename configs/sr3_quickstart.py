"""A small SR3 4x on the photographs embedded in installed packages: minutes on two cores.

    python launch/train.py --config=configs/sr3_quickstart.py --workdir=runs/sr3_quickstart
    python launch/train.py --config=configs/sr3_quickstart.py:smoke     # a minute on a CPU

Trains on astronaut, rocket, hubble, china and the motorcycle pair, and is measured on
coffee, chelsea and flower, which it never sees.  Differences from the paper that make so
short a training show something: the difference to the bicubic image is diffused (as SRDiff
does) and v is predicted, both steadier at high noise; cosine learning rate; 20 steps of
DPM-Solver++(2M) with noise by default.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "smoke"):
        raise ValueError(f"sr3_quickstart has the variant smoke, not {arg!r}")
    config = ConfigDict()
    config.name = "sr3_quickstart" + (f"_{arg}" if arg else "")
    config.seed = 0
    config.model = {
        "family": "sr3",
        "scale": 4,
        "residual": 6.0,
        "prediction": "v",
        "unet": {
            "channels": 32,
            "multipliers": (1, 2, 3),
            "res_blocks": 1,
            "attn_res": (),
            "mid_attention": False,
            "image_size": 48,
            "norm_groups": 8,
            "dropout": 0.0,
            "init": "zero_last",
            "compute": {"conv": "xla"},
        },
        "sampler": {"name": "dpmpp2m", "steps": 20, "spacing": "log_snr", "eta": 1.0},
    }
    config.data = {
        "source": "embedded",
        "scale": 4,
        "patch_size": 48,
        "color_permutations": True,
    }
    config.train = {
        "batch_size": 12,
        "ema_decay": 0.998,
        "clip_norm": 1.0,
        "log_every": 100,
        "valid_every": 0,
        "checkpoint_every": 500,
        "sheet_images": 3,
        "valid_crop": 192,
        "valid_draws": 2,
        "phases": [
            {
                "name": "diffusion",
                "loss": "eps",
                "steps": 2200,
                "loss_options": {"norm": "l2"},
                "groups": [
                    {
                        "name": "unet",
                        "lr": 1e-3,
                        "schedule": "cosine",
                        "final_lr": 2e-5,
                        "warmup_steps": 100,
                    }
                ],
            }
        ],
    }
    if arg == "smoke":
        config.model.unet.update({"channels": 8, "norm_groups": 4})
        config.data.patch_size = 32
        config.train.update({"batch_size": 2, "log_every": 2, "checkpoint_every": 4})
        config.train.update({"valid_images": 1, "valid_draws": 1, "valid_crop": 32})
        config.train.phases[0]["steps"] = 6
        config.train.phases[0]["groups"][0]["warmup_steps"] = 2
    return config
