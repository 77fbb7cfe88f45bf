"""A conditional flow for points in the plane: train it, draw from it, plot its density.

    python examples/two_moons.py -o OUT     # 20 s of CPU time; writes OUT/two_moons.png

Everything comes from the public bijectors but one layer, which is written and tested here.
docs/bijectors.md explains the protocol.  The plot needs matplotlib.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import make_moons

from flowsr_jax.bijectors import (
    ActNorm,
    Affine,
    Bijector,
    Chain,
    Conv1x1,
    Coupling,
    ScaleForm,
    Scan,
)
from flowsr_jax.math.gaussian import standard_normal_log_prob, sum_event
from flowsr_jax.nets.mlp import MLP
from flowsr_jax.testing import check_bijector

CLASSES = 2


@dataclasses.dataclass(frozen=True)
class SinhArcsinh(Bijector):
    """y = sinh(exp(tail) * asinh(x) + skew), elementwise: heavier, lighter or skewed tails.

    A new bijector: static choices would be fields (there are none), parameters are arguments.
    """

    def init(self, key, shape):
        return {"tail": jnp.zeros(shape[-1]), "skew": jnp.zeros(shape[-1])}

    def forward(self, params, x, cond=None, prepared=None):
        bent = jnp.exp(params["tail"]) * jnp.arcsinh(x) + params["skew"]
        return jnp.sinh(bent), sum_event(self._log_slope(params, x, bent))

    def inverse(self, params, y, cond=None, prepared=None):
        bent = jnp.arcsinh(y)
        x = jnp.sinh((bent - params["skew"]) * jnp.exp(-params["tail"]))
        return x, -sum_event(self._log_slope(params, x, bent))

    def scales(self, params, x, cond=None):
        bent = jnp.exp(params["tail"]) * jnp.arcsinh(x) + params["skew"]
        return jnp.exp(self._log_slope(params, x, bent))

    def _log_slope(self, params, x, bent):
        return params["tail"] + jnp.log(jnp.cosh(bent)) - 0.5 * jnp.log1p(x**2)


def make_flow(steps: int = 8) -> Bijector:
    """[B,2] -> [B,2], given cond [B,CLASSES]."""
    net = MLP(width=64, layers=2, bound=None, cond_channels=CLASSES)
    coupling = Coupling(net, Affine(ScaleForm("tanh", clamp=2.0)))
    step = Chain((("actnorm", ActNorm()), ("conv1x1", Conv1x1()), ("coupling", coupling)))
    # Scan compiles one step, whatever their number; its parameters have a leading axis.
    return Chain((("steps", Scan(step, steps)), ("bend", SinhArcsinh())))


def log_prob(flow: Bijector, params, x, label):
    """log p(x | label) in nats, [B], of x [B,2] and label int [B]."""
    z, logdet = flow.forward(params, x, jax.nn.one_hot(label, CLASSES))
    return logdet + standard_normal_log_prob(z)


def sample(flow: Bijector, params, key, label):
    """One point for each label: [B,2]."""
    z = jax.random.normal(key, (len(label), 2))
    return flow.inverse(params, z, jax.nn.one_hot(label, CLASSES))[0]


def moons(count: int, seed: int):
    """(points float32 [count,2], label int32 [count])."""
    x, label = make_moons(count, noise=0.05, random_state=seed)
    return jnp.asarray(x, jnp.float32), jnp.asarray(label, jnp.int32)


def train(flow: Bijector, x, label, *, steps: int, batch: int = 256, seed: int = 0):
    """Minimise the mean of -log p; returns the parameters."""
    key = jax.random.key(seed)
    params = flow.init(key, x.shape[1:])
    # ActNorms whiten what they see of the data.
    params, _, _ = jax.jit(flow.init_from_data)(params, x, jax.nn.one_hot(label, CLASSES))
    schedule = optax.warmup_cosine_decay_schedule(0.0, 3e-3, steps // 10, steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))

    @jax.jit
    def update(params, state, key):
        chosen = jax.random.randint(key, (batch,), 0, len(x))
        loss, grads = jax.value_and_grad(
            lambda p: -jnp.mean(log_prob(flow, p, x[chosen], label[chosen]))
        )(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, loss

    state = optimizer.init(params)
    for step in range(1, steps + 1):
        params, state, loss = update(params, state, jax.random.fold_in(key, step))
        if step % max(1, steps // 10) == 0:
            print(f"step {step}/{steps}  loss {loss:.3f} nats", flush=True)
    return params


def gaussian_nll(train_data, test_data) -> float:
    """Mean -log p in nats of one Gaussian per class, fitted to the training data."""
    (x, label), (test, test_label) = (map(np.asarray, data) for data in (train_data, test_data))
    total = 0.0
    for c in range(CLASSES):
        mean, covariance = x[label == c].mean(0), np.cov(x[label == c].T)
        d = test[test_label == c] - mean
        distance = np.einsum("ni,ij,nj->n", d, np.linalg.inv(covariance), d)
        total += 0.5 * np.sum(distance + np.log(np.linalg.det(2 * np.pi * covariance)))
    return float(total / len(test))


def plot(path: Path, flow: Bijector, params, x, label) -> None:
    """Data, draws from the flow, and its density, side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = jax.jit(lambda key: sample(flow, params, key, label))(jax.random.key(1))
    side = np.linspace(-1.6, 2.6, 300), np.linspace(-1.1, 1.6, 200)
    grid = jnp.asarray(np.stack(np.meshgrid(*side), -1).reshape(-1, 2), jnp.float32)
    classes = [jnp.full(len(grid), c) for c in range(CLASSES)]
    density = sum(jnp.exp(jax.jit(log_prob, static_argnums=0)(flow, params, grid, c)) / CLASSES
                  for c in classes)  # fmt: skip
    figure = Figure(figsize=(12, 3), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    for axes, points, title in ((panels[0], x, "data"), (panels[1], drawn, "samples")):
        axes.scatter(*np.asarray(points).T, c=np.asarray(label), s=3, cmap="coolwarm", lw=0)
        axes.set_title(title)
    picture = panels[2].pcolormesh(*side, np.asarray(density).reshape(200, 300), cmap="magma")
    figure.colorbar(picture, ax=panels[2])
    panels[2].set_title("density")
    for axes in panels:
        axes.set_aspect("equal")
    figure.savefig(path)


def main(argv: list[str] | None = None) -> tuple[float, float]:
    """Train, print and plot; returns (flow's, Gaussian's) nats per point on held-out data."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-o", "--output", default="runs/two_moons", help="output folder")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    start = time.perf_counter()

    # The invariants that every bijector of the library is held to.
    check_bijector(SinhArcsinh(), shape=(3,))
    print(f"SinhArcsinh holds the invariants  ({time.perf_counter() - start:.0f} s)", flush=True)

    flow = make_flow()
    data, held_out = moons(20_000, seed=args.seed), moons(2000, seed=args.seed + 1)
    params = train(flow, *data, steps=args.steps, seed=args.seed)
    nll = -float(jnp.mean(jax.jit(log_prob, static_argnums=0)(flow, params, *held_out)))
    baseline = gaussian_nll(data, held_out)
    print(f"held-out -log p: flow {nll:.3f} nats, one Gaussian per class {baseline:.3f} nats")
    out = Path(args.output)
    out.mkdir(parents=True, exist_ok=True)
    plot(out / "two_moons.png", flow, params, *held_out)
    print(f"{out / 'two_moons.png'}  ({time.perf_counter() - start:.0f} s in all)")
    return nll, baseline


if __name__ == "__main__":
    main()
