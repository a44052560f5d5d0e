"""Imports point one way: rooms import only rooms above them, and inside a room there are no circles either."""

import ast
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGE = ROOT / "trxl_jax"

# From the foundation upwards; a room or module imports what comes before it. docs/architecture.md explains it.
ROOMS = ("errors", "files", "signals", "standard_streams", "values", "own_modules", "config_limits", "config",
         "presets", "cli", "hub", "envs", "agent", "ppo", "play", "runs", "torch_import", "loading", "experiments",
         "plot", "publish", "commands")  # fmt: skip
ENVS = (
    "near_names",
    "stats",
    "results",
    "space_kinds",
    "actions",
    "native_actions",
    "observations",
    "action_masks",
    "base",
    "tasks",
    "host",
    "device",
    "registry",
    "groups",
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def imports(name: str) -> set[str]:
    """Modules of the package that a module imports, at its top or inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("trxl_jax"):
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                found.add(submodule if submodule in MODULES else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in MODULES}
    return found - {"trxl_jax", name}


def room(name: str) -> str:
    return name.split(".")[1]


def test_every_room_is_listed() -> None:
    assert {room(name) for name in MODULES if name != "trxl_jax"} == set(ROOMS)


def test_tests_import_helpers_from_support_only() -> None:
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests"):
                assert (node.module or "").startswith(("tests.support", "tests.mutants", "tests.hostile")), path


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"trxl_jax"}))
def test_imports_point_up(name: str) -> None:
    for imported in imports(name):
        here, there = ROOMS.index(room(name)), ROOMS.index(room(imported))
        assert there <= here, f"{name} imports {imported}"
        if room(name) == room(imported) == "envs" and name != "trxl_jax.envs":
            inner = [ENVS.index(module.split(".")[2]) for module in (imported, name)]
            assert inner == sorted(inner), f"{name} imports {imported}"


def test_there_are_no_circles() -> None:
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"circle: {' -> '.join([*path[path.index(name) :], name])}"
        if name not in done:
            for imported in imports(name):
                visit(imported, (*path, name))
            done.add(name)

    for name in MODULES:
        visit(name, ())


@pytest.mark.parametrize(
    "path", sorted(path.parent for path in PACKAGE.rglob("__init__.py")), ids=lambda path: path.name
)
def test_every_room_has_a_readme(path: Path) -> None:
    if path == PACKAGE:
        return
    lines = (path / "README.md").read_text().splitlines()
    assert 4 <= len(lines) <= 40


def test_files_and_functions_stay_small() -> None:
    for name, path in MODULES.items():
        source = path.read_text()
        assert source.count("\n") <= 430, f"{name} is long: split it along its ideas"
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno is not None
                assert node.end_lineno - node.lineno < 70, f"{name}.{node.name} is long"


def test_public_array_functions_state_shapes() -> None:
    """In brackets, such as f32[N, D], or by reference to the function that does."""
    for name, path in MODULES.items():
        for function, owner in public_functions(ast.parse(path.read_text())):
            arguments = [*function.args.args, *function.args.kwonlyargs]
            annotations = [ast.unparse(a.annotation) for a in arguments if a.annotation]
            annotations += [ast.unparse(function.returns)] if function.returns else []
            if any("jax.Array" in text or "np.ndarray" in text for text in annotations):
                text = (ast.get_docstring(function) or "").lower()
                assert any(mark in text for mark in ("[", "see `", "as for")), (
                    f"{name}.{owner}{function.name}: no shapes"
                )


def public_functions(tree: ast.Module) -> list[tuple[ast.FunctionDef, str]]:
    found = [(node, "") for node in tree.body if isinstance(node, ast.FunctionDef)]
    for cls in (node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")):
        found += [(node, f"{cls.name}.") for node in cls.body if isinstance(node, ast.FunctionDef)]
    return [(node, owner) for node, owner in found if not node.name.startswith("_") or node.name == "__call__"]


def test_slow_cases_exist() -> None:
    lines = (ROOT / "tests" / "slow_cases.txt").read_text().splitlines()
    for case in (line for line in lines if not line.startswith("#")):
        path, _, name = case.partition("::")
        assert f"def {name.partition('[')[0]}(" in (ROOT / path).read_text(), f"{case} is gone: take it out"
