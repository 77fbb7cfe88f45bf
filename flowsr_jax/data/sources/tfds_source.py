"""Sets prepared by tensorflow-datasets as array_record; TensorFlow is not needed to read.

Preparing them does need TensorFlow: see prepare.py.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from flowsr_jax.config import ConfigError, nearest
from flowsr_jax.data.sources import MIB
from flowsr_jax.data.sources.cache import Cache
from flowsr_jax.data.sources.catalog import advice
from flowsr_jax.extras import require
from flowsr_jax.files.images import ImageError

INFO = "dataset_info.json"
# name[/option][:version] of a tfds set.
NAME = re.compile(r"(?P<set>\w+)(/(?P<option>[\w.-]+))?(:(?P<version>\d+\.\d+\.\d+))?")


class TfdsSource:
    """A split of a set with the features "hr" and "lr", or "image" and perhaps "label".

    Tried with div2k (all options), celeb_a_hq, imagenet2012, cifar10, downsampled_imagenet
    and imagenet_resized.

    Args:
      name: set and option, for example "div2k/bicubic_x4".
      split: a split or a slice of one: "train", "train[:90%]".
      data_dir: where sets are; None is $TFDS_DATA_DIR or ~/tensorflow_datasets.
      scale: HR size over LR size; None takes it from a name such as "div2k/bicubic_x4".
      min_size: least height and width; checked now where the set fixes the size.
      cache_mib: decoded images kept in memory.

    Attributes:
      fields: what an example holds: "hr", perhaps "lr" and "label".
      scale: the scale, where it is known.

    Raises:
      ConfigError: the set is not prepared, not as array_record, or has no such split; its
        images are too small, or its LR images of another scale.
    """

    def __init__(
        self,
        name: str,
        split: str,
        *,
        data_dir: str | None = None,
        scale: int | None = None,
        min_size: int = 1,
        cache_mib: int = 1024,
    ):
        folder = find_prepared(name, data_dir)
        require("tensorflow_datasets")
        import tensorflow_datasets as tfds

        try:
            builder = tfds.builder_from_directory(folder)
            features = builder.info.features
            instructions = builder.info.splits[split].file_instructions
            self._records = builder.as_data_source(split=split)
        except Exception as error:  # tfds raises nearly anything on a damaged description
            found = sorted(_json(folder)[1])
            hint = f" (splits: {', '.join(found)}{nearest(split, found)})"
            reason = str(error).strip().split("\n")[0]
            raise ConfigError(
                f"split {split!r} of {name!r} in {folder} cannot be opened{hint}: {reason}"
            ) from None
        lost = [i.filename for i in instructions if not os.path.isfile(i.filename)]
        if lost:
            raise ConfigError(f"{folder}: {len(lost)} files are missing, the first: {lost[0]}")
        keys = {"hr": "hr", "lr": "lr"} if {"hr", "lr"} <= set(features) else {"hr": "image"}
        if keys["hr"] not in features:
            raise ConfigError(
                f"{name!r} has the features {', '.join(sorted(features))}; needed are hr and lr, "
                "or image"
            )
        if "label" in features:
            keys["label"] = "label"
        self.fields, self._keys = tuple(keys), keys
        self._name = f"{name}/{split}"
        size = features[keys["hr"]].shape[:2]
        if None not in size and min(size) < min_size:
            raise ConfigError(
                f"the images of {name!r} have {size[1]}x{size[0]} pixels, at least "
                f"{min_size}x{min_size} are needed; set data.patch_size"
            )
        made_for = re.search(r"_x(\d+)$", name.partition(":")[0]) if "lr" in keys else None
        self.scale = scale or (int(made_for[1]) if made_for else None)
        if made_for and int(made_for[1]) != self.scale:
            raise ConfigError(
                f"{name!r} has LR images of scale {made_for[1]}, data.scale is {scale}"
            )
        self._cache = Cache(cache_mib * MIB)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        return dict(self._cache.get(index, lambda: self._decode(index)))

    def name(self, index: int) -> str:
        """Return set, split and number of the image."""
        return f"{self._name}/{index}"

    def _decode(self, index: int) -> dict[str, Any]:
        try:
            found = self._records[index]
            example = {k: found[v] for k, v in self._keys.items()}
            images = {k: _rgb(example[k]) for k in ("hr", "lr") if k in example}
        except Exception as error:  # the decoders raise nearly anything on damaged bytes
            reason = str(error).split(";")[0].split("\n")[0] or type(error).__name__
            raise ImageError(f"{self.name(index)}: cannot be read ({reason})") from None
        label = {"label": int(example["label"])} if "label" in example else {}
        return {**images, **label}


def data_folder(data_dir: str | None) -> Path:
    """Return the folder of all tfds sets: `data_dir`, or what tfds itself takes."""
    default = os.environ.get("TFDS_DATA_DIR") or os.path.join("~", "tensorflow_datasets")
    return Path(data_dir or default).expanduser().absolute()


def find_prepared(name: str, data_dir: str | None = None) -> Path:
    """Return the folder of the newest prepared version of a set.

    Raises:
      ConfigError: it is not prepared, or not as array_record.
    """
    match = NAME.fullmatch(name)
    if not match:
        raise ConfigError(f"tfds_name = {name!r} must be SET/OPTION, as 'div2k/bicubic_x4'")
    root = data_folder(data_dir)
    base = root / match["set"] / (match["option"] or "")
    files = [
        file
        for file in base.glob(f"{match['version'] or '*'}/{INFO}")
        if re.fullmatch(r"\d+\.\d+\.\d+", file.parent.name)
    ]
    if not files:
        options = sorted({f.parent.parent.name for f in base.glob(f"*/*/{INFO}")})
        raise ConfigError(
            f"the set {name!r} is not prepared: no {base}/*/{INFO}"
            + (f" (options there: {', '.join(options)})" if options else "")
            + f". Run flowsr prepare-data --tfds {name} --data-dir {root}, or set "
            f"data.tfds_dir. {advice(name)}".rstrip()
        )
    newest = max(files, key=lambda f: [int(n) for n in f.parent.name.split(".")])
    kind = _json(newest.parent)[0]
    if kind != "array_record":
        raise ConfigError(
            f"{newest.parent} was prepared as {kind}, which cannot be read at random; run python "
            f"flowsr prepare-data --tfds {name} --data-dir OTHER_FOLDER, and set data.tfds_dir"
        )
    return newest.parent


def _json(folder: Path) -> tuple[str, list[str]]:
    """Return (file format, names of the splits) of a prepared set."""
    try:
        info = json.loads((folder / INFO).read_text(encoding="utf-8"))
        splits = [split["name"] for split in info.get("splits", [])]
        return info.get("fileFormat", "tfrecord"), splits  # old descriptions do not say
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{folder / INFO} cannot be read ({error})") from None


def _rgb(image: np.ndarray) -> np.ndarray:
    """Return uint8 [H,W,3]; grey images get three channels, transparency is dropped."""
    if image.dtype != np.uint8:
        raise ValueError(f"its samples are {image.dtype}, not uint8")
    image = image[..., None] if image.ndim == 2 else image
    if image.ndim != 3 or image.shape[2] not in (1, 2, 3, 4) or 0 in image.shape:
        raise ValueError(f"its shape is {image.shape}")
    channels = [0, 0, 0] if image.shape[2] < 3 else [0, 1, 2]
    return np.ascontiguousarray(image[..., channels])
