"""The boundaries of the code: who may import what, and who may read a clock."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "services").rglob("*.py"))
SERVICES = ("intake", "dispatch", "escalation", "notify")
OUTSIDE = (
    "nameko",
    "kombu",
    "amqp",
    "eventlet",
    "pymongo",
    "bson",
    "werkzeug",
    "prometheus_client",
)
CLOCKS = {
    "time": ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "localtime", "gmtime"),
    "datetime": ("now", "utcnow", "today"),
    "date": ("today",),
}


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every module that a file imports, also inside functions, with its line."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}:{node.lineno}: write the whole module name"
            yield node.lineno, node.module or ""
            # ``from services import bus`` imports services.bus.
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def below(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def wrong(folder: str, *forbidden: str) -> list[str]:
    return [
        f"{name(path)}:{line}: {module}"
        for path in FILES
        if name(path).startswith(f"services/{folder}/")
        for line, module in imports(path)
        if below(module, *forbidden)
    ]


def test_the_grid_is_pure_and_imports_nothing_else_of_ours() -> None:
    ours = [f"services.{other}" for other in ("bus", *SERVICES)]
    assert wrong("grid", *OUTSIDE, *ours) == []


def test_the_bus_imports_no_service() -> None:
    assert wrong("bus", *(f"services.{service}" for service in SERVICES)) == []


@pytest.mark.parametrize("service", SERVICES)
def test_no_service_imports_another(service: str) -> None:
    others = [f"services.{other}" for other in SERVICES if other != service]
    assert wrong(service, *others) == []


@pytest.mark.parametrize("service", SERVICES)
def test_models_are_pure(service: str) -> None:
    found = [entry for entry in wrong(service, *OUTSIDE) if f"/{service}/model.py" in entry]
    assert found == []


def clock_reads(path: Path) -> Iterator[str]:
    """Where a file reads a clock of the standard library, however it was imported."""
    modules = {"time": "time", "datetime": "datetime", "date": "date"}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in CLOCKS:
                    modules[alias.asname or alias.name] = alias.name
        elif isinstance(node, ast.ImportFrom) and node.module in CLOCKS:
            for alias in node.names:
                if alias.name in CLOCKS:
                    modules[alias.asname or alias.name] = alias.name
                if node.module == "time" and alias.name in CLOCKS["time"]:
                    yield f"{name(path)}:{node.lineno}: from time import {alias.name}"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute):
            owner = node.value
            last = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
            if node.attr in CLOCKS.get(modules.get(last, ""), ()):
                yield f"{name(path)}:{node.lineno}: {last}.{node.attr}"


def test_only_the_clock_reads_the_time() -> None:
    readers = [path for path in FILES if name(path) != "services/grid/clock.py"]
    assert [entry for path in readers for entry in clock_reads(path)] == []


def test_the_clock_does() -> None:
    assert list(clock_reads(ROOT / "services" / "grid" / "clock.py"))


@pytest.mark.parametrize(
    "text",
    [
        "import time\ntime.time()",
        "import time as t\nt.monotonic()",
        "from time import monotonic",
        "import datetime\ndatetime.datetime.now()",
        "from datetime import datetime as when\nwhen.utcnow()",
        "from datetime import date\ndate.today()",
    ],
)
def test_every_way_to_read_a_clock_is_seen(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    path = tmp_path / "reader.py"
    path.write_text(text)
    assert list(clock_reads(path))


def test_nothing_is_named_utils() -> None:
    assert [name(path) for path in FILES if "util" in path.stem] == []
