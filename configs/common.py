"""What the SRFlow configs share: the two phases of the paper and the CPU-sized variant."""

from ml_collections import ConfigDict

HALVINGS = (0.5, 0.75, 0.9, 0.95)


def encoder_phase(steps: int = 200_000, lr: float = 2e-4) -> dict:
    """L1 pre-training: Adam (0.9, 0.99), cosine restarts every 50k steps."""
    group = {
        "name": "encoder",
        "lr": lr,
        "betas": (0.9, 0.99),
        "schedule": "cosine_restart",
        "milestones": tuple(range(50_000, steps, 50_000)),
        "period": min(50_000, steps),
        "final_lr": 1e-7,
    }
    return {"name": "encoder", "loss": "l1", "steps": steps, "groups": [group]}


def flow_phase(steps: int = 200_000, lr: float = 5e-4, encoder_from: float = 0.5) -> dict:
    """NLL as in the paper: Gaussian noise, halvings at 50/75/90/95 %, Adam.

    The encoder is frozen until `encoder_from` (a fraction of the phase).
    """
    common = {"lr": lr, "schedule": "halve_at", "milestones": HALVINGS}
    return {
        "name": "flow",
        "loss": "nll",
        "steps": steps,
        "loss_options": {"noise": "gaussian", "sigma": 4 / 3**0.5},
        "init_from_data": True,
        "groups": [
            {"name": "flow", "warmup_steps": min(500, steps // 10), **common},
            {"name": "encoder", "from_step": encoder_from, **common},
        ],
    }


def paper_training(phases: list[dict]) -> dict:
    """Batch 16 as in the paper; averaged weights and gradient clipping are ours."""
    return {
        "batch_size": 16,
        "phases": phases,
        "ema_decay": 0.999,
        "clip_norm": 5.0,
        "log_every": 100,
        "valid_every": 10_000,
        "checkpoint_every": 1_000,
        "valid_crop": 512,
    }


def folder_data(scale: int, train_dir: str, valid_dir: str) -> dict:
    """160x160 patches of a folder of photographs, horizontal flips as released."""
    return {
        "source": "folder",
        "train_dir": train_dir,
        "valid_dir": valid_dir,
        "scale": scale,
        "patch_size": 160,
        "flips": True,
        "rotations": False,
        "workers": 8,
    }


def smoke(config: ConfigDict) -> None:
    """Shrink a config to a minute on a CPU: embedded photographs, a tiny model, few steps."""
    encoder = config.model.get("encoder", config.model)
    encoder.update({"nf": 8, "gc": 4, "nb": 2})
    if "steps" in config.model:
        config.model.steps = (1,) * len(config.model.steps)
        config.model.update({"hidden": 8, "stacked_blocks": (0, 1)})
    config.data.update({"source": "embedded", "train_dir": None, "valid_dir": None})
    config.data.update({"patch_size": 64, "workers": 0})
    config.train.update({"batch_size": 2, "log_every": 2, "valid_every": 0, "valid_crop": 64})
    config.train.update({"valid_images": 2, "valid_draws": 2, "checkpoint_every": 4})
    phases = {"l1": encoder_phase, "nll": flow_phase}
    config.train.phases = [phases[phase["loss"]](6) for phase in config.train.phases]
