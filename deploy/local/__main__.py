"""``python -m deploy.local up|down|status|token``: the local stack of ``RUN_DIR`` (``.run``).

``token officer --division 469002104214 --level village`` prints a token of that scope.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.local.processes import StackError
from deploy.local.stack import ROOT, Stack
from services.bus.auth import ROLES
from services.grid.scope import Scope


def main(arguments: list[str]) -> int:
    """Exit codes: 0 done, 1 it failed (and says why), 2 the command is wrong."""
    folder = Path(os.environ.get("RUN_DIR") or ROOT / ".run")
    stack = Stack(folder, os.environ, say=lambda line: print(line, flush=True))  # noqa: T201
    try:
        match arguments:
            case ["up"]:
                stack.up()
                print(f"up: {stack.description}")  # noqa: T201
            case ["down"]:
                stack.down()
            case ["status"]:
                if not stack.is_running():
                    raise StackError(f"there is no running stack in {folder}: make up starts one")
                print(stack.control("status"), end="")  # noqa: T201
            case ["token", *wanted]:
                print(_token(stack, wanted))  # noqa: T201
            case _:
                sys.stderr.write("say what to do: python -m deploy.local up|down|status|token\n")
                return 2
    except StackError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _token(stack: Stack, wanted: Sequence[str]) -> str:
    parser = argparse.ArgumentParser("python -m deploy.local token")
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("--subject", help="a reference to who it is; the role if not given")
    for name, what in (
        ("division", "the root of what it is for"),
        ("level", "the highest level"),
        ("unit", "the only unit"),
    ):
        parser.add_argument(f"--{name}", help=what)
    found = parser.parse_args(wanted)
    scope = Scope(found.division, found.level, found.unit)
    return stack.token(found.subject or found.role, found.role, scope)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
