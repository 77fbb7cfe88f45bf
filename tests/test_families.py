"""Every family is a folder with the same files in the same roles, and stands alone."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import flowsr_jax.models
from flowsr_jax.models import FAMILIES, families, get_family
from flowsr_jax.models.base import KINDS, Family
from flowsr_jax.models.regression import regression_family

FOLDER = Path(flowsr_jax.models.__file__).parent
NAMES = tuple(sorted(p.name for p in FOLDER.iterdir() if (p / "__init__.py").is_file()))
# {file: what it must define}; a file that stands here in every family has the same role there.
ROLES = {
    "__init__.py": {"FAMILY"},
    "config.py": set(),
    "network.py": {"init"},
    "losses.py": set(),
    "sample.py": {"sample"},
    "weights.py": set(),
}
# A family has no file for what it lacks, or has from models/regression.py.
OPTIONAL = {"weights.py", "losses.py", "sample.py"}
# What a family has beside these, because its model has more parts.
MORE = {
    "sr3": {"arguments.py", "condition.py"},
    "irn": {"compression.py", "discriminator.py", "plus.py"},
}
# A model that holds another one imports its folder.
PARTS = {"srflow": {"rrdb"}}


def defined(path: Path) -> set[str]:
    """Names that a module defines or imports at its top."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    return names


def test_the_folders_are_the_families():
    assert set(NAMES) <= set(families())
    assert len(NAMES) == 7


@pytest.mark.parametrize("name", NAMES)
def test_a_family_has_the_files_of_its_roles(name):
    files = {p.name for p in (FOLDER / name).glob("*.py")}
    assert files - OPTIONAL == set(ROLES) - OPTIONAL | MORE.get(name, set())
    for file in sorted(files & set(ROLES)):
        assert ROLES[file] <= defined(FOLDER / name / file), file


@pytest.mark.parametrize("name", NAMES)
def test_verbs_losses_and_config_come_from_their_files(name):
    family, root = get_family(name), f"flowsr_jax.models.{name}"
    assert family.name == name == family.config_class.family
    assert family.config_class.__module__ == f"{root}.config"
    assert family.init.__module__ == f"{root}.network"
    shared = "flowsr_jax.models.regression"
    modules = {loss.__module__ for loss in family.losses.values()}
    assert modules <= {f"{root}.losses", f"{root}.plus", shared}
    if f"{root}.sample" in sys.modules:
        assert sys.modules[f"{root}.sample"].sample == family.sample
    else:
        assert family.sample.__module__ == shared
    assert (family.weights is None) == (not (FOLDER / name / "weights.py").is_file())


@pytest.fixture(scope="module")
def imported():
    """{family: other families' modules that getting it imports}, each in a fresh process."""
    code = (
        "import sys, json\n"
        "from flowsr_jax.models import get_family\n"
        "known = lambda: [m for m in sys.modules if m.startswith('flowsr_jax.models.')]\n"
        "before = known()\n"
        "get_family(sys.argv[1])\n"
        "print(json.dumps([before, known()]))"
    )
    running = {
        name: subprocess.Popen(
            [sys.executable, "-c", code, name], stdout=subprocess.PIPE, text=True
        )
        for name in NAMES
    }
    return {name: json.loads(process.communicate()[0]) for name, process in running.items()}


@pytest.mark.parametrize("name", NAMES)
def test_getting_a_family_imports_no_other(name, imported):
    before, after = imported[name]
    assert not {m.split(".")[2] for m in before} & set(NAMES)
    assert {m.split(".")[2] for m in after} & set(NAMES) == {name, *PARTS.get(name, ())}


# Files that hold published names as data: of protocols, of studies, of a squeeze's order.
DATA = {"ablation/studies.py", "evaluation/protocols.py", "bijectors/squeeze.py"}
OUTSIDE = [
    path
    for path in sorted(FOLDER.parent.rglob("*.py"))
    if FOLDER not in path.parents and str(path.relative_to(FOLDER.parent)) not in DATA
]


def test_nothing_outside_models_names_a_family():
    found = []
    for path in OUTSIDE:
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom):
                names = (node.module or "").split(".")[2:] if "models" in str(node.module) else []
                names += [a.name for a in node.names] if node.module == "flowsr_jax.models" else []
            elif isinstance(node, ast.Constant):
                names = [node.value]
            found += [f"{path.name}:{node.lineno}: {n}" for n in names if n in NAMES]
    assert not found


def test_nothing_outside_models_guesses_what_a_model_can_do():
    guess = re.compile(
        r"getattr\([\w.]*(config|model|family|params)\b|(check_hr|downscale) is "
        r"|params\.config\.(?!family\b)\w"
    )
    launch = (FOLDER.parents[1] / "launch").glob("*.py")
    found = [f"{p.name}: {line}" for p in (*OUTSIDE, *launch) for line in p.read_text().splitlines()
             if guess.search(line)]  # fmt: skip
    assert not found


@pytest.mark.parametrize("name", NAMES)
def test_facts_are_of_the_declared_types(name):
    family = get_family(name)
    config = family.config_class()
    assert family.kind(config) in KINDS
    for fact in ("scale", "channels", "lr_channels", "multiple", "n_bits"):
        assert type(getattr(family, fact)(config)) is int and getattr(family, fact)(config) > 0
    assert family.classes(config) >= 0 and isinstance(family.repairs_jpeg(config), bool)
    temperature = family.default_temperature(config)
    assert temperature is None or temperature >= 0
    if family.kind(config) == "unconditional":
        assert family.image_shape(config)[-1] == family.channels(config)
    if family.kind(config) == "rescaling":
        assert family.downscale and family.upscale
    if family.kind(config) != "super_resolution" and family.encode:
        assert family.check_hr
    if family.noise_shapes:
        assert family.stochastic
    if family.encode:
        assert family.decode and family.latent_shapes and family.check_invertibility


def test_only_five_fields_are_required():
    fields = dataclasses.fields(Family)
    none = dataclasses.MISSING
    required = [f.name for f in fields if f.default is none and f.default_factory is none]
    assert required == ["name", "config_class", "init", "losses", "sample"]
    assert all(f"      {f.name}" in Family.__doc__ or f", {f.name}" in Family.__doc__
               or f" {f.name}:" in Family.__doc__ for f in fields)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _WideConfig:
    family: ClassVar[str] = "wide"
    scale: int = 2
    width: int = 4


class _Wide(nn.Module):
    config: _WideConfig

    @nn.compact
    def __call__(self, lr):
        s = self.config.scale
        x = nn.relu(nn.Conv(self.config.width, (3, 3))(lr))
        x = nn.Conv(3 * s * s, (3, 3))(x)
        b, h, w, _ = x.shape
        x = x.reshape(b, h, w, s, s, 3).swapaxes(2, 3)
        return x.reshape(b, s * h, s * w, 3)


def test_a_flax_module_is_a_family(tmp_path):
    family = regression_family("wide", _WideConfig, module=_Wide)
    with FAMILIES.using("wide", family):
        params = family.init(_WideConfig(), jax.random.key(0))
        lr = jnp.full((1, 5, 6, 3), 0.5)
        sr = flowsr_jax.sample(params, lr, None)  # it draws nothing, so it needs no key
        assert sr.shape == (1, 10, 12, 3)
        with pytest.raises(TypeError, match="key must be"):
            flowsr_jax.sample(params, lr, 0)
        with pytest.raises(ValueError, match="draws no noise"):
            flowsr_jax.sample(params, lr, None, noise=[sr])
        twice = flowsr_jax.sample(params, lr, None, num_samples=2)
        np.testing.assert_array_equal(twice, jnp.stack([sr, sr]))
        batch = {"lr": lr, "hr": sr + 0.1}
        loss, (state, metrics) = family.losses["l1"](params, {}, batch, None)
        assert abs(float(loss) - 0.1) < 1e-6 and state == {} and set(metrics) == {"l1", "psnr"}
        flowsr_jax.save(params, tmp_path)
        np.testing.assert_array_equal(
            flowsr_jax.sample(flowsr_jax.load(tmp_path), lr, jax.random.key(1)), sr
        )
    with pytest.raises(ValueError, match="unknown model family 'wide'"):
        get_family("wide")


def test_a_regression_needs_a_network():
    for given in ({}, {"init": _Wide}, {"module": _Wide, "init": _Wide, "apply": _Wide}):
        with pytest.raises(ValueError, match="give module, or init and apply"):
            regression_family("wide", _WideConfig, **given)
