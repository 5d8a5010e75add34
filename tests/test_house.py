"""House rules that a test can hold: small modules, imports at the top, everything documented."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.registry import TOOLS

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("agentops", "runs", "tools")
MODULE_LINES = 300
FUNCTION_LINES = 40


def modules() -> Iterator[Path]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "migrations" not in path.parts:
                yield path


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_modules_stay_small() -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules()}
    assert {path: size for path, size in sizes.items() if size > MODULE_LINES} == {}


def test_functions_stay_small() -> None:
    long = {}
    for path in modules():
        for function in functions(path):
            # The docstring does not count: for a tool it is the manual that the model reads.
            body = function.body[1:] if ast.get_docstring(function) else function.body
            size = (function.end_lineno or 0) - body[0].lineno + 1 if body else 0
            if size > FUNCTION_LINES:
                long[f"{path.relative_to(ROOT)}:{function.name}"] = size
    assert long == {}


def test_imports_of_ours_stand_at_the_top() -> None:
    late = []
    for path in modules():
        for function in functions(path):
            for node in ast.walk(function):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                late += [f"{path}:{node.lineno}" for name in names if name.split(".")[0] in PACKAGES]  # type: ignore[attr-defined]
    assert late == []


def test_public_functions_say_what_they_promise() -> None:
    silent = []
    for path in modules():
        for node in ast.parse(path.read_text()).body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if public and not ast.get_docstring(node):  # type: ignore[arg-type]
                silent.append(f"{path.relative_to(ROOT)}:{node.name}")  # type: ignore[attr-defined]
    models = re.compile(r"(runs/models/|tools/models|apps\.py|/commands/)")
    assert [name for name in silent if not models.search(name)] == []


@pytest.mark.parametrize("tool", sorted(TOOLS))
def test_every_tool_is_in_the_manual(tool: str) -> None:
    assert tool in (ROOT / "docs/tools.md").read_text()


def test_every_setting_is_in_the_manual() -> None:
    manual = (ROOT / "docs/running.md").read_text()
    read = re.compile(r'environment\.\w+\(\s*"([A-Z_]+)"')
    names = {name for path in modules() for name in read.findall(path.read_text())}
    assert names and {name for name in names if f"`{name}`" not in manual} == set()


def test_every_version_is_pinned_and_no_lock_file_is_kept() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    block = text.split("constraint-dependencies = [")[1].split("]")[0]
    pins = [line.strip() for line in block.splitlines() if line.strip()]
    assert len(pins) > 40 and all(re.fullmatch(r'"[a-z0-9-]+==[\w.]+",', pin) for pin in pins)
    assert "uv.lock" in (ROOT / ".gitignore").read_text()
