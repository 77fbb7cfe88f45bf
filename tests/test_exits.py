"""How commands end: which errors are one line, and with which status."""

from __future__ import annotations

import pytest

from flowsr_jax.aot.run import compile_run
from flowsr_jax.config import ConfigError
from flowsr_jax.exits import failed
from flowsr_jax.train.checkpoint import CheckpointError
from flowsr_jax.train.loop import NotWritten, TrainingDiverged


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (ConfigError("a = 1\n is wrong"), 2, "error: a = 1 is wrong"),
        (OSError(28, "No space left on device"), 2, "error: [Errno 28] No space left on device"),
        (RecursionError("maximum depth"), 2, "error: RecursionError: maximum depth"),
        (MemoryError(), 2, "error: MemoryError"),
        (OverflowError("too large"), 2, "error: too large"),
        (TypeError("lr must be an array"), 2, "error: lr must be an array"),
        (RuntimeError("write() failed: No space left on device; x"), 2, "error: write() failed"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), 2, "error: RESOURCE_EXHAUSTED"),
        (CheckpointError("none can be read"), 2, "error: none can be read"),
        (TrainingDiverged("step 3"), 1, "error: step 3"),
        (NotWritten("the weights", None), 1, "error: the weights"),
        (ValueError("x" * 10_000), 2, "error: xxx"),
    ],
)
def test_what_users_can_mend_is_one_line(capsys, error, status, text):
    assert failed(error) == status
    shown = capsys.readouterr().err
    assert shown.startswith(text) and shown.count("\n") == 1 and len(shown) < 1100


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyError("a"), AssertionError()])
def test_faults_of_the_program_keep_their_traceback(error):
    with pytest.raises(type(error)):
        failed(error)


def test_nothing_to_compile_is_a_mistake():
    with pytest.raises(ConfigError, match="topology is empty: there is nothing to compile"):
        compile_run(None, [])
    with pytest.raises(ConfigError, match="what is empty"):
        compile_run(None, ["v5e:2x2"], [])
