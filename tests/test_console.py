"""What commands show, and the exit status that all of them share."""

import argparse
import importlib.util
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import flowsr_jax
from flowsr_jax import commands, console
from flowsr_jax.commands.parser import Parser, hyphens
from flowsr_jax.console import Progress, Summary, UsageError, check_seed, progress, run_command

LAUNCH = Path(__file__).parents[1] / "launch"


def _raise(error):
    raise error


def test_exit_statuses(capsys):
    for result, status in (
        (Summary(3, 1, 0), 0), (Summary(3, 0, 1), 1), (None, 0), (0, 0), (1, 1),
        (ValueError("a\nlong   reason"), 2), (OSError("no disk"), 2), (KeyboardInterrupt(), 130),
    ):  # fmt: skip
        if isinstance(result, BaseException):
            assert run_command(lambda r=result: _raise(r), "what is done is kept") == status
        else:
            assert run_command(lambda r=result: r, "") == status
    out, err = capsys.readouterr()
    assert out.splitlines() == ["3 written, 1 skipped, 0 failed", "3 written, 0 skipped, 1 failed"]
    assert err.splitlines() == [
        "error: a long reason", "error: no disk", "interrupted; what is done is kept"
    ]  # fmt: skip
    with pytest.raises(KeyError):
        run_command(lambda: _raise(KeyError("a fault of ours")), "")


def test_every_command_uses_the_one_frame():
    """No command prints errors or chooses statuses on its own."""
    for name in commands.NAMES:
        file = Path(commands.module(name).__file__)
        text = file.read_text()
        assert re.search("import .*(run_command|failed)", text), file.name
        assert 'print(f"error' not in text and 'sys.exit(f"error' not in text, file.name
        assert "return 130" not in text, file.name


def test_launch_and_the_command_line_hold_the_same_commands():
    files = {file.stem.replace("_", "-"): file for file in LAUNCH.glob("*.py")}
    assert set(files) == set(commands.NAMES)
    folder = Path(commands.__file__).parent
    assert {f.stem for f in folder.glob("*.py")} - {"__init__", "parser"} == {
        name.replace("-", "_") for name in commands.NAMES
    }
    lines = files["train"].read_text().replace("train", "NAME")
    for name, file in files.items():
        module = name.replace("-", "_")
        assert file.read_text() == lines.replace("`flowsr NAME`", f"`flowsr {name}`").replace(
            "NAME", module
        )


def test_the_command_line_lists_runs_and_refuses(capsys, monkeypatch):
    for argv, status in ((["--help"], 0), ([], 0), (["--version"], 0), (["smaple"], 2)):
        monkeypatch.setattr(sys, "argv", ["flowsr", *argv])
        assert commands.main() == status
    out, err = capsys.readouterr()
    listed = [line.split()[0] for line in out.splitlines() if line.startswith("  ")]
    assert listed == 2 * [*commands.NAMES] and out.splitlines()[-1] == flowsr_jax.__version__
    assert err == "error: no command 'smaple'; did you mean 'sample'?\n"
    monkeypatch.setattr(sys, "argv", ["flowsr", "sample", "--num_sample=3"])
    with pytest.raises(SystemExit, match="2"):
        commands.main()
    monkeypatch.setattr(sys, "argv", ["flowsr", "search-schedule", "--help"])
    with pytest.raises(SystemExit, match="0"):
        commands.main()
    assert capsys.readouterr().out.startswith("usage: flowsr search-schedule [-h]")


def all_parsers():
    """Yield name and parser of every command and sub-command; nothing in them is required."""
    for name in commands.NAMES:
        waiting = [(name, commands.module(name).parser())]
        for label, parser in waiting:
            for action in parser._actions:
                if isinstance(action, argparse._SubParsersAction):
                    waiting += [(f"{label} {k}", p) for k, p in action.choices.items()]
                action.required = False
                action.type = None
                action.choices = None
            for group in parser._mutually_exclusive_groups:
                group.required = False
            for positional in parser._get_positional_actions():
                parser._remove_action(positional)
            yield label, parser


def test_flags_have_hyphens_and_underscores_are_taken_for_them():
    seen = 0
    for name, parser in all_parsers():
        assert isinstance(parser, Parser), name
        for option, action in parser._option_string_actions.items():
            assert "_" not in option, f"{name} {option}"
            if "-" not in option.lstrip("-") or action.nargs == 0 and not action.dest:
                continue
            seen += 1
            values = [] if action.nargs == 0 else ["a_b"]
            old = option[:2] + option[2:].replace("-", "_")
            found = [vars(parser.parse_args([flag, *values])) for flag in (option, old)]
            assert found[0] == found[1] and found[0][action.dest] in (True, "a_b", ["a_b"]), name
            if values:
                assert vars(parser.parse_args([f"{old}=a_b"])) == found[0], name
    assert seen > 10


def test_what_follows_a_flag_is_left_as_it_is(capsys):
    for argument in ("--config.a_b=c_d", "a_b", "--x=a_b", "-o=a_b", "model_x4.pth"):
        assert hyphens(argument) == argument
    parser = Parser()
    parser.add_argument("--some-flag")
    for arguments, message in (
        (["--some_flg=1"], "unknown argument '--some-flg=1'; did you mean '--some-flag'?"),
        (["stray"], "unknown argument 'stray'"),
        (["--some"], "unknown argument '--some'; did you mean '--some-flag'?"),  # no abbreviation
    ):
        with pytest.raises(SystemExit, match="2"):
            parser.parse_args(arguments)
        assert capsys.readouterr().err == f"error: {message}\n"
    flags, overrides = parser.parse_with_overrides(["--config.a_b=3", "--some_flag=x"])
    assert flags.some_flag == "x" and overrides == {"a_b": 3}


# What neither the command line nor the verbs may load before they need it.
HEAVY = {
    "grain", "optax", "orbax", "tensorflow", "tensorflow_datasets", "array_record", "tensorstore",
    "ml_collections", "scipy", "skimage", "sklearn", "matplotlib", "PIL", "tifffile", "imagecodecs",
}  # fmt: skip
LOADED = """
import contextlib, io, sys
import flowsr_jax
{}
print(*{{name.partition('.')[0] for name in sys.modules}})
"""


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import flowsr_jax.commands as c\nsys.argv = ['flowsr', '--help']\n"
         "with contextlib.redirect_stdout(io.StringIO()): c.main()", {"jax", "flax", "numpy"}),
        ("flowsr_jax.load, flowsr_jax.sample, flowsr_jax.imresize, flowsr_jax.SRFlow", set()),
    ],
    ids=["flowsr --help", "the verbs"],
)  # fmt: skip
def test_imports_are_light(code, heavy):
    """No wall time: what is slow to import is not imported."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED.format(code)], cwd=LAUNCH.parent, capture_output=True,
        text=True, check=True, env={**os.environ, "PYTHONPATH": str(LAUNCH.parent)},
    )  # fmt: skip
    assert set(done.stdout.split()) & (HEAVY | heavy) == set()


@pytest.mark.parametrize("name", ["sample", "rescale", "evaluate", "edit", "cascade"])
def test_commands_refuse_with_status_2_and_one_line(name, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location(name, LAUNCH / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = str(tmp_path / "no model")
    arguments = ["-n", model, "-o", str(tmp_path / "out")]
    arguments += {"cascade": [], "edit": ["--hr", "x.png"]}.get(name, ["-i", str(tmp_path)])
    first = {"rescale": ["down"], "edit": ["restore"]}.get(name, [])
    assert module.main(first + arguments) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1 and err[0].startswith("error: ") and "no model" in err[0]


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, "1", True, None])
def test_seeds(seed):
    check_seed(0)
    check_seed(2**32 - 1)
    with pytest.raises(UsageError, match="seed = "):
        check_seed(seed)
    with pytest.raises(KeyError):
        check_seed(seed, KeyError)


def test_lines(capsys, monkeypatch):
    times = iter(range(0, 1000, 2))
    monkeypatch.setattr(console.time, "monotonic", lambda: next(times))
    with progress(3) as shown:
        shown.say("a note")
        shown.say("a\nproblem\x1b", problem=True)
        shown.once("the same")
        shown.once("the same")
        shown.finish("a: skipped", worked=False)
        shown.finish("b: written")
        shown.finish("c: failed", problem=True)
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "[1/3] a note", "[1/3] the same", "[1/3] a: skipped",
        "[2/3] b: written (0.50 images/s, 0:02 left)", "3 images, 0.17 images/s",
    ]  # fmt: skip
    assert err.splitlines() == [r"[1/3] a\nproblem\x1b", "[3/3] c: failed"]


def test_a_terminal_gets_a_bar_and_problems_only(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    with progress(2) as shown:
        assert isinstance(shown, Progress)
        shown.say("a note that goes well")
        shown.tick("a [bold].png", 1, 4)
        shown.say("a problem", problem=True)
        shown.finish("a: written")
        shown.finish("b: failed: why", problem=True)
    text = screen.getvalue()
    assert "a note that goes well" not in text
    assert "a problem" in text and "b: failed: why" in text and "2/2" in text
