"""A quick look whether data already is exactly what its schema would make of it.

Marshmallow takes some 250 microseconds for an event, more than everything else that is done
with it; nearly all events come from our own services and need neither a default nor a
conversion. ``exact`` recognises those in a tenth of the time. Whatever it does not recognise
goes through the schema, which completes it or says what is wrong, so it never has to explain.
``tests/property/test_shape.py`` holds that the two agree.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from marshmallow import INCLUDE, Schema, ValidationError, fields, missing, validate

from services.grid.events.parts import InstantField

Check = Callable[[Any], bool]

_INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z", re.ASCII)
_PLAIN: dict[type[fields.Field[Any]], type] = {
    fields.String: str,
    fields.Boolean: bool,
    fields.Dict: dict,
}


def exact(schema: Schema) -> Check:
    """A function that says of data whether ``schema.load(data) == data`` for certain.

    It is made once from the schema's fields; a kind of field that it does not know makes it
    say no.
    """
    if schema.unknown != INCLUDE or any(schema._hooks.values()):
        return lambda _value: False
    entries = [(name, *_entry(field)) for name, field in schema.fields.items()]

    def check(value: Any) -> bool:
        if type(value) is not dict:
            return False
        for name, may_be_absent, check_field in entries:
            try:
                item = value[name]
            except KeyError:
                if may_be_absent:
                    continue
                return False
            if not check_field(item):
                return False
        return True

    return check


def _entry(field: fields.Field[Any]) -> tuple[bool, Check]:
    """Whether the field may be absent without a default, and the check of its value."""
    may_be_absent = not field.required and field.load_default is missing
    return may_be_absent, _with_none(field, _validated(field, _typed(field)))


def _typed(field: fields.Field[Any]) -> Check:
    free = not (isinstance(field, fields.Dict) and (field.key_field or field.value_field))
    if type(field) in _PLAIN and free:
        plain = _PLAIN[type(field)]
        return lambda value: type(value) is plain
    if isinstance(field, fields.Integer) and field.strict:
        return lambda value: type(value) is int
    if isinstance(field, InstantField):
        return _instant
    if isinstance(field, fields.Nested) and not field.many:
        return exact(field.schema)
    if isinstance(field, fields.List):
        _, inner = _entry(field.inner)
        return lambda value: type(value) is list and all(map(inner, value))
    return lambda _value: False


def _with_none(field: fields.Field[Any], check: Check) -> Check:
    if field.allow_none:
        return lambda value: value is None or check(value)
    return check


def _validated(field: fields.Field[Any], check: Check) -> Check:
    tests = [check, *map(_test, field.validators)]
    if len(tests) == 1:
        return check
    if len(tests) == 2:
        first, second = tests
        return lambda value: first(value) and second(value)
    return lambda value: all(test(value) for test in tests)


def _test(validator: Callable[[Any], Any]) -> Check:
    """A validator that answers instead of raising."""
    if type(validator) is validate.OneOf:
        choices = tuple(validator.choices)
        return lambda value: value in choices
    if type(validator) is validate.Regexp:
        match = validator.regex.match
        return lambda value: match(value) is not None

    def test(value: Any) -> bool:
        try:
            validator(value)
        except ValidationError:
            return False
        return True

    return test


def _instant(value: Any) -> bool:
    if type(value) is not str or not _INSTANT.fullmatch(value):
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True
