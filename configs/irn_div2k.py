"""IRN on DIV2K: an invertible network that downscales and restores.

    python launch/train.py --config=configs/irn_div2k.py               # x4
    python launch/train.py --config=configs/irn_div2k.py:x2            # also :x3 and :x8
    python launch/train.py --config=configs/irn_div2k.py:jpeg          # IRN-Compression, x2
    python launch/train.py --config=configs/irn_div2k.py:color         # IRN-Color
    python launch/train.py --config=configs/irn_div2k.py:smoke         # a minute on a CPU

Expects data/DIV2K/DIV2K_train_HR/*.png and data/DIV2K/DIV2K_valid_HR/*.png (set
--config.data.train_dir and --config.data.valid_dir for other folders of photographs).

Published (PSNR / SSIM on Y, restored from the model's own 8-bit LR image):
    x2  Set5 43.99 / .9871, Set14 40.79 / .9778, DIV2K validation 44.32 / .9908
    x4  Set5 36.19 / .9451, Set14 32.67 / .9015, DIV2K validation 35.07 / .9318
The numbers are the released option files': 500k steps, batch 16, patches of 144, Adam
2e-4 halved at 100k, 200k, 300k, 400k, L2 weight 1e-5 in the gradient, gradient norm at
most 10, weights of the guidance scale^2, of the reconstruction 1, of z 1.  Ours: not run.

`:jpeg` trains a net that repairs the LR after JPEG of quality 90, in front of the weights
in runs/irn_div2k_x2 (50k steps, 2e-4, loss on the LR).  For both together, with a
differentiable codec between them:
    --config.train.phases.restore.loss_options.codec=jpeg_like        # or diff_jpeg
    --config.train.phases.restore.loss_options.lambda_rec=1.0         # also _fit, _ce
    and a second group, generator, in the phase.
`:color` turns colour images into grey ones and back (batch 8, guidance 3, z = 0).

The released fine-tuning of x2 (L1 guidance and noise on the LR, 100k steps at 1e-5):
    --config.train.phases.rescale.init_from=runs/irn_div2k_x2
    --config.train.phases.rescale.loss_options.forward_loss=l1
    --config.train.phases.rescale.loss_options.lr_noise=0.01
    --config.train.phases.rescale.groups.generator.lr=1e-5
    --config.train.phases.rescale.steps=100000
"""

from ml_collections import ConfigDict

from configs.common import folder_data

SCALES = {"x2": 2, "x3": 3, "x4": 4, "x8": 8}


def get_config(arg: str = "") -> ConfigDict:
    variant = arg or "x4"
    if variant not in (*SCALES, "jpeg", "color", "smoke"):
        known = ", ".join((*SCALES, "jpeg", "color"))
        raise ValueError(f"irn_div2k has the variants {known} and smoke, not {arg!r}")
    config = ConfigDict()
    config.name = f"irn_div2k_{variant}"
    config.seed = 10
    scale = {**SCALES, "jpeg": 2, "color": 1}.get(variant, 4)
    config.model = {"family": "irn", "scale": scale}
    config.data = rescaling_data(scale)
    config.train = rescaling_training([rescale_phase()])
    if variant == "jpeg":
        config.model.restorer = {"nf": 64, "gc": 32, "nb": 8}
        config.train.phases = [restore_phase()]
    if variant == "color":
        config.data.float_lr = False  # the guide is the luminance of HR
        config.train.batch_size = 8
    if variant == "smoke":
        smoke(config)
    return config


def restore_phase(steps: int = 50_000) -> dict:
    """The restorer alone, on the LR images of a trained generator after JPEG."""
    group = {
        "name": "restorer",
        "lr": 2e-4,
        "clip_norm": 10.0,
        "schedule": "halve_at",
        "milestones": tuple(steps * i // 5 for i in range(1, 5)),
    }
    return {
        "name": "restore",
        "loss": "restore",
        "steps": steps,
        "loss_options": {"quality": 90},
        "init_from": "runs/irn_div2k_x2",
        "init_groups": ("generator",),
        "groups": [group],
    }


def rescaling_data(scale: int) -> dict:
    """144x144 patches, flips and rotations, and the bicubic LR in float."""
    data = folder_data(scale, "data/DIV2K/DIV2K_train_HR", "data/DIV2K/DIV2K_valid_HR")
    return {**data, "patch_size": 144, "rotations": True, "float_lr": True}


def rescale_phase(steps: int = 500_000, lr: float = 2e-4) -> dict:
    """The three terms with their released weights."""
    group = {
        "name": "generator",
        "lr": lr,
        "weight_decay": 1e-5,
        "clip_norm": 10.0,
        "schedule": "halve_at",
        "milestones": tuple(steps * i // 5 for i in range(1, 5)),
    }
    return {"name": "rescale", "loss": "rescale", "steps": steps, "groups": [group]}


def rescaling_training(phases: list[dict]) -> dict:
    return {
        "batch_size": 16,
        "phases": phases,
        "log_every": 100,
        "valid_every": 5_000,
        "checkpoint_every": 5_000,
        "valid_crop": 512,
    }


def smoke(config: ConfigDict) -> None:
    """Shrink a config to a minute on a CPU: embedded photographs, a tiny model, few steps."""
    config.model.update({"blocks": (1,) * len(bin(config.model.scale)[3:]), "growth": 4})
    config.data.update({"source": "embedded", "train_dir": None, "valid_dir": None})
    config.data.update({"patch_size": 48, "workers": 0})
    config.train.update({"batch_size": 2, "log_every": 2, "valid_every": 0, "valid_crop": 64})
    config.train.update({"valid_images": 2, "valid_draws": 2, "checkpoint_every": 4})
    for phase in config.train.phases:
        phase["steps"] = 6
