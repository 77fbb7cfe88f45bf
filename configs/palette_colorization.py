"""Palette: colours for a grey image.

    python launch/train.py --config=configs/palette_colorization.py
    python launch/train.py --config=configs/palette_colorization.py:smoke      # a minute on a CPU

Data and training: palette_multitask.py.

Published: ctest10k with L2: FID 3.4, IS 212.9, CA 72.0 %, PD 48.0 (L1: 3.4, 215.8, 71.9 %,
45.8); FID-5K 15.78; fool rate 47.8 %.
Ours: not run.
"""

from ml_collections import ConfigDict

from configs.palette_multitask import palette


def get_config(arg: str = "") -> ConfigDict:
    return palette("colorization", ("colorize",), None, arg)
