"""The small SRFlow 4x in the package: flowsr_jax.load("demo").

    python launch/train.py --config=configs/srflow_demo.py --workdir=runs/demo

734,000 parameters, 1.5 MB as float16.  Trained on the six photographs embedded in
installed packages, with permuted colour channels; an hour on two cores.  Measured table:
flowsr_jax/weights/demo/README.md.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    if arg:
        raise ValueError(f"srflow_demo has no variants, got {arg!r}")
    config = ConfigDict()
    config.name = "demo"
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
        # Steps at half the HR size too: fewer parameters than the same number at the LR size,
        # and a better likelihood.
        "steps": (4, 3),
        "transition_steps": 1,
        "hidden": 32,
        "stacked_blocks": (),
        "splits": (),
        "shift_by_encoder": True,
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
        "log_every": 100,
        "valid_every": 1000,
        "checkpoint_every": 1000,
        "sheet_images": 3,
        "valid_draws": 3,
        "phases": [
            {
                "name": "encoder",
                "loss": "l1",
                "steps": 6000,
                "groups": [_group("encoder", 3e-3, 100, clip_norm=0.1)],
            },
            {
                "name": "flow",
                "loss": "nll",
                "steps": 5000,
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
