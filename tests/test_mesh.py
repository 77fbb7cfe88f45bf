"""Every family on one device and eight, in two processes of four, with its state split in both.

The default run trains NICE, the long tail Glow as well, the slow tests all families.
"""

from __future__ import annotations

import csv
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mesh_cases import (
    BATCH,
    CASES,
    LAYOUTS,
    PROCESSES,
    SPLIT,
    finish,
    make_pictures,
    run_values,
    start,
)

from flowsr_jax.data import DataConfig, make_loader, make_source
from flowsr_jax.models.base import families, get_family
from flowsr_jax.train.config import resolve

TOLERANCE = 1e-5
MARKS = {"nice": (), "glow": (pytest.mark.long,)}
# The first ActNorm of the flows that have some.
ACTNORMS = {
    "glow": "params.flow.multiscale.level1.flow.steps.actnorm.",
    "srflow": "params.flow.multiscale.level1.flow.transition.actnorm.",
}
OTHERS = tuple(name for name in LAYOUTS if name != "one")
TIMES = ("images_per_s",)


def marked(cases):
    """Parameters of a test: the cases, each with its marks."""
    return [pytest.param(c, marks=MARKS.get(c, (pytest.mark.slow,))) for c in cases]


every_case = pytest.mark.parametrize("case", marked(CASES))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return make_pictures(tmp_path_factory.mktemp("mesh") / "pictures")


@pytest.fixture(scope="module")
def straight(request, pictures):
    """The folder of LAYOUT/CASE: whole runs of the cases that a chosen test needs."""
    root = pictures.parent / "straight"
    items = [item for item in request.session.items
             if item.path == request.path and not item.get_closest_marker("skip")]  # fmt: skip
    needed = {item.callspec.params.get("case", "rrdb") for item in items
              if "straight" in item.fixturenames}  # fmt: skip
    train([(case, name, root / name / case) for case in CASES if case in needed
           for name in LAYOUTS], pictures)  # fmt: skip
    return root


def train(runs, pictures):
    """Do runs (case, layout, workdir), those of one process and of two side by side."""
    jobs = {1: [], 2: []}
    for case, layout, workdir in runs:
        job = {"values": run_values(case, layout, pictures), "workdir": str(workdir)}
        jobs[2 if layout in PROCESSES else 1].append(job)
    started = []
    for processes, listed in jobs.items():
        if listed:
            folder = pictures.parent / f"jobs{processes}"
            started += start(listed, folder, devices=8 // processes, processes=processes)
    finish(started)


def state_of(workdir, name):
    """Return {path: array} of the training state."""
    with np.load(workdir / f"{name}.npz") as file:
        return dict(file)


def end_of(workdir, case):
    return state_of(workdir, f"end-{CASES[case][2][-1]['name']}")


def rows_of(workdir):
    """Return the rows of metrics.csv as {column: float}, without what is measured in seconds."""
    with open(workdir / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    skip = ("phase", *TIMES)
    return [{k: float(v) for k, v in row.items() if v and k not in skip} for row in rows]


def distance(found, expected):
    """The largest difference of two dicts: absolute up to 1, relative above."""
    assert found.keys() == expected.keys()
    largest = 0.0
    for key, value in expected.items():
        a, b = (np.asarray(x, np.float64) for x in (found[key], value))
        assert a.shape == b.shape and np.isfinite(b).all(), key
        largest = max(largest, np.max(np.abs(a - b) / np.maximum(1, np.abs(b)), initial=0))
    return largest


def assert_same_state(found, expected, what):
    """Whole states agree; the largest difference of each part is printed."""
    parts = {}
    for name in ("params", "ema", "opt_state", "model_state"):
        a, b = ({k: v for k, v in s.items() if k.startswith(name)} for s in (found, expected))
        parts[name] = distance(a, b)
    print(f"\n{what}: " + ", ".join(f"{k} {v:.1e}" for k, v in parts.items()), end="")
    assert max(parts.values()) <= TOLERANCE, what
    assert found["step"] == expected["step"] and found["skipped_total"] == 0


def test_every_family_has_a_case():
    assert {model["family"] for model, *_ in CASES.values()} == set(families())


@pytest.mark.parametrize("layout", OTHERS)
@every_case
def test_losses_and_states_are_those_of_one_device(straight, case, layout):
    one, other = straight / "one" / case, straight / layout / case
    found, expected = end_of(other, case), end_of(one, case)
    assert_same_state(found, expected, f"{case}, {layout}")
    a, b = rows_of(other), rows_of(one)
    assert [row["step"] for row in a] == [row["step"] for row in b]
    training = [{k: v for k, v in row.items() if not k.startswith("valid/")} for row in a]
    # In the order of the steps, every metric of which is one of the whole batch.
    largest = max(
        distance(row, {k: v for k, v in wanted.items() if k in row})
        for row, wanted in zip(training, b, strict=True)
    )
    print(f", metrics {largest:.1e}")
    assert largest <= TOLERANCE
    assert all({k for k in row if "valid/" not in k} == set(t)
               for row, t in zip(b, training, strict=True))  # fmt: skip


@every_case
def test_the_runs_train_every_group(straight, case):
    end = end_of(straight / "one" / case, case)
    for group in CASES[case][2][-1]["groups"]:
        prefix = "opt_state." + ("" if group["name"] == "*" else group["name"] + ".")
        moments = [v for k, v in end.items() if k.startswith(prefix) and ".mu." in k]
        assert moments and max(np.abs(v).max() for v in moments) > 1e-4
    averages = [np.abs(end[k] - end["params" + k[3:]]).max() for k in end if k.startswith("ema.")]
    assert max(averages) > 10 * TOLERANCE


@every_case
def test_fsdp_splits_parameters_optimiser_and_averages(straight, case):
    held = {}
    for layout in LAYOUTS:
        file = straight / layout / case / f"end-{CASES[case][2][-1]['name']}.json"
        held[layout] = json.loads(file.read_text())
    print(f"\n{case}: one device holds " + ", ".join(f"{k} {held[k]}" for k in SPLIT))
    for part in ("params", "opt_state", "ema"):
        for layout in LAYOUTS:
            share = held[layout][part]
            assert share < 0.6 if layout in SPLIT else share == 1


@pytest.mark.parametrize("layout", OTHERS)
@every_case
def test_validation_is_that_of_one_device(straight, case, layout):
    a, b = (
        json.loads((straight / name / case / "result.json").read_text()) for name in (layout, "one")
    )
    for row, wanted in zip(a.pop("rows"), b.pop("rows"), strict=True):
        assert wanted["images"] == 2
        # One value of 8-bit images may be rounded the other way.
        numbers = {k: v for k, v in wanted.items() if isinstance(v, float)}
        assert distance({k: row[k] for k in numbers}, numbers) <= 1e-3
        assert {k: v for k, v in row.items() if k not in numbers} == {
            k: v for k, v in wanted.items() if k not in numbers
        }
    for name in ("bits_per_dim", "gaussian_bits_per_dim"):
        bits = a.pop(name), b.pop(name)
        assert bits == (None, None) or distance({0: bits[0]}, {0: bits[1]}) <= 1e-4
    assert a == b


def first_batch(case, pictures):
    """Return the configuration, the family and the first global batch in [0,1]."""
    config = resolve(run_values(case, "one", pictures))
    source = make_source(config.data, "train")
    with make_loader(source, config.data, batch_size=BATCH, seed=config.seed) as loader:
        batch = {k: np.float32(v) / 255 for k, v in next(loader).items()}
    return config, get_family(config.model.family), batch


def key_of(config, purpose, index=0):
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), purpose), index)


def shares(array):
    """The parts of a batch that two processes have, and eight devices."""
    return [*np.split(array, 2), *np.split(array, 8)]


def actnorm_input(case, batch, key):
    """Return what the first ActNorm sees, before the squeeze, and its factor of logs."""
    hr = batch["hr"]
    if case == "glow":
        return (np.rint(255 * hr) + np.asarray(jax.random.uniform(key, hr.shape))) / 256 - 0.5, 3
    return hr + 4 / 3**0.5 / 255 * np.asarray(jax.random.normal(key, hr.shape)), 1


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", marked(ACTNORMS))
def test_actnorms_begin_with_the_statistics_of_the_global_batch(straight, pictures, case, layout):
    config, _, batch = first_batch(case, pictures)
    x, factor = actnorm_input(case, batch, key_of(config, 1))
    b, h, w, c = x.shape
    x = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 5, 2, 4).reshape(b, -1, 4 * c)

    def statistics(x):
        return {"bias": -x.mean((0, 1)), "logs": -np.log(x.std((0, 1))) / factor}

    begin = state_of(straight / layout / case, "begin-nll")
    found = {k: begin[ACTNORMS[case] + k][0] for k in ("bias", "logs")}
    assert distance(found, statistics(x)) <= TOLERANCE
    # The statistics of a process or of a device would not do.
    for share in shares(x):
        assert distance(found, statistics(share)) > 100 * TOLERANCE
    one = state_of(straight / "one" / case, "begin-nll")
    assert_same_state(begin, one, f"{case}, {layout}, ActNorms of the first batch")


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_metrics_are_those_of_the_global_batch(straight, pictures, layout):
    config, family, batch = first_batch("rrdb", pictures)
    params = family.init(config.model, key_of(config, 0))
    error = np.asarray(family.sample(params, jnp.asarray(batch["lr"]), None)) - batch["hr"]

    def metrics(error):
        loss = np.abs(error).mean()
        return {"loss": loss, "l1": loss, "psnr": -10 * np.log10(np.mean(error**2))}

    row = rows_of(straight / layout / "rrdb")[0]
    found = {k: row[k] for k in ("loss", "l1", "psnr")}
    assert distance(found, metrics(error)) <= TOLERANCE
    for share in shares(error):
        assert distance(found, metrics(share)) > 100 * TOLERANCE
    # Nor would the mean of the devices' own PSNR.
    mean = np.mean([metrics(e)["psnr"] for e in np.split(error, 8)])
    assert abs(row["psnr"] - mean) > 100 * TOLERANCE


MATRIX = [("glow", a, b) for a in LAYOUTS for b in LAYOUTS]
CYCLE = list(zip(LAYOUTS, [*LAYOUTS][1:] + [*LAYOUTS][:1], strict=True))
RESUMED = MATRIX + [(case, a, b) for case in CASES if case != "glow" for a, b in CYCLE]


@pytest.fixture(scope="module")
def resumed(straight, pictures):
    """The folder of CASE/FROM-TO: runs that begin with the last checkpoint but one of another."""
    root = pictures.parent / "resumed"
    runs = [(case, b, root / case / f"{a}-{b}") for case, a, b in RESUMED]
    for (case, a, _), (*_, workdir) in zip(RESUMED, runs, strict=True):
        folder, step = checkpoint_of(straight / a / case)
        shutil.copytree(folder, workdir / "checkpoints" / step)
    train(runs, pictures)
    return root


def checkpoint_of(workdir):
    """Return the folder and the number of the last checkpoint but one."""
    folder = workdir / "checkpoints"
    step = sorted((p.name for p in folder.iterdir() if p.name.isdigit()), key=int)[-2]
    return folder / step, step


@pytest.mark.slow
@pytest.mark.parametrize(("case", "source", "target"), RESUMED)
def test_a_checkpoint_goes_on_anywhere(resumed, straight, case, source, target):
    workdir = resumed / case / f"{source}-{target}"
    _, step = checkpoint_of(straight / source / case)
    assert rows_of(workdir)[0]["step"] == int(step) + 1  # it did resume
    expected = end_of(straight / "one" / case, case)
    assert_same_state(end_of(workdir, case), expected, f"{case}, {source} -> {target}")


class Numbered:
    """Images whose number is their colour."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        colour = np.array([index // 256, index % 256, 7], np.uint8)
        return {"hr": np.broadcast_to(colour, (8, 8, 3)), "label": np.int32(index % 10)}

    def name(self, index):
        return f"image {index}"


def numbers(batch):
    return (batch["hr"][:, 0, 0, 0].astype(int) * 256 + batch["hr"][:, 0, 0, 1]).tolist()


def global_batches(source, count, first, steps, batch=12, **options):
    """Return the batches of `steps` steps, those of `count` processes side by side."""
    config = DataConfig(scale=2, patch_size=4, **options)
    parts = []
    for index in range(count):
        share = {"batch_size": batch // count, "seed": 5, "shard": (index, count)}
        with make_loader(source, config, **share) as loader:
            loader.set_state({**loader.get_state(), "step": first})
            parts.append([next(loader) for _ in range(steps)])
    return [
        {k: np.concatenate([part[k] for part in step]) for k in step[0]}
        for step in zip(*parts, strict=True)
    ]


@pytest.mark.parametrize("crops", [1, 3])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_processes_have_the_rows_of_one_in_its_order(count, crops):
    # Row for row, because random draws of a step belong to rows.
    options = {"batch": 12 * crops, "crops_per_image": crops}
    expected, found = (global_batches(Numbered(600), n, 7, 3, **options) for n in (1, count))
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys() == {"hr", "lr", "label"}
        for name in b:
            np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.parametrize(("images", "times"), [(600, 1), (6, 86)])
def test_a_pass_loses_and_repeats_nothing_when_processes_come_and_go(images, times):
    steps, step, seen = images * times // 12, 0, []
    for count, share in ((1, 0.2), (3, 0.3), (2, 0.6), (4, 1.0)):
        part = global_batches(Numbered(images), count, step, round(share * steps) - step)
        seen += [n for batch in part for n in numbers(batch)]
        step += len(part)
    assert np.bincount(seen, minlength=images).tolist() == [times] * images
