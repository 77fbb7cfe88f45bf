"""ncnn's pairs of RRDB networks (RealSR, Real-ESRGAN x4plus and its 6-block form), without ncnn.

Source: ncnn's documentation "param and model file structure" and "operation param weight
table".  The `.param` file lists the layers as text; the `.bin` file holds the numbers of its
convolutions one after the other, as float16 or float32, biases as float32.  The graph is
followed, not only counted: a network that is no RRDB is refused by its first odd layer.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np

from flowsr_jax.io.torch_pickle import WeightsFileError

MAGIC = b"7767517"
HALF, FULL = 0x01306B47, 0  # flags before a convolution's numbers
DENSE = 15  # convolutions of an RRDB: three dense blocks of five
TEXT_LIMIT = 16 << 20  # bytes of a .param file


@dataclasses.dataclass(frozen=True)
class Layer:
    """A line of the .param file."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    options: dict[int, str]

    def whole(self, number: int, default: int = 0) -> int:
        return int(self.options.get(number, default))

    def floats(self, number: int) -> list[float]:
        """Return the array option `number`, written as -(23300 + number)=count,a,b,..."""
        return [float(v) for v in self.options.get(-23300 - number, "0").split(",")[1:]]


def ncnn_pair(path: str | os.PathLike) -> tuple[Path, Path] | None:
    """Return (.param, .bin) if this is a file of such a pair, told by the content of .param."""
    path = Path(path)
    param = path if _is_param(path) else path.with_suffix(".param")
    return (param, param.with_suffix(".bin")) if _is_param(param) else None


def _is_param(path: Path) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(MAGIC) + 1).strip() == MAGIC


def read_ncnn(param: Path, binary: Path) -> tuple[dict[str, np.ndarray], dict[str, int | str]]:
    """Return the state dict of an RRDB network and its config.

    The keys are BasicSR's, the arrays float32.  The config says what the graph shows: sizes,
    scale, and ESRGAN's form of the trunk's skip.

    Raises:
      FileNotFoundError: one of the two files is missing.
      WeightsFileError: damaged files, or a network that is no RRDB.
    """
    if not binary.is_file():
        raise FileNotFoundError(f"{binary}: no such file; it holds the numbers of {param.name}")
    if param.stat().st_size > TEXT_LIMIT:
        raise WeightsFileError(f"{param}: is too large for a list of layers")
    try:
        layers = [_layer(line) for line in param.read_text().split("\n")[2:] if line.strip()]
        convs = [layer for layer in layers if layer.kind == "Convolution"]
        weights = _numbers(convs, binary)
        names = _names(layers, convs, weights)
    except WeightsFileError as error:
        raise WeightsFileError(f"{param}: {error}") from None
    except (ValueError, IndexError, KeyError) as error:
        raise WeightsFileError(f"{param}: damaged ({' '.join(str(error).split())[:200]})") from None
    state = {}
    for name, (kernel, bias) in zip(names, weights, strict=True):
        state |= {f"{name}.weight": kernel, f"{name}.bias": bias}
    ups = sum(layer.kind == "Interp" for layer in layers)
    config = {"scale": 2**ups, "nf": len(weights[0][1]), "gc": len(weights[1][1])}
    config |= {"nb": (len(convs) - 4 - ups) // DENSE, "skip": "first"}
    config |= {"in_channels": weights[0][0].shape[1], "out_channels": len(weights[-1][1])}
    return state, config


def _layer(line: str) -> Layer:
    kind, name, count_in, count_out, *rest = line.split()
    inputs, outputs = int(count_in), int(count_out)
    options = dict(text.split("=", 1) for text in rest[inputs + outputs :])
    return Layer(
        kind, name, tuple(rest[:inputs]), tuple(rest[inputs : inputs + outputs]),
        {int(k): v for k, v in options.items()},
    )  # fmt: skip


def _numbers(convs: list[Layer], binary: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return [(OIHW kernel, bias)] of the convolutions; every byte must be used."""
    data, at, out = binary.read_bytes(), 0, []
    for layer in convs:
        features, side, count = layer.whole(0), layer.whole(1), layer.whole(6)
        same = [layer.whole(n, d) for n, d in ((2, 1), (3, 1), (4, 0), (5, 0))]
        if side != 3 or layer.whole(11, 3) != 3 or same != [1, 1, 1, 1] or features < 1:
            raise WeightsFileError(
                f"layer {layer.name[:50]!r} is no 3x3 convolution with bias: not an RRDB network"
            )
        flag = int.from_bytes(data[at : at + 4], "little")
        if flag not in (HALF, FULL):
            raise WeightsFileError(f"{layer.name[:50]!r} is stored as {flag:#x} (int8 is not read)")
        dtype = np.dtype("<f2" if flag == HALF else "<f4")
        size = -(-count * dtype.itemsize // 4) * 4
        if count < 1 or count % (9 * features) or at + 4 + size + 4 * features > len(data):
            raise WeightsFileError(
                f"{binary.name} ends inside {layer.name[:50]!r}, or is another's"
            )
        kernel = np.frombuffer(data, dtype, count, at + 4).reshape(features, -1, 3, 3)
        at += 4 + size
        out.append((kernel.astype(np.float32), np.frombuffer(data, "<f4", features, at).copy()))
        at += 4 * features
    if at != len(data):
        raise WeightsFileError(f"{binary.name} has {len(data)} bytes, the layers need {at}")
    return out


def _names(layers: list[Layer], convs: list[Layer], weights: list) -> list[str]:
    """Return BasicSR's name of every convolution, in the order of the file.

    The graph must compute what an RRDB of so many blocks and enlargements computes.
    """
    ups = sum(layer.kind == "Interp" for layer in layers)
    blocks, rest = divmod(len(convs) - 4 - ups, DENSE)
    if rest or blocks < 1 or ups < 1:
        raise WeightsFileError(
            f"has {len(convs)} convolutions and {ups} enlargements: not an RRDB network"
        )
    names = ["conv_first"]
    names += [f"body.{i}.rdb{j}.conv{c}" for i in range(blocks) for j in (1, 2, 3)
              for c in range(1, 6)]  # fmt: skip
    names += ["conv_body", *(f"conv_up{u + 1}" for u in range(ups)), "conv_hr", "conv_last"]
    if (found := _evaluate(layers)) != _expected(blocks, ups):
        raise WeightsFileError(f"its layers are connected otherwise than an RRDB's ({found[:60]})")
    return names


def _evaluate(layers: list[Layer]) -> str:
    """Return a fingerprint of what the graph computes: each value a number, by its operation."""
    values: dict[str, int] = {}
    trace = _Trace()
    convs = 0
    last = -1
    for layer in layers:
        args = [values[name] for name in layer.inputs]
        if layer.kind == "Input":
            last = trace.add("input")
        elif layer.kind == "Split":
            last = args[0]
        elif layer.kind == "Convolution":
            last = trace.add("conv", convs, *args)
            convs += 1
            if layer.whole(9) == 2:
                last = trace.add("leaky", round((layer.floats(10) or [0.01])[0], 4), last)
            elif layer.whole(9):
                raise WeightsFileError(f"layer {layer.name[:50]!r} has another activation")
        elif layer.kind == "ReLU":
            last = trace.add("leaky", round(float(layer.options.get(0, 0)), 4), *args)
        elif layer.kind == "Concat":
            last = trace.add("concat", *args)
        elif layer.kind == "Eltwise" and layer.whole(0) == 1:
            last = trace.sum(layer.floats(1) or [1.0] * len(args), args)
        elif layer.kind == "BinaryOp" and layer.whole(0) == 0 and len(args) == 2:
            last = trace.sum([1.0, 1.0], args)
        elif layer.kind == "BinaryOp" and layer.whole(0) == 2 and layer.whole(1) == 1:
            last = trace.sum([float(layer.options[2])], args)
        elif layer.kind == "Interp" and layer.whole(0) == 1:
            factors = [float(layer.options.get(n, 1)) for n in (1, 2)]
            if factors != [2.0, 2.0]:
                raise WeightsFileError(f"layer {layer.name[:50]!r} enlarges by {factors}, not by 2")
            last = trace.add("nearest", *args)
        else:
            raise WeightsFileError(
                f"layer {layer.name[:50]!r} is a {layer.kind[:30]}: not an RRDB's"
            )
        values |= dict.fromkeys(layer.outputs, last)
    return trace.of(last)


def _expected(blocks: int, ups: int) -> str:
    """Return the fingerprint of ESRGAN's network."""
    trace = _Trace()
    count = iter(range(DENSE * blocks + 4 + ups))

    def conv(value: int, act: bool = False) -> int:
        value = trace.add("conv", next(count), value)
        return trace.add("leaky", 0.2, value) if act else value

    first = x = conv(trace.add("input"))
    for _ in range(blocks):
        y = x
        for _ in range(3):
            known = [y]
            for _ in range(4):
                known.append(conv(trace.add("concat", *known) if len(known) > 1 else y, True))
            y = trace.sum([0.2, 1.0], [conv(trace.add("concat", *known)), y])
        x = trace.sum([0.2, 1.0], [y, x])
    x = trace.sum([1.0, 1.0], [first, conv(x)])
    for _ in range(ups):
        x = conv(trace.add("nearest", x), True)
    return trace.of(conv(conv(x, True)))


class _Trace:
    """Numbers values by how they are made, equal ones alike, sums in any order."""

    def __init__(self) -> None:
        self.made: dict[tuple, int] = {}
        self.terms: dict[int, tuple] = {}

    def add(self, *how: object) -> int:
        return self.made.setdefault(how, len(self.made))

    def sum(self, factors: list[float], values: list[int]) -> int:
        terms: list[tuple[float, int]] = []
        for factor, value in zip(factors, values, strict=True):
            scaled = self.terms.get(value, ()) if len(self.terms.get(value, ())) == 1 else ()
            terms += [(round(factor * f, 4), v) for f, v in scaled or ((1.0, value),)]
        number = self.add("sum", *sorted(terms))
        self.terms[number] = tuple(terms)
        return number

    def of(self, value: int) -> str:
        """Return how a value is made, from the input on, in the order of first use."""
        by_number = {number: how for how, number in self.made.items()}
        order: dict[int, int] = {}
        lines: list[str] = []
        stack = [(value, False)]
        while stack:
            number, done = stack.pop()
            if number in order:
                continue
            how = by_number[number]
            if how[0] == "sum":
                below = [v for _, v in how[1:]]
            else:
                below = list(how[2:] if how[0] in ("conv", "leaky") else how[1:])
            if not done:
                stack += [(number, True), *((v, False) for v in reversed(below))]
                continue
            order[number] = len(order)
            if how[0] == "sum":
                said = sorted((f, order[v]) for f, v in how[1:])
            else:
                said = [how[1:2] if how[0] in ("conv", "leaky") else (), *(order[v] for v in below)]
            lines.append(f"{how[0]} {said}")
        return ";".join(lines)
