"""Schedules, optimisers and the step: against golden values and against plain arithmetic."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from train_cases import FAMILY, TinyConfig, apply, mse, registered, same

from flowsr_jax.config import ConfigError, Frozen
from flowsr_jax.train import mesh as meshes
from flowsr_jax.train.config import GroupConfig, PhaseConfig, TrainConfig
from flowsr_jax.train.optimizer import make_optimizer
from flowsr_jax.train.schedules import learning_rate
from flowsr_jax.train.state import create, trained_groups
from flowsr_jax.train.step import active_groups, make_step, to_float


@pytest.fixture(autouse=True, scope="module")
def family():
    with registered():
        yield


def phase_of(*groups: GroupConfig, steps: int = 10, loss: str = "mse", **options) -> PhaseConfig:
    return PhaseConfig("fit", loss, steps, groups, Frozen(options))


def setup(phase: PhaseConfig, active=None, batch: int = 4, family=FAMILY, **train):
    """Return (step, fresh state, batch, key) on one device."""
    config = TrainConfig(batch, (phase,), **train)
    mesh = meshes.make_mesh(1, 1)
    step = make_step(family, phase, config, mesh, active)

    def begin():
        params = family.init(TinyConfig(), jax.random.key(0))
        return create(params, family.init_state(None), phase, config)

    state = jax.jit(begin, out_shardings=meshes.state_sharding(mesh, jax.eval_shape(begin)))()
    rng = np.random.default_rng(0)
    images = {
        "hr": rng.integers(0, 256, (batch, 8, 8, 3), dtype=np.uint8),
        "lr": rng.integers(0, 256, (batch, 4, 4, 3), dtype=np.uint8),
    }
    return step, state, meshes.global_batch(mesh, images), jax.random.key(7)


A, B = GroupConfig("a", 0.1, optimizer="sgd", betas=(0.0, 0.0)), GroupConfig("b", 0.1)

GOLDEN = {
    "SRFlow_DF2K_4X": (200_000, "halve_at", (0.5, 0.75, 0.9, 0.95), 2.5e-4),
    "SRFlow_DF2K_8X_and_CelebA_8X": (200_000, "halve_at", (0.5, 0.75, 0.9, 0.95), 5e-4),
    "RRDB_DF2K_8X_and_CelebA_8X": (200_000, "cosine_restart", (50_000, 100_000, 150_000), 2e-4),
    "RRDB_DF2K_4X": (1_000_000, "cosine_restart", (50_000, 100_000, 150_000), 2e-4),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_schedules_are_those_of_the_released_schedulers(shared, name):
    steps, schedule, milestones, lr = GOLDEN[name]
    group = GroupConfig(
        "a", lr, schedule=schedule, milestones=milestones, period=50_000, final_lr=1e-7
    )
    table = json.loads((shared / "golden/srflow_lr_schedules.json").read_text())["lr"][name]
    rate = jax.jit(learning_rate(group, steps))
    found = [float(rate(int(n))) for n in table]
    # float32 of an angle up to pi: 1e-6 of the peak, and 1e-5 of the small values.
    np.testing.assert_allclose(found, list(table.values()), rtol=1e-5, atol=1e-6 * lr)


def test_constant_cosine_and_warm_up():
    warm = learning_rate(GroupConfig("a", 1.0, warmup_steps=4), 10)
    assert [float(warm(n)) for n in (1, 2, 4, 9)] == [0.25, 0.5, 1.0, 1.0]
    cosine = learning_rate(GroupConfig("a", 1.0, schedule="cosine", final_lr=0.1), 8)
    expected = [0.1 + 0.45 * (1 + np.cos(np.pi * n / 8)) for n in (1, 4, 8)]
    np.testing.assert_allclose([float(cosine(n)) for n in (1, 4, 8)], expected, rtol=1e-6)


def test_adamax_glow_is_the_released_formula(shared):
    golden = np.load(shared / "golden/glow_train.npz")
    prefix = "aff_1x1/"
    names = [k.removeprefix(prefix + "grad/") for k in golden if k.startswith(prefix + "grad/")]
    w, g, goal = (
        {n: golden[f"{prefix}{part}/{n}"].astype(np.float32) for n in names}
        for part in ("w", "grad", "w_step1")
    )
    betas = (float(golden[prefix + "beta1"]), float(golden[prefix + "beta2"]))
    group = GroupConfig("a", float(golden[prefix + "lr"]), optimizer="adamax_glow", betas=betas)
    optimizer = make_optimizer(group)
    u, _ = optimizer.update(g, optimizer.init(w), w)
    moved = 0.0
    for n in names:
        step = -group.lr * np.asarray(u[n])
        moved = max(moved, np.abs(step).max())
        large = np.abs(g[n]) > 1e-3 * np.abs(g[n]).max()
        np.testing.assert_allclose(step[large], (goal[n] - w[n])[large], atol=1e-6)
    assert moved > 5e-5


@pytest.mark.parametrize("name", ["adam", "adamw", "adamax", "sgd"])
def test_optimizers_against_their_formulas(name):
    group = GroupConfig("a", 1.0, optimizer=name, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.1)
    optimizer = make_optimizer(group)
    w, m, v = np.float32([1.0, -2.0]), np.zeros(2), np.zeros(2)
    state = optimizer.init(jnp.asarray(w))
    for t, g in enumerate(np.float32([[0.3, 0.1], [-0.5, 0.2], [0.4, 0.0]]), start=1):
        u, state = optimizer.update(jnp.asarray(g), state, jnp.asarray(w))
        g = g if name == "adamw" else g + 0.1 * w
        m = 0.8 * m + (g if name == "sgd" else 0.2 * g)
        v = np.maximum(0.9 * v, np.abs(g) + 1e-3) if name == "adamax" else 0.9 * v + 0.1 * g * g
        mean = m / (1 - 0.8**t)
        expected = {
            "adam": mean / (np.sqrt(v / (1 - 0.9**t)) + 1e-3),
            "adamw": mean / (np.sqrt(v / (1 - 0.9**t)) + 1e-3) + 0.1 * w,
            "adamax": mean / v,
            "sgd": m,
        }[name]
        np.testing.assert_allclose(u, expected, rtol=2e-5)


def test_the_step_is_plain_gradient_descent():
    step, state, batch, key = setup(phase_of(A, noise=0.5))
    params, model_state = jax.device_get(state.params), jax.device_get(state.model_state)
    data, fold = to_float(batch), jax.random.fold_in(key, 0)

    def loss(a):
        return mse(params.replace(a=a), model_state, data, fold, noise=0.5)[0]

    value, grads = jax.value_and_grad(loss)(params["a"])
    state, metrics = step(state, batch, key)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-6)
    np.testing.assert_allclose(
        state.params["a"]["w"], params["a"]["w"] - 0.1 * grads["w"], rtol=1e-5, atol=1e-7
    )
    assert same(state.params["b"], params["b"]), "a group that is not listed moved"
    norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(grads)))
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-5)
    assert float(metrics["lr/a"]) == np.float32(0.1) and int(state.model_state["calls"]) == 1
    assert 0 < float(jnp.max(data["hr"])) <= 1


def test_every_step_has_its_own_key():
    frozen = dataclasses.replace(A, lr=0.0)
    step, state, batch, key = setup(phase_of(frozen, noise=0.5))
    losses = []
    for _ in range(3):
        state, metrics = step(state, batch, key)
        losses.append(float(metrics["loss"]))
    assert len(set(losses)) == 3


def test_from_step_freezes_and_then_trains():
    phase = phase_of(A, dataclasses.replace(B, from_step=0.5))
    names = trained_groups(phase, FAMILY.init(TinyConfig(), jax.random.key(0)))
    assert active_groups(phase, names, 4) == ("a",) and active_groups(phase, names, 5) == ("a", "b")
    step, state, batch, key = setup(phase, active=("a",))
    params, optimizer = jax.device_get((state.params, state.opt_state))
    # No gradient work: the program that trains "a" alone is the smaller one.
    full = setup(phase)[0]
    costs = [f.lower(state, batch, key).compile().cost_analysis()["flops"] for f in (step, full)]
    assert costs[0] < costs[1]
    state, metrics = step(state, batch, key)
    assert same(state.params["b"], params["b"]) and same(state.opt_state["b"], optimizer["b"])
    assert not same(state.params["a"], params["a"]) and float(metrics["lr/b"]) == 0
    state, metrics = full(state, batch, key)
    assert not same(state.params["b"], params["b"]) and float(metrics["lr/b"]) > 0


def test_star_covers_the_groups_not_named_and_wrong_names_are_named():
    params = FAMILY.init(TinyConfig(), jax.random.key(0))
    groups = trained_groups(phase_of(A, dataclasses.replace(B, name="*", lr=0.7)), params)
    assert groups["a"].lr == 0.1 and groups["b"].lr == 0.7
    with pytest.raises(ConfigError, match="'c', which the model lacks.*groups: a, b"):
        trained_groups(phase_of(dataclasses.replace(A, name="c")), params)


def delta(before, after, group):
    moved = jax.tree.map(lambda x, y: x - y, before[group], jax.device_get(after[group]))
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(moved)])


def test_clipping_bounds_the_joint_norm_or_that_of_one_group():
    both = (A, dataclasses.replace(B, optimizer="sgd", betas=(0.0, 0.0)))
    steps = {}
    for label, groups, joint in (
        ("free", both, None),
        ("joint", both, 0.01),
        ("loose", both, 1e6),
        ("own", (dataclasses.replace(both[0], clip_norm=0.02), both[1]), None),
        ("off", (dataclasses.replace(both[0], clip_norm=0.0), both[1]), 0.01),
    ):
        step, state, batch, key = setup(phase_of(*groups), clip_norm=joint)
        before = jax.device_get(state.params)
        state, metrics = step(state, batch, key)
        steps[label] = [delta(before, state.params, g) / 0.1 for g in "ab"]
        assert float(metrics["grad_norm"]) > 0.1, "the logged norm is that before clipping"
    norm = {k: [np.linalg.norm(x) for x in v] for k, v in steps.items()}
    np.testing.assert_allclose(np.hypot(*norm["joint"]), 0.01, rtol=1e-3)
    np.testing.assert_allclose(
        steps["joint"][0] / 0.01, steps["free"][0] / np.hypot(*norm["free"]), rtol=1e-2, atol=1e-3
    )
    np.testing.assert_allclose(np.concatenate(steps["loose"]), np.concatenate(steps["free"]))
    np.testing.assert_allclose(norm["own"], [0.02, norm["free"][1]], rtol=1e-3)
    np.testing.assert_allclose(norm["off"], [norm["free"][0], 0.01], rtol=1e-3)


def test_accumulation_equals_one_large_batch():
    results = []
    for accumulate in (1, 4):
        step, state, batch, key = setup(phase_of(A, B), batch=8, accumulate=accumulate)
        for _ in range(3):
            state, metrics = step(state, batch, key)
        results.append((jax.device_get(state.params), metrics))
        assert int(state.model_state["calls"]) == 3 * accumulate
    (one, a), (four, b) = results
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6), one, four)
    np.testing.assert_allclose(a["l1"], b["l1"], rtol=1e-5)
    np.testing.assert_allclose(a["grad_norm"], b["grad_norm"], rtol=1e-4)


def test_micro_batches_draw_different_noise():
    step, state, batch, key = setup(phase_of(A, noise=1.0), accumulate=2)
    batch = jax.tree.map(lambda x: jnp.repeat(x[:1], 4, axis=0), batch)
    _, metrics = step(state, batch, key)
    fold = jax.random.fold_in(key, 0)
    alone = [
        mse(FAMILY.init(TinyConfig(), jax.random.key(0)), {"calls": 0},
            jax.tree.map(lambda x: x[:2], to_float(batch)), jax.random.fold_in(fold, i), noise=1.0)
        for i in range(2)
    ]  # fmt: skip
    assert float(alone[0][0]) != float(alone[1][0])
    np.testing.assert_allclose(metrics["loss"], np.mean([float(x[0]) for x in alone]), rtol=1e-5)


def test_averaged_weights_follow_the_bounded_decay():
    step, state, batch, key = setup(phase_of(A), ema_decay=0.3)
    expected = jax.device_get(state.params["a"]["w"])
    for t in range(6):
        state, _ = step(state, batch, key)
        decay = min(0.3, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * jax.device_get(state.params["a"]["w"])
    np.testing.assert_allclose(state.ema["a"]["w"], expected, rtol=1e-5)
    assert state.weights is state.ema and same(state.ema["b"], state.params["b"])
    assert setup(phase_of(A))[1].ema is None


def shuffled_family():
    """FAMILY with integers among its weights: the order of the LR image's channels."""

    def init(config, key):
        params = FAMILY.init(config, key)
        return params.replace(a={**params["a"], "order": jnp.array([2, 0, 1], jnp.int32)})

    def loss(params, state, batch, key):
        assert params["a"]["order"].dtype == jnp.int32
        lr = jnp.take(batch["lr"], params["a"]["order"], axis=-1)
        return mse(params, state, {**batch, "lr": lr}, key)

    return dataclasses.replace(FAMILY, init=init, losses={"mse": loss})


@pytest.mark.parametrize("optimizer", ["adamw", "adamax_glow", "sgd"])
def test_integers_of_a_trained_group_are_constants(optimizer):
    group = dataclasses.replace(A, name="*", optimizer=optimizer, weight_decay=0.1, clip_norm=1.0)
    options = {"batch": 8, "accumulate": 2, "ema_decay": 0.5, "family": shuffled_family()}
    step, state, batch, key = setup(phase_of(group), **options)
    before = jax.device_get(state)
    for _ in range(2):
        state, _ = step(state, batch, key)
    assert int(state.skipped_total) == 0
    for tree in (state.params, state.ema):
        order = tree["a"]["order"]
        assert order.dtype == jnp.int32 and order.tolist() == [2, 0, 1]
        assert not same(tree["a"]["w"], before.params["a"]["w"])

    # The same steps where the order is no weight.
    def fixed(params, state, batch, key):
        return mse(params, state, {**batch, "lr": batch["lr"][..., jnp.array([2, 0, 1])]}, key)

    options["family"] = dataclasses.replace(FAMILY, losses={"mse": fixed})
    step, plain, batch, key = setup(phase_of(group), **options)
    for _ in range(2):
        plain, _ = step(plain, batch, key)
    assert same(plain.opt_state, state.opt_state), "the integers have optimiser state"
    for name in ("w", "bias"):
        assert same(plain.params["a"][name], state.params["a"][name])
        assert same(plain.ema["a"][name], state.ema["a"][name])


def test_moving_statistics_are_carried_in_the_model_state():
    def loss(params, state, batch, key):
        mean = jnp.mean(batch["lr"], axis=(0, 1, 2))
        moved = jax.tree.map(lambda m: m + 0.5 * (mean - m), state["statistics"])
        value, (_, metrics) = mse(params, {"calls": 0}, batch, key)
        return value, ({"statistics": moved}, metrics)

    family = dataclasses.replace(
        FAMILY,
        init=lambda config, key: FAMILY.init(config, key).replace(statistics={"m": jnp.ones(3)}),
        init_state=lambda config: {"statistics": {"m": jnp.zeros(3)}},
        losses={"mse": loss},
    )
    step, state, batch, key = setup(phase_of(A), family=family, ema_decay=0.5)
    assert state.model_state["statistics"]["m"].tolist() == [1, 1, 1], "a phase goes on"
    state, _ = step(state, batch, key)
    expected = 0.5 + 0.5 * np.mean(to_float(batch)["lr"], axis=(0, 1, 2))
    np.testing.assert_allclose(state.weights["statistics"]["m"], expected, rtol=1e-5)
    assert same(state.weights["a"], state.ema["a"])


def test_bad_steps_change_nothing_and_are_counted():
    step, state, batch, key = setup(phase_of(A, B, loss="broken", after=2), ema_decay=0.5)
    kept = None
    for number in range(1, 7):
        state, metrics = step(state, batch, key)
        if number == 2:
            kept = jax.device_get(state)
    assert np.isnan(metrics["loss"]) and np.isnan(metrics["grad_norm"])
    for part in ("params", "ema", "opt_state", "model_state"):
        assert same(getattr(state, part), getattr(kept, part)), part
    assert (int(kept.skipped_total), int(kept.step)) == (0, 2)
    counters = (state.step, state.skipped, state.skipped_total, state.last_bad_step)
    assert tuple(map(int, counters)) == (6, 4, 4, 6) and float(metrics["skipped"]) == 4


def test_a_finite_loss_that_leads_to_weights_beyond_float32_is_a_bad_step():
    huge = dataclasses.replace(B, lr=3e38, optimizer="sgd")
    step, state, batch, key = setup(phase_of(A, huge), ema_decay=0.5)
    # Weights of b so large that the next step leaves float32.
    state = dataclasses.replace(
        state, params=state.params.replace(b=jax.tree.map(lambda x: x + 9.0, state.params["b"]))
    )
    kept = jax.device_get(state)
    state, metrics = step(state, batch, key)
    assert np.isfinite(metrics["loss"]) and np.isfinite(metrics["grad_norm"])
    for part in ("params", "ema", "opt_state", "model_state"):
        assert same(getattr(state, part), getattr(kept, part)), part
    assert (int(state.step), int(state.skipped)) == (1, 1)


def test_the_rate_of_a_step_is_that_of_its_number():
    warm = dataclasses.replace(A, warmup_steps=3, schedule="halve_at", milestones=(4,))
    step, state, batch, key = setup(phase_of(warm))
    rate = learning_rate(warm, 10)
    for number in range(1, 6):
        before = jax.device_get(state.params["a"]["bias"])
        grads = jax.grad(
            lambda bias, params: mse(
                params.replace(a={**params["a"], "bias": bias}), {"calls": 0}, to_float(batch), key
            )[0]
        )(before, state.params)
        state, metrics = step(state, batch, key)
        assert float(metrics["lr/a"]) == float(rate(number))
        moved = before - jax.device_get(state.params["a"]["bias"])
        np.testing.assert_allclose(moved, float(rate(number)) * grads, rtol=1e-4, atol=1e-8)
    assert [float(rate(n)) for n in (1, 3, 4)] == pytest.approx([0.1 / 3, 0.1, 0.05])


def test_good_steps_between_bad_ones_reset_the_count_in_a_row():
    step, state, batch, key = setup(phase_of(A, loss="broken", chance=0.5))
    seen = []
    for _ in range(12):
        state, metrics = step(state, batch, key)
        seen.append((bool(np.isfinite(metrics["loss"])), int(metrics["skipped"])))
    row = 0
    for good, skipped in seen:
        row = 0 if good else row + 1
        assert skipped == row
    assert int(state.skipped_total) == sum(not good for good, _ in seen)
    assert 0 < int(state.skipped_total) < 12
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(jax.device_get(state.params)))


def test_opposed_losses_move_their_own_groups_at_the_same_weights():
    rival = dataclasses.replace(A, name="b", loss="rival", loss_options=Frozen({"weight": 2.0}))
    phase = phase_of(A, rival)
    step, state, batch, key = setup(phase)
    params, data = jax.device_get(state.params), to_float(batch)
    state, metrics = step(state, batch, key)

    def error(tree):
        return jnp.mean(jnp.square(apply(params.replace(**tree), data["lr"]) - data["hr"]))

    grads = jax.grad(error)({k: params[k] for k in "ab"})
    for group, sign in (("a", -1), ("b", 2)):
        expected = jax.tree.map(lambda w, g: w + sign * 0.1 * g, params[group], grads[group])  # noqa: B023
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
            expected, jax.device_get(state.params[group]),
        )  # fmt: skip
    np.testing.assert_allclose(metrics["rival/loss"], -2 * metrics["loss"], rtol=1e-6)
    assert int(state.model_state["calls"]) == 2, "the state goes through both losses"
    with pytest.raises(ConfigError, match="loss_options differ"):
        phase_of(A, dataclasses.replace(rival, loss=None))


def test_it_compiles_once_and_donates():
    step, state, batch, key = setup(phase_of(A, B), ema_decay=0.5)
    first = state
    for _ in range(3):
        state, _ = step(state, batch, key)
    assert step._cache_size() == 1
    assert first.params["a"]["w"].is_deleted()


def test_the_mesh_goes_through_the_processes_one_by_one():
    @dataclasses.dataclass(frozen=True)
    class Device:
        process_index: int
        id: int

    # As on slices whose chips are numbered row by row over two hosts.
    devices = [Device(id // 2 % 2, id) for id in range(8)]
    grid = meshes.make_mesh(-1, 2, devices).devices
    assert [d.process_index for d in grid.ravel()] == [0] * 4 + [1] * 4
    assert grid.shape == (4, 2) and [d.id for d in grid[0]] == [0, 1]


def test_meshes_shardings_and_their_errors():
    count = len(jax.devices())
    with pytest.raises(ConfigError, match=f"{count} found"):
        meshes.make_mesh(count + 1)
    mesh = meshes.make_mesh()
    assert mesh.size == count
    with pytest.raises(ConfigError, match="take 6 or 9"):
        meshes.check_batch(7, 3, meshes.make_mesh(1))
    large = jax.ShapeDtypeStruct((3, 64, 128), jnp.float32)
    assert meshes.state_sharding(mesh, {"w": large})["w"].spec == jax.P()
