"""EDSR 2x on the images of an .npz file; give --config.data.train_dir=FILE.npz."""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """Return the configuration."""
    del arg
    group = {"name": "*", "lr": 1e-4}
    phase = {"name": "l1", "loss": "l1", "steps": 100_000, "groups": [group]}
    return ConfigDict(
        {
            "name": "edsr_npz",
            "model": {"family": "edsr", "scale": 2},
            "data": {"source": "npz", "train_dir": None, "scale": 2, "patch_size": 96},
            "train": {
                "batch_size": 16,
                "phases": [phase],
                "valid_every": 5000,
                "metrics": ["gmsd"],
                "best": "gmsd",
            },
        }
    )
