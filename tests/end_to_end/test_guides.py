"""The guides in docs/integrating work as they stand, on a stack that `make up` has just started."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import kill

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "docs" / "integrating"
_LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", ".run", ".*_cache", "__pycache__", "node_modules"
)
_BLOCK = re.compile(
    r"(?:Save it as `(?P<file>[\w.]+)`.*?)?```(?P<kind>sh|python|js)\n(?P<text>.*?)```", re.DOTALL
)
_MARK = "-- this block has ended --"
_SECONDS = 240


@dataclass
class Terminal:
    """A copy of the repository, in which somebody follows a guide from its top to its end."""

    folder: Path

    def follow(self, *guides: str) -> list[tuple[str, str]]:
        """Each command with what it said, in one shell; programs are saved as the guide says."""
        script, commands = "set -euo pipefail\n", []
        read = "".join((GUIDES / guide).read_text(encoding="utf-8") for guide in guides)
        for block in _BLOCK.finditer(read):
            if block["kind"] == "sh":
                commands.append(block["text"])
                script += f"{block['text']}echo; echo '{_MARK}'\n"
            elif block["file"]:
                (self.folder / block["file"]).write_text(block["text"], encoding="utf-8")
        run = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )
        said = run.stdout.split(f"{_MARK}\n")[:-1]
        assert run.returncode == 0, (
            f"after {len(said)} of {len(commands)} commands: {run.stderr}\n{run.stdout}"
        )
        return list(zip(commands, said, strict=True))

    def _environment(self) -> dict[str, str]:
        # The copy's code counts, wherever the packages were installed for.
        kept = {name: os.environ[name] for name in ("HOME", "PATH", "LANG") if name in os.environ}
        return {**kept, "PYTHONPATH": str(self.folder), "PYTHONWARNINGS": "ignore"}


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    folder = tmp_path_factory.mktemp("guides") / "huashi"
    shutil.copytree(ROOT, folder, ignore=_LEFT_OUT, symlinks=True)
    # What make would install is there.
    (folder / ".venv").mkdir()
    for part in ("bin", "lib", "pyvenv.cfg"):
        (folder / ".venv" / part).symlink_to(Path(sys.prefix) / part)
    (folder / ".venv" / ".installed").touch()
    yield Terminal(folder)
    kill(folder / ".run")


@pytest.fixture(scope="module")
def done(terminal: Terminal) -> list[tuple[str, str]]:
    """What whoever follows them all has done."""
    return terminal.follow("first-case.md", "open311.md")


def said_by(done: list[tuple[str, str]], begins: str) -> Any:
    """What the command that begins so answered, as JSON."""
    (text,) = [said for command, said in done if command.startswith(begins)]
    return json.loads(text)


def test_a_first_case_in_five_minutes(done: list[tuple[str, str]]) -> None:
    reported, withdrawn = [
        json.loads(said) for command, said in done if "$INTAKE/v1/events" in command
    ]
    assert reported["rejected"] == []
    (accepted,) = reported["accepted"]
    assert accepted["reference"] == "12345-2026-0302-77"
    cases = said_by(done, 'curl -sS "$INTAKE/v1/cases"')["cases"]
    assert [case["id"] for case in cases] == [accepted["case"]]
    assert withdrawn["accepted"][0]["status"] == "withdrawn"


@pytest.mark.parametrize(
    ("command", "reference"),
    [("python report.py", "12345-2026-0302-78"), ("node report.mjs", "12345-2026-0302-79")],
)
def test_from_python_and_node(done: list[tuple[str, str]], command: str, reference: str) -> None:
    (accepted,) = said_by(done, command)["accepted"]
    assert (accepted["reference"], accepted["status"]) == (reference, "reported")


def test_from_the_tools_of_rabbitmq(done: list[tuple[str, str]]) -> None:
    (published,) = [said for command, said in done if command.startswith("hotline publish")]
    assert "Message published" in published
    assert "NOT routed" not in published
    (got,) = [said for command, said in done if " get queue=" in command]
    answers = [json.loads(message["payload"]) for message in json.loads(got)]
    accepted = [each["data"] for each in answers if each["type"] == "huashi.reply.accepted.v1"]
    assert [each["reference"] for each in accepted] == ["12345-2026-0302-80"]


def test_a_first_request_through_open311(done: list[tuple[str, str]]) -> None:
    (made,) = said_by(done, 'curl -sS "$INTAKE/open311/v2/requests.json" ')
    listed = said_by(done, 'curl -sS "$INTAKE/open311/v2/requests.json?')
    assert [each["service_request_id"] for each in listed] == [made["service_request_id"]]
    assert listed[0]["service_code"] == "facility"
