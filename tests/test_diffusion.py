"""Schedules, the forward process and the samplers, without a network.

The samplers run with the exact score of Gaussian data (samplers.npz), in float64.
"""

from __future__ import annotations

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_tools import Table

from flowsr_jax.config import ConfigError
from flowsr_jax.diffusion import chain, process
from flowsr_jax.diffusion.samplers import SamplerConfig, coefficients, grid
from flowsr_jax.diffusion.schedules import (
    BUFFERS,
    ScheduleConfig,
    ScheduleWarning,
    betas,
    buffers,
    gammas,
    level_edges,
    log_snr_grid,
    matching_end,
    timestep_of,
    trailing_grid,
    trailing_timesteps,
    warn_if_signal_remains,
)

EXACT = 1e-9
ROWS = 128
LINEAR = ScheduleConfig("linear", 1000, 1e-4, 2e-2)


@pytest.fixture(scope="module")
def golden(shared):
    with np.load(shared / "golden/samplers.npz") as data:
        return dict(data)


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def test_schedules_agree(shared):
    with np.load(shared / "golden/schedules.npz") as data:
        golden = dict(data)
    table = Table("schedules")
    arguments = json.loads(str(golden.pop("long/args_json")))
    made = {}
    for name, want in golden.items():
        if name.endswith("/index"):
            continue
        *which, array = name.split("/")
        if which[0] == "long":
            kind, *rest = arguments[which[1]]
            index = golden[f"long/{which[1]}/index"]
        else:
            kind, rest = which[0], (int(which[1]), 1e-4, 2e-2)
            index = slice(None)
        config = ScheduleConfig(kind, *rest)
        if array.startswith("level_edges"):
            got = level_edges(config)
        else:
            if config not in made:
                made[config] = buffers(config, np.float64)
            got = made[config][array][index]
        finite = np.isfinite(want)
        np.testing.assert_array_equal(np.isfinite(got), finite)
        table.check(name, got[finite], want[finite], 1e-10)
    table.finish()
    assert len(table.rows) > 150
    single = buffers(ScheduleConfig("linear", 10))
    assert tuple(single) == BUFFERS and all(v.dtype == np.float32 for v in single.values())


def test_published_last_levels():
    for config, last in (
        (ScheduleConfig(), 4.38598e-05),
        (ScheduleConfig(start=1e-4, end=2e-2), 1.62885e-09),
        (LINEAR, 4.03583e-05),
        (ScheduleConfig("linear", 1000, 1e-4, 0.09), 6.604e-21),
        (ScheduleConfig("cosine"), 6.072e-10),
        (ScheduleConfig("linear", 100, 1e-4, 2e-2), 0.3636),
    ):
        np.testing.assert_allclose(gammas(config)[-1], last, rtol=2e-3)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"steps": 0}, "steps = 0 must be at least 1"),
        ({"name": "liner"}, "did you mean 'linear'"),
        ({"start": -1e-3}, "start = -0.001 must be at least 0"),
        ({"name": "const", "end": 0.0}, "not decreasing in signal"),
        ({"end": 1.5}, r"beta of step \d+ is 1.0.*0 < beta <= 1.*end = 1.5"),
        ({"name": "given", "steps": 2, "betas": (0.1,)}, "steps = 2; got 1"),
        ({"name": "given", "steps": 2, "betas": (0.1, 0.0)}, r"betas = 0.0 must be in \(0, 1\]"),
    ],
)
def test_bad_schedules(fields, message):
    with pytest.raises(ConfigError, match=message):
        ScheduleConfig(**fields)


def test_a_schedule_that_keeps_signal_is_named_with_what_to_set():
    with pytest.warns(ScheduleWarning, match=r"steps = 100 ends at gamma = 0.605.*set end = 0.188"):
        warn_if_signal_remains(ScheduleConfig(steps=100))
    for steps, end in ((20, 0.711), (50, 0.351), (100, 0.188), (200, 0.0970), (1000, 0.0199)):
        found = matching_end(ScheduleConfig(steps=steps))
        np.testing.assert_allclose(found, end, rtol=5e-3)
        last = gammas(ScheduleConfig(steps=steps, end=found))[-1]
        np.testing.assert_allclose(last, 4.386e-5, rtol=1e-6)
    for name in ("quad", "warmup10", "const"):
        found = matching_end(ScheduleConfig(name, 50))
        assert gammas(ScheduleConfig(name, 50, end=found))[-1] < 1e-4
    with pytest.warns(ScheduleWarning, match="use more steps"):
        warn_if_signal_remains(ScheduleConfig("given", 1, betas=(0.5,)))


def test_grids(golden):
    table = Table("grids")
    known = gammas(LINEAR)
    table.check("betas", betas(LINEAR), golden["betas"], EXACT)
    table.check("gamma_all", known, golden["gamma_all"], EXACT)
    for n in (10, 20, 50, 100):
        np.testing.assert_array_equal(
            trailing_timesteps(1000, n), golden[f"trailing/{n}/timesteps"]
        )
        want = golden[f"trailing/{n}/gamma"]
        table.check(f"trailing/{n}/gamma", trailing_grid(LINEAR, n), want, EXACT)
        got = log_snr_grid(known[-1], known[0], n)
        table.check(f"lambda/{n}/gamma", got, golden[f"lambda/{n}/gamma"], EXACT)
        spaced = grid(SamplerConfig(steps=n + 1, spacing="log_snr"), LINEAR)
        np.testing.assert_allclose(spaced[:-1], got, rtol=1e-12)
        assert spaced[-1] == 1
    table.finish()
    np.testing.assert_array_equal(timestep_of(LINEAR, known[[0, 17, 999]]), [0, 17, 999])
    for steps in (0, 1001):
        with pytest.raises(ConfigError, match=f"steps = {steps} must lie between 1 and 1000"):
            trailing_timesteps(1000, steps)


def test_conversions_weights_thresholds_and_guidance(golden, float64):
    table = Table("closed forms")
    gamma = jnp.asarray(golden["conv/gamma"])
    x0, eps, x, v = (jnp.asarray(golden[f"conv/{k}"]) for k in ("x0", "eps", "x_t", "v"))
    table.check("conv/x_t", process.q_sample(x0, eps, jnp.sqrt(gamma)), x, EXACT)
    table.check("conv/v", process.target("v", x0, eps, gamma), v, EXACT)
    table.check("conv/score", process.score(eps, gamma), golden["conv/score"], EXACT)
    for prediction in process.PREDICTIONS:
        out = process.target(prediction, x0, eps, gamma)
        got = process.predictions(prediction, out, x, gamma)
        table.check(f"conv/x0 from {prediction}", got[0], x0, EXACT)
        table.check(f"conv/eps from {prediction}", got[1], eps, EXACT)
        weight = process.min_snr_weight(prediction, gamma)
        table.check(f"minsnr/w_{prediction}", weight, golden[f"minsnr/w_{prediction}"], EXACT)
    table.check("minsnr/snr", gamma / (1 - gamma), golden["minsnr/snr"], EXACT)
    image = jnp.asarray(golden["dynthr/x0"])
    table.check("dynthr/s", process.dynamic_scale(image, 0.95), golden["dynthr/s"], EXACT)
    got = process.dynamic_threshold(image, 0.95)
    table.check("dynthr/out_p95", got, golden["dynthr/out_p95"], EXACT)
    got = process.guide(golden["cfg/eps_c"], golden["cfg/eps_u"], 3.0)
    table.check("cfg/out_scale3", got, golden["cfg/out_scale3"], EXACT)
    table.finish()
    for prediction in process.PREDICTIONS:
        assert np.isfinite(process.min_snr_weight(prediction, jnp.float64(1.0)))


def gaussian(golden, case):
    """The eigenbasis (mean, values, vectors) of a case's data."""
    values, vectors = np.linalg.eigh(golden[f"{case}/cov"])
    return golden[f"{case}/mean"], values, vectors


def gaussian_eps(data, x, gamma):
    """The exact eps of Gaussian data at signal level gamma."""
    mean, values, vectors = data
    y = (x - jnp.sqrt(gamma) * mean) @ vectors
    return jnp.sqrt(1 - gamma) * (y / (gamma * values + 1 - gamma)) @ vectors.T


@functools.partial(jax.jit, static_argnames="corrections")
def walk(data, x, table, steps, noises=None, corrector_noises=None, snr=0.16, corrections=0):
    return chain.refine(
        functools.partial(gaussian_eps, data),
        x,
        table,
        steps=steps,
        noise=None if noises is None else chain.noise_from_array(noises),
        limit=jnp.inf,
        corrector_steps=corrections,
        corrector_noise=None
        if corrector_noises is None
        else chain.noise_from_array(corrector_noises),
        snr=snr,
    )


def run(data, x, gammas, noises=None, corrector_noises=None, corrections=0, **fields):
    config = SamplerConfig(clip="none", **fields)
    table = chain.pad(coefficients(config, gammas, levels=gammas[:-1]), ROWS)
    steps = len(gammas) - 1
    snr = None if config.name == "langevin" else config.snr
    return walk(data, x, table, steps, noises, corrector_noises, snr, corrections)


@pytest.mark.parametrize("case", ["dense", "diag"])
def test_samplers_with_the_exact_score(case, golden, float64):
    data, table = gaussian(golden, case), Table(f"samplers, {case}")
    at = lambda name: golden[f"{case}/{name}"]  # noqa: E731
    x = at("x_T")
    got = [gaussian_eps(data, x, g) for x, g in zip(at("eps_x"), at("eps_gamma"), strict=True)]
    table.check("eps", got, at("eps"), EXACT)
    errors = []
    for n in (10, 20, 50, 100):
        row = [n]
        for spacing, exact in (("lambda", "exact_pf_to_gamma0"), ("trailing", "exact_pf_to_1")):
            for name in ("ddim", "dpmpp2m"):
                got = run(data, x, golden[f"{spacing}/{n}/gamma"], name=name)
                want = f"{name}_{spacing}/{n}"
                table.check(want, got, at(want), EXACT)
                if spacing == "trailing":
                    table.check(f"diffusers_{want}", got, at(f"diffusers_{want}"), 5e-6)
                row.append(np.max(np.abs(got - at(exact))))
        errors.append(row)
    table.check("err_table", errors, at("err_table"), EXACT)
    trailing, noise = golden["trailing/10/gamma"], at("noise")
    for eta in (0.5, 1.0):
        got = run(data, x, trailing, noise, name="ddim", eta=eta)
        table.check(f"ddim_eta{eta}/10", got, at(f"ddim_eta{eta}/10"), EXACT)
    table.check("eta 1 is ancestral", got, at("ancestral_tilde/10"), EXACT)
    for variance in process.VARIANCES:
        got = run(data, x, trailing, noise[:-1], name="ancestral", variance=variance)
        table.check(f"ancestral_{variance}/10", got, at(f"ancestral_{variance}/10"), EXACT)
        mean, covariance = chain_law(data, trailing, name="ancestral", variance=variance)
        table.check(f"{variance} mean", mean, at(f"ancestral_{variance}_final_mean"), EXACT)
        table.check(f"{variance} cov", covariance, at(f"ancestral_{variance}_final_cov"), EXACT)
    pair = at("pc_pred_noise"), at("pc_corr_noise")
    got = run(data, x, trailing, *pair, corrections=1, name="pc", snr=float(at("pc_snr")))
    table.check("pc_final", got, at("pc_final"), EXACT)
    steps = 1 - trailing[:-1] / trailing[1:]
    table.check("pc_betas", steps[::-1], at("pc_betas"), EXACT)
    table.check("ald_final", langevin(data, at), at("ald_final"), EXACT)
    table.finish()
    errors = np.asarray(errors)
    order = np.log(errors[:-1, 1:3] / errors[1:, 1:3]) / np.log(errors[1:, :1] / errors[:-1, :1])
    print("order of convergence (DDIM, 2M):", np.round(order, 2).tolist())
    assert np.all(order[-1] > [0.9, 1.9]) and np.all(order[-1] < [1.1, 2.2])


def chain_law(data, gammas, **fields):
    """The exact mean and covariance that a chain from N(0,I) ends with.

    The chain is affine: its response to zero is the mean, to unit vectors at the start and
    in each step's noise the factors of the covariance.
    """
    d, n = len(data[0]), len(gammas) - 1
    draws = n - (gammas[-1] == 1)
    count = 1 + d + draws * d
    x, noise = np.zeros((count, d)), np.zeros((draws, count, d))
    x[1 : 1 + d] = np.eye(d)
    for step in range(draws):
        first = 1 + d + step * d
        noise[step, first : first + d] = np.eye(d)
    out = np.asarray(run(data, x, gammas, noise, **fields))
    factors = out[1:] - out[0]
    return out[0], factors.T @ factors


def test_the_stochastic_multistep_solver(golden, float64):
    """DPM-Solver++(2M) with eta = 1: its first step is ancestral, its law converges faster."""
    data = gaussian(golden, "dense")
    errors = {"ancestral": [], "dpmpp2m": []}
    for n in (10, 20, 50, 100):
        gammas = np.append(golden[f"lambda/{n}/gamma"], 1.0)
        for name, found in errors.items():
            mean, covariance = chain_law(data, gammas, name=name, eta=float(name == "dpmpp2m"))
            far = np.max(np.abs(mean - data[0])), np.max(np.abs(covariance - golden["dense/cov"]))
            found.append(max(far))
        tables = (coefficients(SamplerConfig(name=n, eta=1.0, clip="none"), gammas) for n in errors)
        for first, other in zip(*tables, strict=True):
            np.testing.assert_allclose(first[0], other[0], rtol=1e-12, atol=1e-12)
    order = {name: float(np.log2(found[-2] / found[-1])) for name, found in errors.items()}
    print("errors of the law:", errors, "order of convergence:", order)
    assert 0.8 < order["ancestral"] < 1.2 and 1.8 < order["dpmpp2m"] < 2.3


def langevin(data, at):
    """The golden chain moves x / sqrt(gamma), from x0; the last row takes it there again."""
    gammas = np.append(1 / (1 + at("ald_sigmas") ** 2), 1.0)
    noise, size = at("ald_noise"), float(at("ald_eps"))
    start = np.sqrt(gammas[0]) * at("ald_x0")
    fields = {"corrector_steps": noise.shape[1], "step_size": size}
    return run(data, start, gammas, None, noise, noise.shape[1], name="langevin", **fields)


def test_variance_exploding_predictor_corrector(golden, float64):
    """Against the score SDE's steps on x / sqrt(gamma), written out."""
    data = mean, values, vectors = gaussian(golden, "dense")
    gammas = golden["trailing/10/gamma"]
    z, zz = golden["dense/pc_pred_noise"], golden["dense/pc_corr_noise"]
    sigma = np.sqrt((1 - gammas) / gammas)

    def score(x, sigma):
        return -((x - mean) @ vectors / (values + sigma**2)) @ vectors.T

    def norm(x):
        return np.mean(np.sqrt(np.sum(x**2, axis=1)))

    x = golden["dense/x_T"] / np.sqrt(gammas[0])
    for i, (now, after) in enumerate(zip(sigma[:-1], sigma[1:], strict=True)):
        x = x + (now**2 - after**2) * score(x, now)
        if after:
            x = x + np.sqrt(now**2 - after**2) * z[i]
            s = score(x, after)
            step = 2 * (0.16 * norm(zz[i, 0]) / norm(s)) ** 2
            x = x + step * s + np.sqrt(2 * step) * zz[i, 0]
    got = run(data, golden["dense/x_T"], gammas, z, zz, 1, name="pc", form="ve")
    np.testing.assert_allclose(got, x, rtol=1e-9, atol=1e-9)


def test_geometric_levels():
    config = ScheduleConfig("geometric", 5, 0.02, 50.0)
    sigma = np.sqrt((1 - gammas(config)) / gammas(config))
    np.testing.assert_allclose(sigma, np.geomspace(0.02, 50.0, 5), rtol=1e-9)
    with pytest.warns(ScheduleWarning, match="set end = 151"):
        warn_if_signal_remains(ScheduleConfig("geometric", 5, 0.01, 1.0))
    with pytest.raises(ConfigError, match="0 < start <= end"):
        ScheduleConfig("geometric", 5, 2.0, 1.0)


@jax.jit
def perfect_chain(x0, eps, x, table, kind):
    """A chain with the true answer in place of a network; kind is one-hot over predictions."""

    def answer(x, gamma):
        answers = [process.target(p, x0, eps, gamma) for p in process.PREDICTIONS]
        return sum(k * a for k, a in zip(kind, answers, strict=True))

    return chain.refine(answer, x, table, trajectory=7)


@pytest.mark.parametrize("name", ["ddim", "dpmpp2m"])
def test_a_perfect_network_gives_the_image_back(name):
    """With the true noise, any number of deterministic steps ends at the clean image."""
    x0 = jax.random.uniform(jax.random.key(0), (2, 4, 4, 3), minval=-1)
    eps = jax.random.normal(jax.random.key(1), x0.shape)
    config = SamplerConfig(name=name, steps=7)
    gammas = grid(config, LINEAR)
    start = process.q_sample(x0, eps, np.sqrt(gammas[0]))
    for kind, prediction in enumerate(process.PREDICTIONS):
        table = coefficients(config, gammas, levels=gammas[:-1], prediction=prediction)
        states = perfect_chain(x0, eps, start, table, np.eye(3, dtype=np.float32)[kind])
        for state, gamma in zip(states, gammas[1:], strict=True):
            want = process.q_sample(x0, eps, np.sqrt(gamma))
            np.testing.assert_allclose(state, want, atol=1e-4)


def test_trajectories_keys_and_gradients():
    config = SamplerConfig(steps=6)
    table = coefficients(config, grid(config, LINEAR))
    noise = chain.noise_from_key(jax.random.key(0), (1, 2))
    x = jnp.ones((1, 2))
    go = functools.partial(chain.refine, lambda x, level: 0.5 * x, noise=noise)
    every, some = go(x, table, trajectory=6), go(x, table, trajectory=3)
    np.testing.assert_array_equal(every[1::2], some)
    np.testing.assert_array_equal(every[-1], go(x, table))
    padded = jax.jit(lambda n: go(x, chain.pad(table, 16), steps=n, trajectory=3))(6)
    np.testing.assert_allclose(padded, some, rtol=1e-5)
    grad = jax.grad(lambda x: go(x, table).sum())(0.1 * x)
    assert np.all(np.isfinite(grad))
    assert not np.array_equal(noise(0), noise(1))


def test_moments_of_the_forward_process():
    config = ScheduleConfig("linear", 40, 1e-3, 0.25)
    gamma, count = gammas(config), 20_000
    x0 = np.float32([0.7, -0.3])
    x = jnp.broadcast_to(x0, (count, 2))
    keys = jax.random.split(jax.random.key(3), config.steps)
    step = jax.jit(lambda x, z, beta: jnp.sqrt(1 - beta) * x + jnp.sqrt(beta) * z)
    for t, beta in enumerate(betas(config)):
        x = step(x, jax.random.normal(keys[t], x.shape), beta)
        if t in (0, 12, 39):
            noise = jax.random.normal(jax.random.fold_in(keys[t], 1), x.shape)
            direct = process.q_sample(jnp.broadcast_to(x0, x.shape), noise, np.sqrt(gamma[t]))
            spread = np.sqrt(1 - gamma[t])
            for draws in (x, direct):
                mean, std = np.mean(draws, axis=0), np.std(draws, axis=0)
                # Five standard errors of the mean and of the standard deviation.
                bound = 5 * spread / np.sqrt(count)
                np.testing.assert_allclose(mean, np.sqrt(gamma[t]) * x0, atol=bound)
                np.testing.assert_allclose(std, spread, atol=bound / np.sqrt(2))


def test_posterior_is_bayes_rule(float64):
    """q(x_s | x_g, x0) from the joint Gaussian of two noise levels."""
    g, s, x0, x = 0.3, 0.7, jnp.asarray([[0.4]]), jnp.asarray([[-0.2]])
    covariance = np.sqrt(g / s) * (1 - s)
    mean, variance = process.posterior(x0, x, g, s)
    want = np.sqrt(s) * 0.4 + covariance / (1 - g) * (-0.2 - np.sqrt(g) * 0.4)
    np.testing.assert_allclose(mean, [[want]], rtol=1e-12)
    np.testing.assert_allclose(variance, (1 - s) - covariance**2 / (1 - g), rtol=1e-12)
    assert process.posterior(x0, x, g, s, "beta")[1] == 1 - g / s
    with pytest.raises(ConfigError, match="'tilde', 'beta'"):
        process.posterior(x0, x, g, s, "tile")


def test_bad_samplers_and_grids():
    with pytest.raises(
        ConfigError, match="'ancestral', 'ddim', 'dpmpp2m', 'pc', 'langevin'; did you mean"
    ):
        SamplerConfig(name="dpmpp")
    with pytest.raises(ConfigError, match="steps = 0"):
        SamplerConfig(steps=0)
    with pytest.raises(ConfigError, match="eta = 2"):
        SamplerConfig(eta=2.0)
    with pytest.raises(ConfigError, match="'static', 'dynamic', 'none'"):
        SamplerConfig(clip="always")
    with pytest.raises(ConfigError, match="must increase"):
        coefficients(SamplerConfig(), [0.5, 0.4, 1.0])
    with pytest.raises(ConfigError, match="must increase to at most 1"):
        coefficients(SamplerConfig(), [0.5, 1.5])
    with pytest.raises(ConfigError, match="starts at gamma = 0.*jsd"):
        coefficients(SamplerConfig(), grid(SamplerConfig(), ScheduleConfig("jsd", 10)))
