"""Palette: extending an image.

    python launch/train.py --config=configs/palette_uncropping.py
    python launch/train.py --config=configs/palette_uncropping.py:smoke      # a minute on a CPU

Data and training: palette_multitask.py.

Published: FID 5.8, IS 138.1, CA 63.4 %, PD 85.9.  Half of the area is drawn: on one side, or
around the image.
Ours: not run.
"""

from ml_collections import ConfigDict

from configs.palette_multitask import palette


def get_config(arg: str = "") -> ConfigDict:
    return palette("uncropping", ("uncrop",), "always", arg)
