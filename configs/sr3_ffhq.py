"""SR3 16 -> 128 on faces: trained on FFHQ, measured on CelebA-HQ.

    python launch/train.py --config=configs/sr3_ffhq.py            # the public code's network
    python launch/train.py --config=configs/sr3_ffhq.py:paper      # the paper's, an interpretation
    python launch/train.py --config=configs/sr3_ffhq.py:512        # 64 -> 512, public network
    python launch/train.py --config=configs/sr3_ffhq.py:smoke      # a minute on a CPU

Expects faces of the target size in data/FFHQ/128 and data/CelebA-HQ/128 (for 512: .../512).
The LR images are made by MATLAB's bicubic (the public code shrinks the originals with
Pillow's), and the noise levels are drawn per example, uniform in gamma, as the paper says
(the public code: --config.train.phases.diffusion.loss_options.levels=public).

Published, 16 -> 128: SR3 PSNR 23.04, SSIM 0.65, consistency 2.68e-5; regression 23.96, 0.69,
2.71e-5 (the paper, table 1); public code 23.26, 0.675, and 64 -> 512: 19.87, 0.445.  Human
fool rate close to 50 %.  The paper trains 1M steps of batch 256 with dropout 0.2; its
network has 550M parameters, this reading of it 554M (its text does not tell all); the
public one has 97.8M.  Ours: not run.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "paper", "512", "smoke")


def get_config(arg: str = "") -> ConfigDict:
    if arg not in VARIANTS:
        raise ValueError(f"sr3_ffhq has the variants {', '.join(VARIANTS[1:])}, not {arg!r}")
    config = ConfigDict()
    config.name = "sr3_ffhq" + (f"_{arg}" if arg else "")
    config.seed = 0
    size = 512 if arg == "512" else 128
    config.model = {"family": "sr3", "scale": 8, "unet": public_unet()}
    if arg == "512":
        config.model.unet = public_unet(
            multipliers=(1, 2, 4, 8, 16), res_blocks=1, attn_res=(), image_size=512, norm_groups=16
        )
        config.model.unet.dropout = 0.0
    if arg == "paper":
        config.model.unet = paper_unet((1, 2, 4, 8, 8), 3, 128)
        config.model.unet.dropout = 0.2
    config.data = folder_data(8, f"data/FFHQ/{size}", f"data/CelebA-HQ/{size}", size)
    config.train = diffusion_training()
    if arg == "smoke":
        smoke(config)
    return config


def public_unet(**changes) -> dict:
    """The public code's 16 -> 128 network, with changes."""
    return ConfigDict(
        {
            "channels": 64,
            "multipliers": (1, 2, 4, 8, 8),
            "res_blocks": 2,
            "attn_res": (16,),
            "image_size": 128,
            "norm_groups": 32,
            "dropout": 0.2,
            **changes,
        }
    )


def paper_unet(multipliers: tuple, res_blocks: int, size: int, channels: int = 128) -> dict:
    """The paper's widths with BigGAN blocks; bfloat16, each block recomputed in the backward."""
    return ConfigDict(
        {
            "channels": channels,
            "multipliers": multipliers,
            "res_blocks": res_blocks,
            "attn_res": (16,),
            "image_size": size,
            "norm_groups": 32,
            "dropout": 0.0,
            "block": "biggan",
            "init": "zero_last",
            "compute": {"dtype": "bfloat16", "memory": "remat"},
        }
    )


def folder_data(scale: int, train_dir: str, valid_dir: str, patch: int) -> dict:
    """Whole images, or crops of larger ones; horizontal flips, as published."""
    return {
        "source": "folder",
        "train_dir": train_dir,
        "valid_dir": valid_dir,
        "scale": scale,
        "patch_size": patch,
        "flips": True,
        "rotations": False,
        "workers": 8,
    }


def diffusion_training(groups: tuple = ("unet",), **options) -> dict:
    """The paper's: batch 256, Adam 1e-4 after 10k steps of warm-up, 1M steps.

    The averaged weights' decay is Palette's (the paper tells none).
    """
    lr = options.pop("lr", 1e-4)
    warmup = options.pop("warmup_steps", 10_000)
    steps, batch = options.pop("steps", 1_000_000), options.pop("batch_size", 256)
    return {
        "batch_size": batch,
        "ema_decay": options.pop("ema_decay", 0.9999),
        "log_every": 200,
        "valid_every": 10_000,
        "checkpoint_every": 10_000,
        "valid_images": 8,
        "phases": [
            {
                "name": "diffusion",
                "loss": "eps",
                "steps": steps,
                "loss_options": options,
                "groups": [{"name": name, "lr": lr, "warmup_steps": warmup} for name in groups],
            }
        ],
    }


def smoke(config: ConfigDict, size: int = 32) -> None:
    """Shrink a config to a minute on a CPU: a tiny network, embedded photographs, few steps."""
    unet = config.model.unet
    unet.update({"channels": 8, "multipliers": (1, 2), "res_blocks": 1, "norm_groups": 4})
    unet.update({"image_size": size, "attn_res": ()})
    config.data.update({"source": "embedded", "train_dir": None, "valid_dir": None})
    config.data.update({"patch_size": size, "workers": 0})
    config.train.update({"batch_size": 2, "log_every": 2, "valid_every": 0, "checkpoint_every": 4})
    config.train.update({"valid_images": 1, "valid_draws": 1, "valid_crop": size})
    config.train.phases[0]["steps"] = 6
    for group in config.train.phases[0]["groups"]:
        group["warmup_steps"] = 2
