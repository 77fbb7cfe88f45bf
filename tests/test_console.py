"""What commands show, and the exit status that all of them share."""

import importlib.util
import io
import re
import sys
from pathlib import Path

import pytest

from flowsr_jax import console
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
    for file in sorted(LAUNCH.glob("*.py")):
        text = file.read_text()
        assert re.search("import .*(run_command|failed)", text), file.name
        assert 'print(f"error' not in text and 'sys.exit(f"error' not in text, file.name
        assert "return 130" not in text, file.name


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
