"""Files of attributes: labels of images, and directions in a flow's latent space."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flowsr_jax.config import nearest
from flowsr_jax.files.atomic import atomic_write
from flowsr_jax.io.torch_file import read_npz


@dataclasses.dataclass(frozen=True)
class Labels:
    """Attributes of images.

    Attributes:
      names: of the A attributes.
      values: {image name: A values, 1 or -1}, in the order of the file.
    """

    names: tuple[str, ...]
    values: dict[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Directions:
    """Directions in latent space.

    Attributes:
      names: of the A attributes.
      array: float32 [A,D]; see `unconditional.attribute_directions`.
    """

    names: tuple[str, ...]
    array: np.ndarray

    def of(self, wanted: Sequence[str] | None) -> Directions:
        """Return those of the wanted names; see `choose`."""
        names = choose(self.names, wanted)
        return Directions(names, self.array[[self.names.index(name) for name in names]])


def choose(known: Sequence[str], wanted: Sequence[str] | None) -> tuple[str, ...]:
    """Return the wanted attributes; None is all.

    Raises:
      ValueError: one that is not there.
    """
    for name in wanted or ():
        if name not in known:
            raise ValueError(
                f"no attribute {name!r}{nearest(name, known)} (there are {', '.join(known)})"
            )
    return tuple(known if wanted is None else wanted)


def read_labels(path: str | os.PathLike) -> Labels:
    """Read attributes of images from a text file.

    Two layouts are taken: a table whose first line names the columns and whose first
    column is the image (fields separated by commas, else by blanks), and that of CelebA's
    list_attr_celeba.txt, which begins with the number of images and whose line of names
    names the attributes only.  Values are 1 (or +1) and -1.

    Raises:
      ValueError: another layout or value, or an image with two lines; file and line named.
      OSError: the file cannot be read.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is no text file") from None
    comma = "," in text
    rows = [
        (number, [field.strip() for field in (line.split(",") if comma else line.split())])
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip()
    ]
    if rows and len(rows[0][1]) == 1 and rows[0][1][0].isdecimal():
        rows = rows[1:]  # CelebA's number of images
    if len(rows) < 2:
        raise ValueError(f"{path}: holds no labels (a line of names, then a line per image)")
    (line, names), rows = rows[0], rows[1:]
    if len(names) == len(rows[0][1]):
        names = names[1:]
    if not names or any(name.lstrip("+-").isdecimal() for name in names):
        raise ValueError(f"{path}, line {line}: the first line must name the attributes")
    if len(set(names)) < len(names):
        raise ValueError(f"{path}, line {line}: two attributes have one name")
    values: dict[str, tuple[int, ...]] = {}
    for line, (image, *found) in rows:
        if len(found) != len(names):
            raise ValueError(f"{path}, line {line}: {len(found)} values of {len(names)} attributes")
        for name, value in zip(names, found, strict=True):
            if value not in ("1", "+1", "-1"):
                raise ValueError(f"{path}, line {line}: {name} = {value!r} is neither 1 nor -1")
        if image in values:
            raise ValueError(f"{path}, line {line}: {image!r} has a line already")
        values[image] = tuple(map(int, found))
    return Labels(tuple(names), values)


def write_directions(path: str | os.PathLike, directions: Directions) -> None:
    """Write directions as .npz: `names` (text [A]) and `directions` (float32 [A,D])."""
    with atomic_write(path) as file:
        np.savez(file, names=np.array(directions.names), directions=directions.array)


def read_directions(path: str | os.PathLike) -> Directions:
    """Read directions: an .npz of `write_directions`, or an .npy of [A,D].

    Such an .npy is the released z_manipulate.npy (40 x 196608, CelebA's attributes in the
    order of its list); its rows are called "0", "1", ...

    Raises:
      ValueError: a file of another kind.
      OSError: it cannot be read.
    """
    path = Path(path)
    if path.suffix == ".npy":
        try:  # mapped: a header that claims more than the file holds reserves nothing
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{path}: damaged .npy ({error})") from None
        names = tuple(map(str, range(len(array)))) if array.ndim else ()
    else:
        found = read_npz(path)
        if not {"names", "directions"} <= set(found):
            raise ValueError(f"{path}: is no file of directions (needs names and directions)")
        names, array = tuple(map(str, found["names"].reshape(-1))), found["directions"]
    floats = np.issubdtype(array.dtype, np.floating) and array.ndim == 2
    if not floats or len(names) != len(array) or not np.isfinite(array).all():
        raise ValueError(
            f"{path}: must hold finite floats [A,D] and A names, got {array.dtype} {array.shape} "
            f"and {len(names)}"
        )
    return Directions(names, np.array(array, np.float32))
