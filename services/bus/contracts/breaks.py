"""What of a change to an event's schema breaks those who rely on a released version of it.

Two kinds of others are meant. Who *sent* by the released schema must still be read: events wait in
queues and are replayed. Who *reads* by it must still find what it promised. So a field may be
added, if it may be left out, and a word to a list of words; nothing else may change. What can't be
compared (another pattern, a keyword that is not known here) counts as a break.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LEAST = ("minLength", "minimum", "exclusiveMinimum", "minItems", "minProperties")
_MOST = ("maxLength", "maximum", "exclusiveMaximum", "maxItems", "maxProperties")
_SAID = {"description", "title", "examples", "$schema", "$id", "$defs"}
_COMPARED = {
    *_LEAST,
    *_MOST,
    *_SAID,
    "additionalProperties",
    "const",
    "default",
    "enum",
    "format",
    "items",
    "pattern",
    "properties",
    "required",
    "type",
}

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Break:
    """One break: of which event, at which field (``data.state.token.hop``), and what it is."""

    event: str
    field: str
    what: str

    def __str__(self) -> str:
        """With the cure."""
        name, _, version = self.event.rpartition(".v")
        other = f"{name}.v{int(version) + 1}"
        where = f"{self.event}: {self.field}: " if self.field else f"{self.event}: "
        return f"{where}{self.what}. Leave it as it was released, or add {other} beside it."


def version(name: str) -> tuple[int, ...] | None:
    """The numbers of a version, or none if it is not one."""
    parts = name.split(".")
    if not all(part.isascii() and part.isdigit() for part in parts):
        return None
    return tuple(int(part) for part in parts)


def newer(one: str, other: str) -> bool:
    """Whether the first version is no older than the second."""
    return (version(one) or ()) >= (version(other) or ())


def releases(folder: Path) -> list[Path]:
    """The folders of all releases, the oldest first."""
    found = [path for path in folder.glob("*") if path.is_dir() and version(path.name)]
    return sorted(found, key=lambda path: version(path.name) or ())


def last(folder: Path) -> Path | None:
    """The folder of the last release, if there is one."""
    return next(reversed(releases(folder)), None)


def read(release: Path) -> dict[str, Schema]:
    """The schemas of a release, by the full names of their events.

    :raises FileNotFoundError: there are none.
    """
    found = {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in release.glob("huashi.*.json")
    }
    if not found:
        raise FileNotFoundError(f"no schemas in {release}: name the folder of a release")
    return found


def against(released: Mapping[str, Schema], present: Mapping[str, Schema]) -> list[Break]:
    """Every break of the present schemas with the released ones."""
    found = []
    for name, old in sorted(released.items()):
        new = present.get(name)
        if new is None:
            found.append(Break(name, "", "it is released, and no longer in the catalogue"))
        else:
            found += [Break(name, *each) for each in _Comparison(old, new).breaks()]
    return found


class _Comparison:
    """Two whole schemas, with the definitions that their parts refer to."""

    def __init__(self, old: Schema, new: Schema) -> None:
        self._old, self._new = old, new

    def breaks(self) -> Iterator[tuple[str, str]]:
        """Field and what is wrong with it."""
        yield from self._values("", self._old, self._new)

    def _values(self, path: str, old: Schema, new: Schema) -> Iterator[tuple[str, str]]:
        old, old_null = _plain(old, self._old)
        new, new_null = _plain(new, self._new)
        if old_null and not new_null:
            yield path, "null is no longer taken"
        if new_null and not old_null:
            yield path, "it may be null now, and readers rely on a value"
        if old.get("type") != new.get("type"):
            yield path, f"it was {_type(old)} and is {_type(new)}"
            return
        yield from ((path, what) for what in _narrowed(old, new))
        if "default" in old and old["default"] != new.get("default", ...):
            yield path, "what is meant where it is left out was changed"
        yield from self._properties(path, old, new)
        yield from self._open(path, old, new)
        if "items" in old or "items" in new:
            yield from self._values(f"{path}[]", old.get("items", {}), new.get("items", {}))

    def _properties(self, path: str, old: Schema, new: Schema) -> Iterator[tuple[str, str]]:
        before, after = old.get("properties", {}), new.get("properties", {})
        must, must_now = set(old.get("required", ())), set(new.get("required", ()))
        for name, field in before.items():
            here = f"{path}.{name}" if path else name
            if name not in after:
                yield here, "the field was removed"
                continue
            if name in must - must_now:
                yield here, "it may be left out now, and readers rely on it"
            yield from self._values(here, field, after[name])
        for name in sorted(must_now - must):
            yield f"{path}.{name}" if path else name, "it is required now, and was not"

    def _open(self, path: str, old: Schema, new: Schema) -> Iterator[tuple[str, str]]:
        before, after = (each.get("additionalProperties", True) for each in (old, new))
        before, after = ({} if each is True else each for each in (before, after))
        if before is False or before == after:
            return
        if after is False:
            yield path, "unknown fields are no longer taken"
        else:
            yield from self._values(f"{path}.*", before, after)


def _narrowed(old: Schema, new: Schema) -> Iterator[str]:
    """How fewer values are taken than before."""
    before, after = _choices(old), _choices(new)
    if after is not None:
        if before is None:
            yield f"only {json.dumps(after, ensure_ascii=False)} is taken now"
        else:
            for lost in (value for value in before if value not in after):
                yield f"{json.dumps(lost, ensure_ascii=False)} is no longer taken"
    for name in _LEAST:
        if name in new and (name not in old or new[name] > old[name]) and new[name] != 0:
            yield f"{name} was {old.get(name, 'open')} and is {new[name]}"
    for name in _MOST:
        if name in new and (name not in old or new[name] < old[name]):
            yield f"{name} was {old.get(name, 'open')} and is {new[name]}"
    for name in ("pattern", "format"):
        if name in new and new[name] != old.get(name):
            yield f"{name} was {old.get(name, 'open')} and is {new[name]}"
    for name in sorted({*old, *new} - _COMPARED):
        if old.get(name, ...) != new.get(name, ...):
            yield f"{name} changed, and what that means is not known here"


def _choices(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    found = schema.get("enum")
    return None if found is None else [value for value in found if value is not None]


def _plain(schema: Schema, whole: Schema) -> tuple[dict[str, Any], bool]:
    """A schema without references and null, and whether null is taken."""
    made = dict(schema)
    null = False
    for name in ("anyOf", "allOf"):
        parts = made.get(name, [])
        others = [part for part in parts if part != {"type": "null"}]
        if len(others) == 1:
            null = null or len(parts) > 1
            del made[name]
            made = {**others[0], **made}
    if "$ref" in made:
        target = whole["$defs"][made.pop("$ref").removeprefix("#/$defs/")]
        inner, inner_null = _plain(target, whole)
        return {**inner, **made}, null or inner_null
    kinds = made.get("type")
    if isinstance(kinds, list):
        null = null or "null" in kinds
        rest = [kind for kind in kinds if kind != "null"]
        made["type"] = rest[0] if len(rest) == 1 else sorted(rest)
    return made, null


def _type(schema: Schema) -> str:
    kind = schema.get("type", "anything")
    return kind if isinstance(kind, str) else " or ".join(kind)
