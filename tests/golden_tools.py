"""Readers of the golden arrays and the table that the golden tests print."""

from __future__ import annotations

import zlib

import numpy as np


class Table:
    """Collects the largest error per array, prints it, and fails above the limits."""

    def __init__(self, title: str):
        self.title, self.rows = title, []

    def check(self, name, got, want, limit, absolute=False):
        """Record max |got - want|, relative to max |want| unless `absolute`."""
        got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
        assert got.shape == want.shape, f"{name}: shape {got.shape}, expected {want.shape}"
        error = float(np.max(np.abs(got - want)))
        if not absolute:
            error /= max(float(np.max(np.abs(want))), 1e-30)
        self.rows.append((name, error, limit, absolute))

    def finish(self):
        """Print one line per array, then assert that every error is within its limit."""
        print(f"\n{self.title}")
        for name, error, limit, absolute in self.rows:
            kind = "abs" if absolute else "rel"
            print(f"  {name:52s} {error:9.2e} {kind}  (limit {limit:.0e})")
        bad = [row for row in self.rows if not row[1] <= row[2]]
        assert self.rows and not bad, f"beyond the limit: {bad}"


def full_size_weights(key_list: str) -> dict[str, np.ndarray]:
    """Return the seeded weights with which the full-size golden arrays were made."""

    def normal(text, size):
        seed = zlib.crc32(text.encode("utf-8"))
        return np.random.RandomState(seed).standard_normal(size)

    weights = {}
    for line in key_list.splitlines():
        key, shape = line.split("\t")
        shape = tuple(int(n) for n in shape.split("x"))
        if key.endswith("invconv.weight"):
            c = shape[0]
            reflections = []
            for tag in ("/v1", "/v2"):
                v = normal(key + tag, c)
                reflections.append(np.eye(c) - 2.0 * np.outer(v, v) / (v @ v))
            w = (reflections[0] @ reflections[1]) * (1 + 0.05 * np.cos(np.arange(c)))[:, None]
        elif len(shape) == 4 and key.endswith(".weight"):
            if ".RDB" in key:
                gain = 0.4
            elif key.startswith("RRDB."):
                gain = 1.0
            elif ".fAffine.4." in key or ".fFeatures.4." in key or key.endswith(".conv.weight"):
                gain = 0.1
            else:
                gain = 0.5
            w = normal(key, int(np.prod(shape))).reshape(shape)
            w = w * gain / np.sqrt(shape[1] * shape[2] * shape[3])
        else:
            w = 0.05 * normal(key, int(np.prod(shape))).reshape(shape)
            parts = key.split(".")
            if parts[:2] == ["flowUpsamplerNet", "layers"] and parts[3:] == ["actnorm", "logs"]:
                w = w + 0.17
        weights[key] = w.astype(np.float32)
    return weights
