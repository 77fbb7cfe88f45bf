"""The repository's words lead somewhere: no path leaves it, and every citation resolves."""

from __future__ import annotations

import ast
import functools
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = {".py", ".md", ".sh", ".yaml", ".yml", ".cfg", ".toml", ".txt", ".cff", ""}
LEFT_OUT = {"__pycache__", "build", "dist", "runs"}
UP = ".." + "/"
NUMBERS = r"(?P<numbers>\d+(?:(?:, | and |, and | to )\d+)*)"


def text_files() -> list[Path]:
    """Return all text files of the repository: not hidden ones but .ci/run, nor what is built."""
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [f for f in folders if f not in LEFT_OUT and not f.endswith(".egg-info")]
        if Path(folder) == ROOT:
            folders[:] = [f for f in folders if not f.startswith(".") or f == ".ci"]
        found += [Path(folder, n) for n in names if Path(n).suffix in SUFFIXES and n[0] != "."]
    return sorted(found)


@functools.cache
def headings(path: Path) -> tuple[str, ...]:
    """Return the headings of a Markdown file, code blocks left out."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.S | re.M)
    return tuple(re.findall(r"^#+ (.+)$", text, re.M))


def anchor(heading: str) -> str:
    """Return the fragment under which GitHub shows a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def cited(numbers: str) -> list[int]:
    """Return the sections of "2", "1, 4 and 5" or "5 to 7"."""
    sections = [int(n) for n in re.findall(r"\d+", numbers)]
    if " to " in numbers:
        return list(range(sections[0], sections[-1] + 1))
    return sections


def faults(text: str, path: Path) -> list[str]:
    """Return what leads nowhere in the text of a file that lies at `path`."""
    found = []
    prose = re.sub(r"\s*\n[ \t]*(?:#:? ?)?", " ", text)  # citations may be broken over two lines
    outside = re.findall(r"(?<![\w.~])/(?:home|root|Users|mnt|work)/[\w./-]*", prose)
    outside += re.findall(re.escape(UP) + r"(?:" + re.escape(UP) + r")*shared\b[\w./-]*", prose)
    if path.suffix == ".md":
        outside += [
            link
            for link in re.findall(r"\]\(((?:\.\./)+[^)#]*)", prose)
            if not (path.parent / link).resolve().is_relative_to(ROOT)
        ]
        for target, fragment in re.findall(r"\]\((?!https?:|mailto:)([^)#]*)(?:#([^)]*))?\)", text):
            file = path.parent / target if target else path
            if not file.exists():
                found.append(f"link to {target}, which is not there")
            elif fragment and fragment not in map(anchor, headings(file)):
                found.append(f"link to {target}#{fragment}: no such heading")
    found += [f"{name} lies outside the repository" for name in outside]
    # "docs/x.md section 2", or in Markdown "[name](x.md), section 2".
    for match in re.finditer(r"(?P<file>[\w./-]+\.md)\)?,? sections? " + NUMBERS, prose):
        name = match["file"]
        linked = prose[max(0, match.start() - 2) : match.start()] == "]("
        file = (path.parent if linked else ROOT) / name
        if not file.is_file():
            found.append(f"{match[0]}: no such file; cite it as docs/...")
            continue
        known = [h.split(".")[0] for h in headings(file)]
        for number in cited(match["numbers"]):
            if str(number) not in known:
                found.append(f"{match[0]}: no section {number}")
    for name in re.findall(r"(?<![\w/.(\[])docs/[\w/.-]+\.md", prose):
        if not (ROOT / name).is_file():
            found.append(f"{name} is not there")
    return found


def test_words_lead_somewhere():
    files = [path for path in text_files() if path != Path(__file__).resolve()]
    assert len(files) > 200
    found = {str(p.relative_to(ROOT)): faults(p.read_text(), p) for p in files}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("flowsr_jax/api.py", f"Source: {UP}shared/spec/glow.md section 1.", "outside"),
        ("flowsr_jax/api.py", "see /home/me/notes.txt", "outside"),
        ("docs/tpu.md", f"[notes]({UP}{UP}notes.md)", "outside"),
        ("docs/tpu.md", "[more](nothing.md)", "not there"),
        ("docs/tpu.md", "[more](training.md#nothing)", "no such heading"),
        ("docs/tpu.md", "[more](papers/irn.md), section 99", "no section 99"),
        ("flowsr_jax/api.py", "docs/papers/irn.md sections 2 and 99", "no section 99"),
        ("flowsr_jax/api.py", "docs/papers/irn.md\n    sections 2 to\n    99", "no section 9"),
        ("flowsr_jax/api.py", "# docs/papers/irn.md\n# section 99", "no section 99"),
        ("flowsr_jax/api.py", "as glow.md section 4 has it", "cite it as docs/"),
        ("launch/train.py", "see docs/nothing.md", "not there"),
    ],
)
def test_planted_faults_are_found(name, text, says):
    assert any(says in fault for fault in faults(text, ROOT / name))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("flowsr_jax/api.py", "docs/papers/irn.md sections 1, 2 and 4; docs/tpu.md"),
        ("flowsr_jax/api.py", "as released (docs/papers/glow.md section 4)"),
        ("docs/tpu.md", f"[more](training.md#resuming) [up]({UP}README.md#on-a-gpu) <b>"),
        ("docs/tpu.md", "[numerics](papers/irn.md), section 2"),
    ],
)
def test_good_citations_pass(name, text):
    assert faults(text, ROOT / name) == []


def test_only_conftest_knows_where_the_reference_data_lie():
    folder = "sha" + "red"
    leaks = re.compile(rf"beside the repo|parents\[\d\] / \"{folder}\"|FLOWSR_{folder.upper()}")
    own = {"tests/conftest.py", "tests/test_words.py", "CONTRIBUTING.md"}  # it names the variable
    named = {str(p.relative_to(ROOT)) for p in text_files() if leaks.search(p.read_text())}
    assert named <= own


def defined(path: Path) -> set[str]:
    """Return the names of a Python file: functions, classes, their methods, and assignments."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


@pytest.mark.parametrize("path", sorted(ROOT.glob("docs/*.md")), ids=lambda p: p.name)
def test_python_files_that_documents_name_are_there(path):
    found = []
    for name, function in re.findall(r"`([\w/]+\.py)(?:: (\w+))?`", path.read_text()):
        places = [ROOT / name, ROOT / "flowsr_jax" / name]
        files = [p for p in places if p.is_file()]
        if "/" in name and not files and not name.endswith("/x.py"):  # x.py: any
            found.append(f"{name} is not there")
        elif function and files and function not in defined(files[0]):
            found.append(f"{name} has no {function}")
    assert found == []
