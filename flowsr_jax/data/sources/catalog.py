"""What to say when a data set is not there: what to download, its licence, what to set.

Sizes in bytes are those of the checksum lists of tensorflow-datasets 4.9.10.
"""

from __future__ import annotations

import dataclasses
import os
import re


@dataclasses.dataclass(frozen=True)
class Entry:
    """A public data set.

    Attributes:
      title: what people call it.
      words: a regular expression that finds it in a path or in the name of a tfds set.
      files: what to download, with sizes, and from where.
      licence: the terms, in a line.
    """

    title: str
    words: str
    files: str
    licence: str


# The first entry that fits is taken.
ENTRIES = (
    Entry(
        "DIV2K",
        r"div2k",
        "DIV2K_train_HR.zip (3,530,603,713 bytes) and DIV2K_valid_HR.zip (448,993,893); LR images: "
        "DIV2K_{train,valid}_LR_bicubic_X2.zip (925,390,592 / 117,763,600), _X3 (427,847,282 / "
        "54,513,392), _X4 (246,914,039 / 31,505,881), DIV2K_{train,valid}_LR_x8.zip (65,753,171 / "
        "8,428,103), DIV2K_{train,valid}_LR_unknown_X{2,3,4}.zip, _LR_{mild,difficult,wild}.zip; "
        "all at data.vision.ee.ethz.ch/cvl/DIV2K/",
        "academic research only; the images belong to their owners",
    ),
    Entry(
        "Flickr2K",
        r"flickr2k|df2k",
        "Flickr2K.tar (about 11 GB) at cv.snu.ac.kr/research/EDSR/: Flickr2K_HR and "
        "Flickr2K_LR_bicubic/X{2,3,4}",
        "academic research only; the images belong to their owners",
    ),
    Entry(
        "FFHQ",
        r"ffhq",
        "images1024x1024 (70,000 PNG files) of the FFHQ data set",
        "CC BY-NC-SA 4.0 as a whole; each image has its own (CC BY, CC BY-NC, public domain)",
    ),
    Entry(
        "CelebA-HQ",
        r"celeb_?a[-_]?(mask[-_]?)?hq",
        "30,000 images; tfds wants data<size>x<size>.tar with the PNG files in its manual folder",
        "non-commercial research only",
    ),
    Entry(
        "CelebA",
        r"celeb_?a",
        "img_align_celeba.zip (1,443,490,838 bytes) and list_eval_partition.txt",
        "non-commercial research only",
    ),
    Entry(
        "downsampled ImageNet (the sets of PixelRNN)",
        r"downsampled[-_]?imagenet",
        "train_32x32.tar (4,113,018,880 bytes) and valid_32x32.tar (161,474,560), or "
        "train_64x64.tar (12,112,588,800) and valid_64x64.tar (477,255,680); the official links "
        "have been dead for years",
        "non-commercial research and education only",
    ),
    Entry(
        "resized ImageNet (box filter; other pixels than downsampled ImageNet)",
        r"imagenet[-_]?resized",
        "Imagenet32_train_npz.zip (3,580,435,279 bytes) and Imagenet32_val_npz.zip, or "
        "Imagenet64_train_part1_npz.zip, _part2 and Imagenet64_val_npz.zip",
        "non-commercial research and education only",
    ),
    Entry(
        "ImageNet (ILSVRC 2012)",
        r"imagenet",
        "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from image-net.org (with an account), "
        "put into the manual folder of tfds",
        "non-commercial research and education only",
    ),
    Entry(
        "CIFAR-10",
        r"cifar-?10",
        "cifar-10-binary.tar.gz (170,052,171 bytes) at www.cs.toronto.edu/~kriz/",
        "none stated; its authors ask to be cited",
    ),
)


def advice(text: str) -> str:
    """Return what to download for the set that a path or name speaks of; "" if unknown."""
    for entry in ENTRIES:
        if re.search(entry.words, text, re.IGNORECASE):
            return f"{entry.title}: download {entry.files}. Licence: {entry.licence}."
    return ""


def missing_folder(path: str, option: str) -> str:
    """Return the message for a folder that is not there.

    Args:
      path: the folder; `option`: what names it, for example "data.train_dir".
    """
    found = advice(path) or "Any folder of PNG, JPEG, WebP or TIFF files will do."
    return (
        f"{option} = {path!r} is not a folder (looked in {os.path.abspath(path)}). {found} "
        f"Then set {option} to the folder of the images"
    )
