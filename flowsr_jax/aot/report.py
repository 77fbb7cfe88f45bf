"""One row per compiled program: as text, as JSON beside others, as a Markdown table."""

from __future__ import annotations

import glob
import json
import os
from typing import Any

from flowsr_jax.aot.chips import GIB
from flowsr_jax.aot.estimate import Result
from flowsr_jax.files.atomic import atomic_write

MIB = 1 << 20
COLUMNS = (
    ("config", "config"), ("program", "program"), ("topology", "topology"), ("chips", "chips"),
    ("batch/chip", "per_chip_batch"), ("arguments MiB", "arguments_mib"),
    ("temporaries MiB", "temporaries_mib"), ("total MiB", "total_mib"),
    ("GFLOP/image", "gflop_per_image"), ("gradients MB", "gradients_mb"),
    ("all-reduce MB", "all_reduce_mb"), ("other collectives", "others"),
    ("ms (estimate)", "estimate_ms"), ("largest batch/chip", "largest"),
    ("compile s", "compile_s"),
)  # fmt: skip


def make_row(result: Result, images: int, chips: int, about: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON-ready row of a result.

    Args:
      result: of `compile_program`.
      images: the global batch; `chips`: how many.
      about: what to put first: config, program, topology, gradient_bytes, ...
    """
    memory, seconds = result.memory, result.seconds
    row = {
        **about,
        "chips": chips,
        "global_batch": images,
        "per_chip_batch": images // chips,
        "fits": memory.fits,
        "memory_bytes": {
            "arguments": memory.arguments,
            "outputs": memory.outputs,
            "temporaries": memory.temporaries,
            "code": memory.code,
            "total": memory.total,
            "chip": memory.limit,
        },
        "flops_per_image": result.count.flops / images,
        "bf16_passes": result.count.passes / max(result.count.flops, 1.0),
        "loops_of_unknown_length": result.count.open_loops,
        "collectives": [vars(c) for c in result.collectives],
        "compile_s": round(result.compile_s, 1),
    }
    if seconds:
        row["hbm_traffic_bytes"] = result.traffic
        row["estimate_s"] = {**vars(seconds), "total": seconds.total}
    return row


def to_text(row: dict[str, Any]) -> str:
    """Return the lines that tell a row to a person."""
    memory = row["memory_bytes"]
    lines = [
        f"{row['config']}, {row['program']}, {row['topology']}: {row['chips']} chips, "
        f"batch {row['global_batch']} ({row['per_chip_batch']} per chip), "
        f"compiled in {row['compile_s']:.0f} s"
    ]
    if not row["fits"]:
        lines.append(
            f"  DOES NOT FIT: needs {memory['total'] / GIB:.2f} GiB per chip, "
            f"the chip has {memory['chip'] / GIB:.2f} GiB"
        )
    else:
        lines += [
            "  HBM per chip  "
            + ", ".join(f"{k} {_mib(memory[k])}" for k in ("arguments", "temporaries", "outputs"))
            + f", code {_mib(memory['code'])}",
            f"                total {_mib(memory['total'])} of {_mib(memory['chip'])} "
            f"({memory['total'] / memory['chip']:.1%})",
        ]
    lines.append(
        f"  FLOPs         {row['flops_per_image'] / 1e9:,.1f} G per image (convolutions and "
        f"products), in {row['bf16_passes']:.3g} bfloat16 passes each"
        + (
            f"; {row['loops_of_unknown_length']} loops of unknown length counted once"
            if row["loops_of_unknown_length"]
            else ""
        )
    )
    if not row["fits"]:
        return "\n".join(lines)
    lines += [f"  collectives   {line}" for line in _collectives(row)]
    seconds = row["estimate_s"]
    lines.append(
        f"  estimate      {1e3 * seconds['total']:.3g} ms at peak rates: the larger of products "
        f"{1e3 * seconds['products']:.3g} and HBM {1e3 * seconds['hbm']:.3g} "
        f"({row['hbm_traffic_bytes'] / 1e9:.3g} GB), plus links {1e3 * seconds['links']:.3g}; "
        f"{row['global_batch'] / seconds['total']:,.0f} images/s.  Not measured."
    )
    if "largest_batch" in row:
        lines.append(f"  largest batch {_largest(row['largest_batch'])}")
    return "\n".join(lines)


def _collectives(row: dict[str, Any]) -> list[str]:
    lines = [
        f"{c['kind']} {c['bytes'] / 1e6:,.3f} MB in {c['count']:,}, the largest "
        f"{c['largest'] / 1e6:,.3f} MB from {c['source'] or 'no named place'}"
        + (" (some in loops of unknown length, counted once)" if c["unknown"] else "")
        for c in row["collectives"]
    ]
    if row.get("gradient_bytes"):
        lines.append(f"(the gradients are {row['gradient_bytes'] / 1e6:,.3f} MB)")
    return lines or ["none"]


def _largest(found: dict[str, Any]) -> str:
    if not found["per_chip"]:
        return "none: one example per chip does not fit"
    return (
        f"{found['per_chip']} per chip, {found['global']} in all: compiled, total "
        f"{_mib(found['total_bytes'])}"
    )


def save_row(folder: str, row: dict[str, Any]) -> str:
    """Write a row and the table of all rows of the folder; return the table's path."""
    os.makedirs(folder, exist_ok=True)
    _write(_path(folder, row), json.dumps(row, indent=1) + "\n")
    table = os.path.join(folder, "table.md")
    _write(table, to_table(read_rows(folder)))
    return table


def find_row(folder: str, about: dict[str, Any]) -> dict[str, Any] | None:
    """Return the row of a folder that was made for the same, or None."""
    path = _path(folder, about)
    if not os.path.isfile(path):
        return None
    with open(path) as file:
        return json.load(file)


def _path(folder: str, about: dict[str, Any]) -> str:
    parts = (about[k] for k in ("config", "phase", "program", "topology", "digest"))
    return os.path.join(folder, "-".join(parts).replace(":", "_") + ".json")


def read_rows(folder: str) -> list[dict[str, Any]]:
    """Return the rows of a folder: by config and program, then kind of chip and size."""
    rows = []
    for path in glob.glob(os.path.join(glob.escape(folder), "*.json")):
        with open(path) as file:
            rows.append(json.load(file))
    kind = lambda row: row["topology"].partition(":")[0]  # noqa: E731
    return sorted(rows, key=lambda r: (r["config"], r["program"], kind(r), r["chips"]))


def to_table(rows: list[dict[str, Any]]) -> str:
    """Return rows as a Markdown table."""
    lines = ["| " + " | ".join(title for title, _ in COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for row in rows:
        cells = {**row, **_cells(row)}
        lines.append("| " + " | ".join(str(cells[key]) for _, key in COLUMNS) + " |")
    return "\n".join(lines) + "\n"


def _cells(row: dict[str, Any]) -> dict[str, str]:
    memory, largest = row["memory_bytes"], row.get("largest_batch")
    sent = {c["kind"]: c["bytes"] / 1e6 for c in row["collectives"]}
    others = [f"{k} {v:.3f} MB" for k, v in sent.items() if k != "all-reduce"]
    cells = {
        "arguments_mib": f"{memory['arguments'] / MIB:,.0f}",
        "temporaries_mib": f"{memory['temporaries'] / MIB:,.0f}",
        "total_mib": f"{memory['total'] / MIB:,.0f} of {memory['chip'] / MIB:,.0f}",
        "gflop_per_image": f"{row['flops_per_image'] / 1e9:,.1f}",
        "gradients_mb": f"{row['gradient_bytes'] / 1e6:,.3f}" if "gradient_bytes" in row else "",
        "all_reduce_mb": f"{sent.get('all-reduce', 0):,.3f}",
        "others": ", ".join(others) or "none",
        "estimate_ms": f"{1e3 * row['estimate_s']['total']:.3g}" if row["fits"] else "",
        "largest": str(largest["per_chip"]) if largest else "",
    }
    if not row["fits"]:
        unknown = dict.fromkeys(("arguments_mib", "temporaries_mib", "all_reduce_mb", "others"), "")
        cells |= {**unknown, "total_mib": f"**{cells['total_mib']}**"}
    return cells


def _mib(size: float) -> str:
    return f"{size / MIB:,.1f} MiB"


def _write(path: str, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())
