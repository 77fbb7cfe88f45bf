"""NICE on MNIST (Dinh, Krueger and Bengio, 2014).

    python launch/prepare_data.py --tfds mnist --data-dir D
    python launch/train.py --config=configs/nice_mnist.py --config.data.tfds_dir=D
    python launch/train.py --config=configs/nice_mnist.py:smoke           # a minute on a CPU

Published: log-likelihood 1980.50 nats, which is 4.36 bits/dim (D = 784).  The other sets
of the paper: TFD 5514.71, SVHN 11496.55, CIFAR-10 5371.78.  Ours: not run.  The metric
log_likelihood is the published kind of number.

Four couplings of five hidden layers of 1000, the logistic prior; Adam with momentum 0.9,
1e-3 and eps 1e-4 as in the paper, whose beta2 = 0.01 is the share of the new value in the
notation of its time; batches of 200 as in the released code, 1500 epochs.
"""

from ml_collections import ConfigDict

from configs.glow_cifar10 import tfds_data


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "smoke"):
        raise ValueError(f"nice_mnist has the variant smoke, not {arg!r}")
    config = ConfigDict()
    config.name = "nice_mnist_smoke" if arg else "nice_mnist"
    config.seed = 0
    config.model = {"family": "nice", "shape": (28, 28, 1), "layers": 5, "hidden": 1000}
    config.data = tfds_data("mnist", 28, valid_split="test") | {"channels": 1}
    group = {"name": "flow", "lr": 1e-3, "betas": (0.9, 0.99), "eps": 1e-4}
    config.train = {
        "batch_size": 200,
        "phases": [{"name": "flow", "loss": "nll", "steps": 450_000, "groups": [group]}],
        "valid_every": 9_000,
        "valid_images": 500,
        "valid_draws": 1,
        "sheet_images": 8,
    }
    if arg == "smoke":
        config.model.update({"layers": 1, "hidden": 16})
        config.data = {"source": "embedded", "scale": 1, "patch_size": 28, "channels": 1}
        config.train.update({"batch_size": 8, "log_every": 2, "valid_every": 0})
        config.train.update({"valid_images": 2, "valid_crop": 28, "checkpoint_every": 4})
        config.train.phases[0]["steps"] = 6
    return config
