"""Palette: filling holes.

    python launch/train.py --config=configs/palette_inpainting.py
    python launch/train.py --config=configs/palette_inpainting.py:smoke      # a minute on a CPU

Data and training: palette_multitask.py.

Published: ImageNet, centre 128x128: FID 6.6, IS 173.9, CA 69.3 %, PD 59.5; 20-30 % free-form:
5.2, 205.5, 72.3 %, 27.6.  Masks in training: 60 % free-form, 40 % rectangles.
Ours: not run.
"""

from ml_collections import ConfigDict

from configs.palette_multitask import palette


def get_config(arg: str = "") -> ConfigDict:
    return palette("inpainting", ("inpaint",), "always", arg)
