"""Wrong command lines: each ends with one line that names its mistake, and status 2."""

from __future__ import annotations

import os

import jax
import numpy as np
import pytest

from flowsr_jax.commands import NAMES, module
from flowsr_jax.files.images import write_png
from flowsr_jax.io import weights
from flowsr_jax.models.base import get_family
from flowsr_jax.models.irn import IRNConfig
from flowsr_jax.models.nice import NICEConfig
from flowsr_jax.models.rrdb.config import RRDBConfig
from flowsr_jax.models.sr3 import SR3Config
from flowsr_jax.nets.unet import UNetConfig

UNET = UNetConfig(
    channels=4, multipliers=(1,), res_blocks=1, attn_res=(), norm_groups=2, image_size=16
)
MODELS = {
    "nice": NICEConfig(shape=(4, 4, 3), couplings=2, layers=1, hidden=2),
    "irn": IRNConfig(scale=2, blocks=(1,), growth=2),
    "rrdb": RRDBConfig(scale=2, nf=2, gc=2, nb=1),
    "sr3": SR3Config(2, UNET),
}
# {command: right arguments}; every wrong line changes one thing of one of these.
RIGHT = {
    "sample": "-i a.png -o out -n demo",
    "rescale": "down -i a.png -o out -n irn",
    "evaluate": "-n demo -i a.png -o out",
    "edit": "temperature -n nice -o out",
    "convert": "rrdb file.pth --to=torch",
    "export": "rrdb exported",
    "prepare-data": "photos -o out",
    "compile": "--config=rrdb_div2k:smoke --topology=v5e:2x2",
    "cascade": "-n nice rrdb -o out",
    "ablate": "--study=glow_permutation -o out",
    "search-schedule": "-n sr3 -i photos -o out",
    "train": "--config=rrdb_div2k:smoke --workdir=run",
}
# What no flag of these may be: {command: {flag: values}}.
NUMBERS = ("-1", "0", "x", "", "1e9", "nan", "99999999999999999999999")
NEGATIVE = ("-1", "-0.5", "nan", "inf", "x", "", "1j")
SEEDS = ("-1", "x", "", "1.5", str(2**32), "99999999999999999999999")
PATHS = ("missing", "broken", "text.txt", "", "a.png", "/proc/x", "n" * 300, "loop")
OUTPUTS = ("text.txt/x", "/proc/x", "n" * 300, "text.txt")
WRONG = {
    "sample": {
        "-i": ("missing", "empty", "", "loop", "n" * 300, "pipe.png", "missing*.png"),
        "-n": (*PATHS, "nice"),
        "-o": OUTPUTS,
        "--num-samples": NUMBERS,
        "--temperature": NEGATIVE,
        "--seed": SEEDS,
        "--tile": ("-1", "3", "x", "", "1.5"),
        "--scale": ("3", "-1", "0", "x"),
        "--ext": ("gif", "", "exe"),
        "--depth": ("7", "x", ""),
        "--quality": ("0", "101", "x", "-1"),
        "--outscale": ("-1", "0", "nan", "9", "x"),
        "--shard": ("2/2", "x", "-1/2", "1", "0/0", ""),
        "--page": ("0", "-1", "x"),
        "--bands": ("x", "1,2", "0,1,2", ""),
        "--steps": ("5", "x"),
        "--sampler": ("ddim",),
        "--suffix": ("a/b",),
        "--banana": ("1",),
    },
    "rescale": {
        "-i": ("missing", "empty", ""),
        "-n": (*PATHS, "demo", "nice"),
        "-o": OUTPUTS,
        "--tile": ("-1", "3", "x", ""),
        "--seed": ("1",),
        "--banana": ("1",),
    },
    "evaluate": {
        "-i": ("missing", "empty", ""),
        "-n": (*PATHS, "nice"),
        "-o": OUTPUTS,
        "--lr": ("missing", "empty"),
        "--scale": ("3", "0", "-1", "x"),
        "--protocol": ("x", ""),
        "--temperatures": NEGATIVE,
        "--num-samples": ("-1", "0", "x", ""),
        "--seed": SEEDS,
        "--steps": ("5",),
        "--metrics": ("x", "psnr,banana", ""),
        "--limit": ("-1", "x"),
        "--lpips": ("missing", "a.png"),
        "--dists": ("missing",),
        "--sr": ("photos",),
        "--banana": ("1",),
    },
    "edit": {
        "-n": (*PATHS, "demo", "rrdb"),
        "-o": OUTPUTS,
        "--draws": NUMBERS,
        "--size": ("-1", "0", "5", "x", "100000"),
        "--label": ("0", "-1", "x"),
        "--seed": SEEDS,
        "--lr": ("a.png",),
    },
    "convert": {
        "--to": ("x", ""),
        "--with": ("a.png",),
        "--dtype=": ("int8", "x", ""),
        "--banana=": ("1", ""),
        "--scheme=": ("x", "3"),
        "-x": ("1",),
    },
    "export": {
        "--size": ("8", "x", "0x0", "-1x2", ""),
        "--batch": ("0", "-1", "x"),
        "--programs": ("x", "", "sample,x"),
        "--platforms": ("gpu", "", "x"),
        "--set": ("x=1", "steps", "steps=3", "=1", ""),
        "--banana": ("1",),
    },
    "prepare-data": {
        "-o": OUTPUTS,
        "--crop": ("-1", "x", ""),
        "--step": ("-1", "0", "x"),
        "--scale": ("-1", "0", "x", "7"),
        "--lr-dir": ("missing",),
        "--tfds": ("x",),
        "--banana": ("1",),
    },
    "compile": {
        "--config": ("missing", "", "text.txt", "rrdb_div2k:banana", "noget.py", "wrong.py"),
        "--topology": ("", "x", "v5e:3x", "v99:2x2"),
        "--what": ("x", ""),
        "--phase": ("x",),
        "--global-batch": ("0", "-1", "x"),
        "--config.model.scale=": ("0", "-1", "x", "1e9"),
    },
    "cascade": {
        "-n": PATHS,
        "-o": OUTPUTS,
        "--num-samples": ("-1", "0", "x", ""),
        "--batch": ("-1", "0", "x"),
        "--label": ("x",),
        "--seed": SEEDS,
        "--set": ("x", "0.x=1", "5.steps=1", "steps=1", "0.=1", ""),
    },
    "ablate": {
        "--study": ("x", ""),
        "-o": OUTPUTS,
        "--steps": ("0", "-1", "x"),
        "--variants": ("x",),
        "--seeds": ("0", "-1", "x"),
        "--config.model.hidden=": ("0", "-1"),
        "--config.banana=": ("1",),
    },
    "search-schedule": {
        "-n": (*PATHS, "demo", "nice"),
        "-i": ("missing", "empty"),
        "-o": OUTPUTS,
        "--steps": ("0", "-1", "x"),
        "--starts": ("x", "-1", "2", "nan", ""),
        "--ends": ("x", "-1", "2", "nan"),
        "--sampler": ("x",),
        "--score": ("x",),
        "--crop": ("0", "-1", "7", "x"),
        "--limit": ("0", "-1", "x"),
        "--batch": ("0", "-1", "x"),
        "--seed": SEEDS,
    },
    "train": {
        "--config": ("missing", "", "text.txt", "rrdb_div2k:banana", "noget.py", "wrong.py"),
        "--workdir": ("text.txt", "text.txt/x", "/proc/x", "n" * 300),
        "--init-encoder": ("missing", "a.png"),
        "--config.train.batch_size=": ("0", "-1", "x", "1.5", "999999999999"),
        "--config.train.clip_norm=": ("-1", "inf", "nan", "x"),
        "--config.train.phases[0].steps=": ("0", "-1", "x"),
        "--config.train.phases[9].steps=": ("1",),
        "--config.train.phases.x.steps=": ("1",),
        "--config.data.patch_size=": ("0", "-1", "7", "x"),
        "--config.data.source=": ("x", ""),
        "--config.data.scale=": ("3", "0"),
        "--config.model.nf=": ("0", "-1", "x"),
        "--config.banana=": ("1",),
    },
}


# Messages that name neither the flag nor its value, but the mistake.
OTHERWISE = ("the path is empty", "has no entry", "pip install libtpu", "is no option of")


def lines():
    """Yield (command, arguments, what the message must name): one thing is wrong in each."""
    for command, flags in WRONG.items():
        right = RIGHT[command].split()
        # One thing too few.
        yield command, right[1:] if right[0][0] != "-" else right[2:], ("required", "unknown", "")
        for flag, values in flags.items():
            for value in values:
                known = flag in right
                at = right.index(flag) if known else len(right)
                changed = [f"{flag}{value}"] if flag.endswith("=") else [flag, value]
                if flag.startswith("--") and not flag.endswith("="):
                    changed = [f"{flag}={value}"]
                name = flag.strip("-=").rpartition(".")[2]
                names = name, name.replace("-", "_"), *[value[:40]] * bool(value)
                yield command, [*right[:at], *changed, *right[at + 2 :]], (*names, *OTHERWISE)
        yield command, [*right, "--no-such-flag"], ("--no-such-flag",)


LINES = list(lines())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with right inputs, and wrong ones."""
    folder = tmp_path_factory.mktemp("fuzz")
    photo = np.zeros((8, 8, 3), np.uint8)
    write_png(folder / "a.png", photo)
    (folder / "photos").mkdir()
    write_png(folder / "photos" / "a.png", photo)
    (folder / "empty").mkdir()
    (folder / "text.txt").write_text("no image, no model, no folder")
    (folder / "noget.py").write_text("x = 1\n")
    (folder / "wrong.py").write_text("def get_config(arg=''):\n    return 3\n")
    os.mkfifo(folder / "pipe.png")
    (folder / "loop").symlink_to("loop")
    (folder / "broken").mkdir()
    (folder / "broken" / "config.json").write_text(
        '{"family": "srflow", "config": {"steps": [-1]}}'
    )
    for name, config in MODELS.items():
        params = get_family(config.family).init(config, jax.random.key(0))
        weights.save(params, folder / name)
    return folder


def test_every_command_is_here():
    assert set(WRONG) == set(RIGHT) == set(NAMES) and len(LINES) >= 300


@pytest.mark.parametrize("command", NAMES)
def test_wrong_lines_end_with_one_line(command, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    faults = []
    for _, line, names in filter(lambda one: one[0] == command, LINES):
        try:
            status = module(command).main(line)
        except SystemExit as stop:
            status = stop.code
        except BaseException as error:
            status = f"{type(error).__name__}: {error}"
        shown = capsys.readouterr()
        bad = shown.err.count("\n") != 1 or not shown.err.startswith("error: ")
        # Else another mistake may hide that this one is taken.
        unnamed = not any(name.lower() in shown.err.lower() for name in names)
        if status != 2 or bad or unnamed or "Traceback" in shown.err:
            faults.append((" ".join(line)[:120], status, shown.err[-400:], shown.out[-100:]))
    for fault in faults:
        print(*fault, sep="\n    ")
    assert not faults
