"""A small SRFlow 4x on the photographs embedded in installed packages: minutes on two cores.

    bash launch/quickstart.sh
    python launch/train.py --config=configs/srflow_quickstart.py --workdir=runs/quickstart

Trains on astronaut, rocket, hubble, china and the motorcycle pair, and is measured on
coffee, chelsea and flower, which it never sees.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    if arg:
        raise ValueError(f"srflow_quickstart has no variants, got {arg!r}")
    config = ConfigDict()
    config.name = "quickstart"
    config.seed = 0
    # On the CPU unrolled steps with the compiler's own convolution gradients are fastest.
    compute = {"conv": "xla", "unroll": True}
    config.model = {
        "family": "srflow",
        "encoder": {
            "scale": 4,
            "nf": 32,
            "gc": 16,
            "nb": 2,
            "head": "subpixel",
            "residual": True,
            "compute": compute,
        },
        # All conditional steps work at the LR resolution, on 48 channels.
        "steps": (0, 8),
        "transition_steps": 1,
        "hidden": 48,
        "stacked_blocks": (),
        "splits": (),
        "shift_by_encoder": True,
        "condition_on_estimate": True,
        "scale_form": "tanh",
        "scale_clamp": 1.0,
        "temperature": 0.8,
        "compute": compute,
    }
    config.data = {
        "source": "embedded",
        "scale": 4,
        "patch_size": 80,
        "color_permutations": True,
    }
    config.train = {
        "batch_size": 8,
        "ema_decay": 0.997,
        "log_every": 50,
        "valid_every": 0,
        "checkpoint_every": 300,
        "sheet_images": 3,
        "valid_draws": 3,
        "phases": [
            {
                "name": "encoder",
                "loss": "l1",
                "steps": 900,
                "groups": [_group("encoder", 3e-3, 100, clip_norm=0.1)],
            },
            {
                "name": "flow",
                "loss": "nll",
                "steps": 800,
                "loss_options": {"noise": "gaussian", "sigma": 1.0},
                "init_from_data": True,
                "groups": [_group("flow", 2e-3, 100)],
            },
        ],
    }
    return config


def _group(name: str, lr: float, warmup: int, clip_norm: float = 1.0) -> dict:
    return {
        "name": name,
        "lr": lr,
        "betas": (0.9, 0.99),
        "schedule": "cosine",
        "warmup_steps": warmup,
        "final_lr": 1e-5,
        "clip_norm": clip_norm,
    }
