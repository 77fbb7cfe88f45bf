"""Edit images through the latent space of a flow.

    flowsr edit restore -n demo --hr noisy.png -o out
    flowsr edit resample -n demo --lr small.png --mask mask.png -o out
    flowsr edit temperature -n runs/glow_quickstart -o out

MODEL is what flowsr_jax.load takes ("demo", a folder written by flowsr_jax.save, a run's
work directory), or an official weight file (.pth, .npz, .safetensors).  Edits of an image
write OUT/NAME_COMMAND.png and a picture sheet beside it; see docs/editing.md, and
docs/glow.md for models that take no LR image.  Exit status: 0 all done, 1 an edit or an
input failed, 2 nothing could be done.
"""

from __future__ import annotations

from flowsr_jax.commands.parser import Parser

# The flags, each known to the commands below that name it.
FLAGS = {
    "hr": {"metavar": "FILE", "help": "HR image"},
    "lr": {"metavar": "FILE", "help": "LR image (default: the bicubic LR of --hr)"},
    "mask": {"metavar": "FILE", "help": "image of HR size, white where to edit"},
    "original": {"metavar": "FILE", "help": "HR image before it was edited"},
    "pair": {"metavar": "FILE", "nargs": 2, "help": "two HR images of one size"},
    "mode": {
        "choices": ("global", "local", "spatial"),
        "default": "global",
        "help": "which values are normalised together (default: global)",
    },
    "steps": {"type": int, "default": 5, "help": "images, end points included (default: 5)"},
    "keep-variance": {
        "action": "store_true",
        "help": "weights with squares that add up to 1, so that latents stay as large",
    },
    "num-samples": {"type": int, "default": 1, "help": "results (default: 1)"},
    "temperature": {"type": float, "metavar": "T", "help": "default: the model's own"},
    "seed": {"type": int, "default": 0, "help": "0 to 2**32 - 1"},
    "draws": {"type": int, "default": 6, "help": "samples (default: 6)"},
    "size": {"type": int, "help": "side of the images (default: the model's, or as they are)"},
    "label": {"type": int, "help": "class, for a class-conditional model"},
    "images": {"metavar": "PATH", "help": "folder of images (depth: or a file, or `embedded`)"},
    "labels": {"metavar": "FILE", "help": "image names and attributes, 1 or -1, as CSV or text"},
    "directions": {"metavar": "FILE", "help": ".npz of an earlier call, or z_manipulate.npy"},
    "image": {"metavar": "FILE", "help": "image to move along the directions"},
    "names": {"metavar": "NAME", "nargs": "+", "help": "attributes to move it along"},
    "reach": {"type": float, "default": 1.0, "help": "how far, in directions (default: 1)"},
    "factor": {"type": float, "default": 1.6, "help": "of differences of means (default: 1.6)"},
    "models": {"metavar": "MODEL", "nargs": "+", "help": "models to compare with"},
}

# {command: (what it does, required flags, optional flags)}.  A command calls
# flowsr_jax.editing.commands.COMMANDS[command](params, out, **flags, overwrite=).
COMMANDS = {
    "resample": (
        "draw the latents of a region again; the rest keeps its own",
        "mask",
        "lr hr num-samples temperature seed",
    ),
    "normalize": (
        "give an image's latents the mean and variance of drawn ones",
        "hr",
        "lr mask mode temperature seed",
    ),
    "style": ("the texture of an HR image on another LR image of its size", "hr lr", ""),
    "content": (
        "make pasted or edited content fit: give --lr or --original, --mask or --original",
        "hr",
        "lr mask original temperature seed",
    ),
    "restore": ("remove noise and other faults from an HR image", "hr", "temperature seed"),
    "interpolate": (
        "images between two: of --pair, or between two draws of --lr",
        "",
        "pair lr steps keep-variance size label temperature seed",
    ),
    "temperature": (
        "Glow and its like: the same draws at several temperatures",
        "",
        "draws size label seed",
    ),
    "attribute": (
        "Glow and its like: directions of attributes, from labelled images; move an image",
        "",
        "images labels directions image names steps reach factor size label",
    ),
    "depth": (
        "Glow and its like: models of several depths L side by side",
        "models",
        "images draws temperature size label seed",
    ),
}


def parser() -> Parser:
    flags = Parser(__doc__)
    commands = flags.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (text, required, optional) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("-n", "--model", required=True, help="model folder or weight file")
        command.add_argument("-o", "--output", required=True, help="output folder")
        for flag in required.split():
            command.add_argument(f"--{flag}", required=True, **FLAGS[flag])
        for flag in optional.split():
            command.add_argument(f"--{flag}", **FLAGS[flag])
        command.add_argument("--overwrite", action="store_true", help="make existing outputs again")
    return flags


def main(argv: list[str] | None = None) -> int:
    flags = vars(parser().parse_args(argv))
    command, model, out = (flags.pop(name) for name in ("command", "model", "output"))
    # After the flags: --help and mistakes in them answer at once.
    from flowsr_jax.api import read_model
    from flowsr_jax.console import run_command
    from flowsr_jax.editing.commands import COMMANDS as functions
    from flowsr_jax.io.compilation_cache import use_compilation_cache

    if argv is None:  # as a command
        use_compilation_cache()

    def work():
        return functions[command](read_model(model), out, **flags)

    return run_command(work, "finished images are kept")
