"""``python -m deploy.local up|down|status``: the local stack of ``RUN_DIR`` (``.run``)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from deploy.local.processes import StackError
from deploy.local.stack import ROOT, Stack


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
            case _:
                sys.stderr.write("say what to do: python -m deploy.local up|down|status\n")
                return 2
    except StackError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
