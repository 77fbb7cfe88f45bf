"""The training pipeline (shuffled, sharded, resumable) and the validation pairs.

    source -> shuffle -> repeat -> random patches -> batches -> this process's share

Position j of the stream is a function of (seed, j) alone.  Shares are whole batches, dealt
out after the random part, so neither the worker count nor the number of processes changes
a global batch or the order of its rows, and a position is one number: the batches delivered.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flowsr_jax.config import ConfigError
from flowsr_jax.data.config import DataConfig
from flowsr_jax.data.degradations import degrade_image
from flowsr_jax.data.sources import Source
from flowsr_jax.data.transforms import degrade, fits, training_patches, whole_cells
from flowsr_jax.extras import require

Batch = dict[str, np.ndarray]

# grain's shuffle is slow for few indices (it draws until it hits one: 2 ms for 6), so a
# small source is shuffled as this many visits, the same number to each image.
MIN_VISITS = 512
PREFETCH = 4
# Random degradations of validation image i draw from the generator of (this, i).
VALID_SEED = 20200623


class Loader:
    """An endless iterator of batches that can be put back to any position.

    Made by `make_loader`.  A context manager; `close` ends its threads and processes.
    """

    def __init__(self, dataset, workers: int, record: dict[str, int]):
        self._dataset, self._workers, self._record = dataset, workers, record
        self._step = 0
        self._running: list[Any] = []  # grain's iterator, once there is one
        # Also at the interpreter's exit, where grain's own clean-up comes too late.
        weakref.finalize(self, _stop, self._running)

    def __iter__(self) -> Loader:
        return self

    def __next__(self) -> Batch:
        if not self._running:
            self._running.append(self._start())
        batch = next(self._running[0])
        self._step += 1
        # Arrays from worker processes lie in shared memory that grain takes back.
        return {k: np.array(v) for k, v in batch.items()} if self._workers else batch

    def get_state(self) -> dict[str, int]:
        """Return the position (JSON-ready): batches delivered, and what they depend on."""
        return {"step": self._step, **self._record}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go to a position; the next batch is bit for bit the one that followed there.

        The state may come from another number of workers, or of processes with the same
        global batch.  With another number of images the order of all that follows is new.

        Raises:
          ValueError: no state of a loader, or of one whose batches were different.
        """
        wanted = {"step", *self._record}
        if not isinstance(state, Mapping) or set(state) != wanted:
            raise ValueError(f"a loader's state has the fields {sorted(wanted)}, got {state!r}")
        for name, value in self._record.items():
            if name != "images" and state[name] != value:
                raise ValueError(
                    f"the loader's state was saved with {name} = {state[name]!r}, this loader "
                    f"has {value}: the batches would not be those that follow"
                )
        step = state["step"]
        if isinstance(step, bool) or not isinstance(step, int) or step < 0:
            raise ValueError(f"the state's step must be an integer of at least 0, got {step!r}")
        self.close()
        self._step = step

    def close(self) -> None:
        """Stop reading ahead; the position stays, and iteration may go on."""
        _stop(self._running)

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self):
        import grain

        rest = self._dataset[self._step :]
        reading = grain.ReadOptions(num_threads=1, prefetch_buffer_size=PREFETCH)
        iterable = rest.to_iter_dataset(reading)
        if self._workers:
            from absl import flags

            # grain's workers read absl flags, which programs without absl never parse.
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()
            options = grain.MultiprocessingOptions(
                num_workers=self._workers, per_worker_buffer_size=PREFETCH
            )
            iterable = iterable.mp_prefetch(options, _end_with_parent)
        return iter(iterable)


def make_loader(
    source: Source,
    config: DataConfig,
    *,
    batch_size: int,
    seed: int,
    shard: tuple[int, int] = (0, 1),
    workers: int | None = None,
) -> Loader:
    """Make the endless loader of training batches.

    Each pass visits every image equally often, in a new order; the patch and its
    augmentation are drawn anew on each visit.

    Args:
      source: images, each at least config.patch_size on both sides.
      config: patches and augmentations; `crops_per_image` must divide the batch size.
      batch_size: patches per batch of this process.
      seed: fixes order and patches; 0 <= seed < 2**32.
      shard: (index, count) of this process; the shares are disjoint and complete.
      workers: processes that prepare batches, 0 for a thread; None takes config.workers.
        With processes, a script needs the usual `if __name__ == "__main__"`.

    Returns:
      a Loader of {"hr": uint8 [b,P,P,3], "lr": uint8 [b,P/s,P/s,3]}, and "label": int32 [b]
      where the source has labels.

    Raises:
      ConfigError: an argument out of its range.
    """
    require("grain")
    import grain  # imports slowly

    index, count = shard
    workers = config.workers if workers is None else workers
    crops = config.crops_per_image
    if batch_size < 1 or batch_size % crops:
        raise ConfigError(
            f"batch_size = {batch_size} must be at least 1 and a multiple of "
            f"crops_per_image = {crops}"
        )
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed = {seed} must lie in 0..2**32-1")
    if not 0 <= index < count:
        raise ConfigError(f"shard = {shard} must be (index, count) with 0 <= index < count")
    if workers < 0:
        raise ConfigError(f"workers = {workers} must be at least 0")
    if len(source) == 0:
        raise ConfigError("the source has no images")

    visits = _Visits(source, -(-MIN_VISITS // len(source)), config)
    dataset = (
        grain.MapDataset.source(visits)
        .seed(seed)
        .shuffle()
        .repeat(None)
        .random_map(functools.partial(training_patches, config=config))
        # Each process takes whole batches in turn.  The processes' batches side by side are then,
        # row for row, the batch of a single process, and so are the random draws of the rows.
        .batch(batch_size // crops, drop_remainder=True, batch_fn=_concatenate)[index::count]
    )
    record = {"seed": seed, "global_batch": batch_size * count, "images": len(source)}
    return Loader(dataset, workers, record)


def valid_pairs(
    source: Source, config: DataConfig, *, multiple: int = 1, count: int = 0, crop: int = 0
) -> list[dict[str, Any]]:
    """Make the validation pairs.

    The LR image is the source's own, or made from the whole HR image (the same on every
    call, also by a random degradation); both are then cut around the centre.

    Args:
      source: the images.
      config: its `scale` is s; its degradation makes the LR images.
      multiple: LR sides are cut to multiples of it (what the model needs).
      count: images taken, spread evenly over the source; 0 takes all.
      crop: HR pixels of the square cut out; 0 takes the whole image.

    Returns:
      [{"name": str, "hr": uint8 [s*h,s*w,3], "lr": uint8 [h,w,3]}], and "label" (int) where
      the source has labels.

    Raises:
      ConfigError: an image is too small, or has an LR image of another size.
    """
    total, scale = len(source), config.scale
    count = min(count, total) if count else total
    pairs = []
    for i in range(count):
        index = i * total // count
        name, example = source.name(index), _example(source, index, scale)
        rng = np.random.default_rng((VALID_SEED, index))
        hr = whole_cells(example["hr"], scale)
        sides = [n // scale for n in hr.shape[:2]]
        kept = [(min(n, crop // scale) if crop else n) // multiple * multiple for n in sides]
        if 0 in kept:
            raise ConfigError(
                f"validation image {name!r} ({hr.shape[0]}x{hr.shape[1]} pixels, crop = {crop}) "
                f"holds no {multiple}x{multiple} LR pixels at scale {scale}"
            )
        if "lr" in example:
            lr = example["lr"]
        elif config.degradation.deterministic:
            lr = degrade(hr, scale)
        elif config.degradation.whole:
            lr = hr  # until it is cut
        else:
            hr, lr = degrade_image(hr, scale, config.degradation, rng)
        top, left = ((n - m) // 2 for n, m in zip(sides, kept, strict=True))
        small = (slice(top, top + kept[0]), slice(left, left + kept[1]))
        large = tuple(slice(part.start * scale, part.stop * scale) for part in small)
        hr, lr = np.ascontiguousarray(hr[large]), np.ascontiguousarray(lr[small])
        if config.degradation.whole and "lr" not in example:
            hr, lr = degrade_image(hr, scale, config.degradation, rng)
        label = {"label": int(example["label"])} if "label" in example else {}
        pairs.append({"name": name, "hr": hr, "lr": lr, **label})
    return pairs


class _Visits:
    """Each image of a source, `times` times over, checked for what a patch needs."""

    def __init__(self, source: Source, times: int, config: DataConfig):
        self._source, self._times = source, times
        self._scale, self._patch = config.scale, config.patch_size

    def __len__(self) -> int:
        return len(self._source) * self._times

    def __getitem__(self, visit: int) -> dict[str, Any]:
        index = int(visit) % len(self._source)
        example = _example(self._source, index, self._scale)
        height, width = example["hr"].shape[:2]
        if min(height, width) < self._patch:
            raise ConfigError(
                f"image {self._source.name(index)!r} has {width}x{height} pixels, fewer than "
                f"patch_size = {self._patch}; `flowsr prepare-data` writes records of crops and "
                "leaves such images out"
            )
        return example


def _example(source: Source, index: int, scale: int) -> dict[str, Any]:
    """Return an example, and make sure that LR fits HR."""
    example = source[index]
    if "lr" in example and not fits(example["hr"].shape, example["lr"].shape, scale):
        large, small = (f"{example[k].shape[1]}x{example[k].shape[0]}" for k in ("hr", "lr"))
        raise ConfigError(
            f"image {source.name(index)!r}: LR has {small} pixels, HR {large}; at scale {scale} "
            f"HR must be {scale} times LR, or less than {scale} pixels larger"
        )
    return example


def _end_with_parent(index: int, count: int) -> None:
    """In a worker: end when the parent is gone, even if it was killed and could say nothing."""
    del index, count
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _stop(running: list[Any]) -> None:
    while running:
        running.pop().close()


def _concatenate(parts: Sequence[Batch]) -> Batch:
    return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
