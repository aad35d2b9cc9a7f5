"""The plan of the house: rooms, one-way imports, sizes, and no private address in a tracked file."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "leakboard"
SOURCES = sorted(PACKAGE.rglob("*.py"))
CODE = [*SOURCES, *sorted((ROOT / "baselines").rglob("*.py")), *sorted((ROOT / "benchmarks").rglob("*.py"))]
CODE += sorted((ROOT / "tests").glob("*.py"))
MOST_LINES, MOST_IN_FUNCTION = 300, 40

# room -> the rooms it may import. A file directly in the package is a room of its own.
MAY = {
    "__init__": set(),
    "errors": set(),
    "rng": set(),
    "threat": set(),
    "metrics": set(),
    "config": {"errors", "threat", "metrics"},
    "data": {"errors", "config"},
    "models": {"errors", "rng", "config"},
    "federation": {"errors", "threat", "config", "data", "rng"},
    "recipes": {"errors", "config", "data", "models", "federation", "threat", "rng"},
    "victim": {"errors", "threat", "config", "data", "models", "recipes", "federation", "rng"},
    "attack": {"errors", "threat", "models", "__init__"},
    "score": {"threat", "metrics", "data"},
    "record": {"errors", "config", "metrics", "__init__"},
    "board": {"record", "config", "metrics", "threat", "errors"},
}
SEE_ALL = {"run", "cli", "console"}


def room(path: Path) -> str:
    inside = path.relative_to(PACKAGE)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


def modules(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it; relative ones resolved."""
    package = [path.relative_to(ROOT / "src").parts[:-1]] if path.is_relative_to(ROOT / "src") else [()]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[0][: len(package[0]) - node.level + 1] if node.level else ()
            whole = ".".join([*above, *([node.module] if node.module else [])])
            found |= {whole, *(f"{whole}.{name.name}" for name in node.names)}
    return found


def rooms_of(names: set[str]) -> set[str]:
    """The rooms of Leakboard among module names."""
    known = {room(path) for path in SOURCES} - {"__init__"}
    ours = {tuple(name.split(".")) for name in names}
    inside = {parts[1] for parts in ours if parts[0] == "leakboard" and len(parts) > 1}
    plain = {"__init__"} if inside - known - {"*"} or (("leakboard",) in ours and not inside) else set()
    return (inside & known) | plain


def test_content_folders_are_no_packages():
    folders = ("benchmarks", "baselines", "datasets", "results", "tests")
    assert [path for name in folders for path in (ROOT / name).rglob("__init__.py")] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    here = room(path)
    if here in SEE_ALL:
        return
    assert here in MAY, f"{here} is a new room: say in this test what it may import, and in DESIGN what it is"
    wrong = rooms_of(modules(path)) - MAY[here] - {here}
    assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}; {here} may import {sorted(MAY[here])}"


def test_score_takes_nothing_from_data_but_weights():
    for path in (PACKAGE / "score").glob("*.py"):
        ours = {name for name in modules(path) if name.startswith("leakboard.data")}
        errors = {"leakboard.data", "leakboard.data.DataError"}  # what `weights` raises
        assert all(name.startswith("leakboard.data.weights") for name in ours - errors), f"{path}: {ours}"


@pytest.mark.parametrize("path", sorted((ROOT / "baselines").rglob("*.py")), ids=lambda path: path.parent.name)
def test_baselines_import_only_the_vocabulary_and_shared_parts(path):
    """What an attack may name is what it sees, the shared parts of attacks, networks, and the recipe of a prior."""
    names = modules(path)
    assert rooms_of(names) <= {"threat", "attack", "models", "config"}
    ours = {name for name in names if name.startswith("leakboard.config")}
    assert all(name.startswith("leakboard.config.recipes") or name == "leakboard.config" for name in ours), ours


def test_the_import_reader_reads_every_form(tmp_path):
    text = (
        "import leakboard.victim.leak\nfrom leakboard import ENGINE, score\ndef f():\n    from leakboard.board import x"
    )
    (tmp_path / "a.py").write_text(text)
    assert rooms_of(modules(tmp_path / "a.py")) == {"victim", "__init__", "score", "board"}


def test_the_engine_never_imports_dvc():
    assert [path for path in SOURCES if any(name.split(".")[0] == "dvc" for name in modules(path))] == []


def test_heavy_packages_are_imported_where_they_are_used():
    """What Flower's classes are made of is a module of its own, for those who name it."""
    heavy = {"torchvision", "seaborn", "lpips", "opacus", "cma", "ray", "flwr", "diffusers"}
    (flower,) = [path for path in SOURCES if path.name == "flower.py"]
    for path in SOURCES:
        assert "leakboard.federation.flower" not in modules(path), path
        if path == flower:
            continue
        top = [node for node in ast.parse(path.read_text()).body if isinstance(node, (ast.Import, ast.ImportFrom))]
        names = {name.name for node in top if isinstance(node, ast.Import) for name in node.names}
        names |= {node.module or "" for node in top if isinstance(node, ast.ImportFrom)}
        assert not {name.split(".")[0] for name in names} & heavy, path


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short(path):
    text = path.read_text()
    assert text.count("\n") <= MOST_LINES, f"{text.count(chr(10))} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= MOST_IN_FUNCTION, f"{node.name}: {length} lines"


def test_no_address_of_a_mirror_or_registry_is_tracked():
    hosts = [
        "python" + "hosted",
        "pypi" + ".org",
        "download.py" + "torch.org",
        "registry.npm" + "js",
        "deb.debi" + "an",
    ]
    try:
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no git checkout")
    found = []
    for name in listed.splitlines():
        path = ROOT / name
        content = path.read_bytes() if path.is_file() else b""
        found += [f"{name}: {host}" for host in hosts if host.encode() in content]
    assert not found
