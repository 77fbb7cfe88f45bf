"""SRFlow on DIV2K (or DF2K): RRDB pre-training with L1, then the flow.

    python launch/train.py --config=configs/srflow_div2k.py            # 4x
    python launch/train.py --config=configs/srflow_div2k.py:8x
    python launch/train.py --config=configs/srflow_div2k.py:flow \
        --config.train.phases.flow.init_from=runs/rrdb_div2k           # encoder already trained
    python launch/train.py --config=configs/srflow_div2k.py:smoke      # a minute on a CPU

Expects data/DIV2K/DIV2K_train_HR/*.png and data/DIV2K/DIV2K_valid_HR/*.png (set
--config.data.train_dir and --config.data.valid_dir for other folders of photographs).

Published (DIV2K validation, 4x, temperature 0.9): PSNR 27.09; 200k + 200k steps, five
days on one V100.  Ours: not run.  The paper's training is the default (Gaussian noise,
encoder frozen for the first half, learning rate 5e-4); the released code differs by
accident (no noise, encoder trained from step 1, 2.5e-4 at 4x), which is
    --config.train.phases.flow.loss_options.noise=none
    --config.train.phases.flow.groups.encoder.from_step=0
    --config.train.phases.flow.groups.flow.lr=2.5e-4
    --config.train.phases.flow.groups.encoder.lr=2.5e-4
"""

from ml_collections import ConfigDict

from configs.common import encoder_phase, flow_phase, folder_data, paper_training, smoke


def get_config(arg: str = "") -> ConfigDict:
    variant = arg or "4x"
    if variant not in ("4x", "8x", "flow", "smoke"):
        raise ValueError(f"srflow_div2k has the variants 4x, 8x, flow and smoke, not {arg!r}")
    scale = 8 if variant == "8x" else 4
    config = ConfigDict()
    config.name = "srflow_div2k" if variant == "4x" else f"srflow_div2k_{variant}"
    config.seed = 10
    config.model = {
        "family": "srflow",
        "encoder": {"scale": scale, "nf": 64, "gc": 32, "nb": 23},
        "steps": (16,) * (4 if scale == 8 else 3),
        "transition_steps": 2,
        "hidden": 64,
        "stacked_blocks": (1, 3, 5, 7) if scale == 8 else (1, 8, 15, 22),
        "temperature": 0.9,
    }
    config.data = folder_data(scale, "data/DIV2K/DIV2K_train_HR", "data/DIV2K/DIV2K_valid_HR")
    config.train = paper_training([encoder_phase(), flow_phase()])
    if variant == "flow":
        config.train.phases = [flow_phase() | {"init_from": "runs/rrdb_div2k"}]
    if variant == "smoke":
        smoke(config)
    return config
