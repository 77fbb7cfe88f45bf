"""Palette: undoing JPEG compression.

    python launch/train.py --config=configs/palette_jpeg.py
    python launch/train.py --config=configs/palette_jpeg.py:smoke      # a minute on a CPU

Data and training: palette_multitask.py.

Published: quality 5: FID 8.3, IS 133.6, CA 64.2 %, PD 95.5; 10: 5.4, 180.5, 70.7 %, 58.3; 20: 4.3,
208.7, 73.5 %, 37.1.  Qualities of 5 to 30 in training, drawn as exp(-Q / 10).
Ours: not run.
"""

from ml_collections import ConfigDict

from configs.palette_multitask import palette


def get_config(arg: str = "") -> ConfigDict:
    return palette("jpeg", ("jpeg",), None, arg)
