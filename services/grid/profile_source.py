"""Reading a profile's YAML: plain values, and the line of each.

Stricter than YAML 1.1, where ``on`` is true, ``08:30`` is 510 and the second of two equal
keys wins: only ``true``, ``false``, ``null`` and decimal numbers are not text, and a key
given twice is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from services.grid.problems import Problem, ProfileError

Place = tuple[str | int, ...]
"""Where a value stands: ``("deadlines", 3, "resolve")``."""


_LONGEST_FILE = 1024 * 1024


def field_name(place: Place) -> str:
    """``deadlines[3].resolve``."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


@dataclass(frozen=True)
class Source:
    """Rules as plain values; ``lines`` is empty where they did not come from a file."""

    file: str
    rules: Any
    lines: Mapping[Place, int] = field(default_factory=dict)

    def line(self, place: Place) -> int:
        """The line of a value, or of the nearest that holds it; 0 without lines."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 0)


class _Loader(yaml.SafeLoader):
    """YAML with the scalars of JSON, and without aliases."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(
                problem="aliases (*name) are not allowed: write the value out", problem_mark=mark
            )
        return super().compose_node(parent, index)


def _null(_: str) -> None:
    return None


_SCALARS: dict[str, tuple[str, str, Callable[[str], Any]]] = {
    "bool": (r"(true|false)\Z", "tf", lambda text: text == "true"),
    "null": (r"(null|~|)\Z", "n~", _null),
    "int": (r"-?(0|[1-9][0-9]{0,17})\Z", "-0123456789", int),
    "float": (r"-?(0|[1-9][0-9]{0,17})\.[0-9]{1,17}\Z", "-0123456789", float),
}
_TAG = "tag:yaml.org,2002:"
_Loader.yaml_implicit_resolvers = {}
for _name, (_pattern, _first, _) in _SCALARS.items():
    _starts = [*_first, ""] if _name == "null" else list(_first)
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(_pattern), _starts)


def read(path: Path) -> Source:
    """Reads a YAML file.

    :raises ProfileError: it can't be read, or isn't the YAML that is allowed here.
    """
    try:
        body = path.read_bytes()
        if len(body) > _LONGEST_FILE:
            wrong = f"has {len(body)} bytes, more than {_LONGEST_FILE}: it is no profile"
            raise ProfileError([Problem(str(path), 0, "", wrong)])
        text = body.decode("utf-8-sig")
    except OSError as error:
        raise ProfileError(
            [Problem(str(path), 0, "", f"can't be read: {error.strerror}")]
        ) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        wrong = "not UTF-8: save it as UTF-8"
        raise ProfileError([Problem(str(path), line, "", wrong)]) from error
    return _Reader(str(path)).read(text)


class _Reader:
    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[Place, int] = {}
        self.problems: list[Problem] = []

    def read(self, text: str) -> Source:
        loader = None
        try:
            loader = _Loader(text)
            node = loader.get_single_node()
            rules = None if node is None else self._value(node, ())
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark is not None else 0
            self._problem(line, (), f"not YAML: {error.problem or error.context}")
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            self._problem(line, (), f"not YAML: {error.reason}")
        except RecursionError:
            self._problem(0, (), "not a profile: it is nested too deeply")
        finally:
            if loader is not None:
                loader.dispose()
        if self.problems:
            raise ProfileError(self.problems)
        return Source(self.file, rules, self.lines)

    def _value(self, node: yaml.Node, place: Place) -> Any:
        self.lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*place, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, place)

    def _scalar(self, node: yaml.Node, place: Place) -> Any:
        line = node.start_mark.line + 1
        kind = node.tag.removeprefix(_TAG)
        if kind == "str":
            try:
                node.value.encode()
            except UnicodeEncodeError:
                self._problem(line, place, "text with half of a surrogate pair")
            return node.value
        if kind in _SCALARS and re.match(_SCALARS[kind][0], node.value):
            return _SCALARS[kind][2](node.value)
        self._problem(line, place, f"the tag {node.tag} is not allowed: leave it out")
        return None

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = key_node.value
            if not isinstance(key, str) or not key_node.tag.endswith(":str"):
                shown = key if isinstance(key, str) else "a list or mapping"
                self._problem(line, place, f"{shown} can't be a key: write a word or quote it")
                continue
            inner = (*place, key)
            if key in found:
                first = self.lines[inner]
                self._problem(line, inner, f"given twice, first in line {first}: keep one of them")
                continue
            self.lines[inner] = line
            found[key] = self._value(value_node, inner)
        return found

    def _problem(self, line: int, place: Place, text: str) -> None:
        self.problems.append(Problem(self.file, line, field_name(place), text))
