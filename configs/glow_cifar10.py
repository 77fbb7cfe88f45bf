"""Glow on CIFAR-10 (Kingma and Dhariwal, 2018).

    python launch/prepare_data.py --tfds cifar10 --data-dir D
    python launch/train.py --config=configs/glow_cifar10.py --config.data.tfds_dir=D
    python launch/train.py --config=configs/glow_cifar10.py:conditional   # 5 bits, ten classes
    python launch/train.py --config=configs/glow_cifar10.py:smoke         # a minute on a CPU

Published, bits/dim: 3.35 (8 bits), 1.67 (5 bits, unconditional); 44,603,604 parameters,
about a week on 8 GPUs.  Ours: not run.

Numbers are those of the released commands: Adamax with the released step, its beta2 and the
decay of the averaged weights 1 - 1/98, warm-up over 500,000 images, images moved by up to a
tenth of their sides.  The released validation measures the raw weights and ours the averaged
ones.  The released code runs until it is stopped; 1800 epochs are what its figure shows.
The figure's models: --config.model.permutation=reverse, shuffle or conv1x1,
--config.model.coupling=additive or affine.
"""

from ml_collections import ConfigDict

EPOCHS, WARMUP = 1800, 10  # of 50,000 images


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "conditional", "smoke"):
        raise ValueError(f"glow_cifar10 has the variants conditional and smoke, not {arg!r}")
    config = ConfigDict()
    config.name = f"glow_cifar10_{arg}" if arg else "glow_cifar10"
    config.seed = 0
    config.model = published_model(levels=3, steps=32)
    config.data = tfds_data("cifar10", 32, valid_split="test") | {"shift": 0.1}
    config.train = published_training(workers=8, batch_size=512)
    if arg == "conditional":
        config.model.update({"coupling": "additive", "n_bits": 5, "classes": 10})
        groups = config.train.phases[0]["groups"]
        groups.append({**groups[0], "name": "classifier"})
    if arg == "smoke":
        smoke(config)
    return config


def published_model(**fields) -> dict:
    """What all published models have in common."""
    return {"family": "glow", "hidden": 512, "compute": {"memory": "remat"}, **fields}


def tfds_data(name: str, size: int, **fields) -> dict:
    """Whole images of a tfds set, as they are."""
    return {
        "source": "tfds",
        "tfds_name": name,
        "scale": 1,
        "patch_size": size,
        "flips": False,
        "rotations": False,
        "workers": 4,
        **fields,
    }


def published_training(workers: int, batch_size: int) -> dict:
    """The released loop on so many GPUs: an epoch is 50,000 / (64 workers) steps, rounded up."""
    epoch = -(-50_000 // (64 * workers))
    group = {
        "lr": 1e-3,
        "optimizer": "adamax_glow",
        "betas": (0.9, 1 - 1 / epoch),
        "warmup_steps": WARMUP * 50_000 // (64 * workers),
    }
    return {
        "batch_size": batch_size,
        "phases": [
            {
                "name": "flow",
                "loss": "nll",
                "steps": EPOCHS * epoch,
                "init_from_data": True,
                "groups": [{"name": name, **group} for name in ("flow", "prior")],
            }
        ],
        "ema_decay": 1 - 1 / epoch,
        "valid_every": 50 * epoch,
        "valid_images": 500,
        "valid_draws": 1,
        "sheet_images": 8,
    }


def smoke(config: ConfigDict) -> None:
    """Shrink a Glow to a minute on a CPU: embedded photographs, a tiny model, few steps."""
    config.model.update({"levels": 2, "steps": 1, "hidden": 8, "size": 16})
    config.data = {"source": "embedded", "scale": 1, "patch_size": 16, "rotations": False}
    config.train.update({"batch_size": 8, "log_every": 2, "valid_every": 0, "checkpoint_every": 4})
    config.train.update({"valid_images": 2, "valid_crop": 16, "sheet_images": 2})
    config.train.phases[0]["steps"] = 6
    for group in config.train.phases[0]["groups"]:
        group["warmup_steps"] = 2
