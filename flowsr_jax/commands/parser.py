"""The one command line of all commands: how flags are spelled, and how mistakes are answered."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any


class Parser(argparse.ArgumentParser):
    """Flags have hyphens, and underscores are taken for them; a mistake is one line, status 2.

    Flags are not abbreviated: what a parser does not know may be a setting of the model.

    Args:
      doc: the command's module docstring, shown by --help.
    """

    def __init__(self, doc: str | None = None, **options: Any):
        options = {"description": doc, "allow_abbrev": False} | options
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def parse_known_args(
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse as argparse does, and return (flags, what is not known)."""
        given = sys.argv[1:] if args is None else args
        return super().parse_known_args([hyphens(argument) for argument in given], namespace)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """Parse, and refuse what is not known."""
        flags, rest = self.parse_known_args(args, namespace)
        if rest:
            from flowsr_jax.config import nearest

            hint = nearest(rest[0].partition("=")[0], self._option_string_actions)
            self.error(f"unknown argument {rest[0]!r}{hint}")
        return flags

    def parse_with_overrides(
        self, args: Sequence[str] | None = None
    ) -> tuple[argparse.Namespace, dict[str, Any]]:
        """Return the flags, and {path: value} of the --config.path=value arguments."""
        from flowsr_jax.train.overrides import split_overrides

        rest, overrides = split_overrides(sys.argv[1:] if args is None else args)
        return self.parse_args(rest), overrides

    def add_tile(self) -> None:
        """Add --tile."""
        self.add_argument(
            "--tile",
            type=lambda text: int(text) if text.isdecimal() else text,
            default="auto",
            metavar="T",
            help="LR pixels per tile; 0: one piece; default auto: as the free memory allows",
        )

    def add_chain(self) -> None:
        """Add --sampler and --steps, of diffusion models; see `chain_options`."""
        self.add_argument("--sampler", help="of diffusion models: ddim, dpmpp2m, ...")
        self.add_argument("--steps", type=int, help="of diffusion models: length of the chain")

    def error(self, message: str) -> Any:
        """Print one line and leave with status 2."""
        self.exit(2, f"error: {message}\n")


def chain_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of `flowsr_jax.sample` that the flags of `add_chain` give."""
    chosen = {"sampler": args.sampler, "steps": args.steps}
    return {name: value for name, value in chosen.items() if value is not None}


def hyphens(argument: str) -> str:
    """Return --a_b=c_d as --a-b=c_d; paths such as --config.a_b=c stay as they are."""
    name, equals, value = argument.partition("=")
    if not name.startswith("--") or "." in name:
        return argument
    return name.replace("_", "-") + equals + value
