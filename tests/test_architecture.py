"""Imports point one way: scripts, then the systems, then shared."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SYSTEMS = {"multipath", "modmask", "enasq", "gaitprop"}
TOP = SYSTEMS | {"shared", "scripts", "tests", "benchmarks"}
ALLOWED = {
    "shared": {"shared"},
    **{system: {"shared", system} for system in SYSTEMS},
    "scripts": TOP - {"tests", "benchmarks"},
    "benchmarks": SYSTEMS | {"shared", "benchmarks"},
}


def imports(source: str) -> set[str]:
    """Return the project's top-level packages that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where an arrow points"
            found.add(node.module or "")
    return {name.split(".")[0] for name in found} & TOP


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_point_one_way(package):
    for path in (ROOT / package).rglob("*.py"):
        wrong = imports(path.read_text()) - ALLOWED[package]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_two_systems_in_one_package_do_not_import_each_other():
    for one, other in (("trees", "routing_networks"), ("routing_networks", "trees")):
        for path in (ROOT / "multipath" / one).rglob("*.py"):
            assert f"multipath.{other}" not in path.read_text(), path


def test_the_check_sees_imports_inside_functions():
    assert imports("def f():\n    from gaitprop import rules\n") == {"gaitprop"}
