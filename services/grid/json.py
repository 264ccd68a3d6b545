"""JSON from outside: read strictly enough that whatever was read can also be stored.

The standard reader accepts what no database or other reader takes (NaN, numbers beyond 64
bits, half a surrogate pair, bottomless nesting); such a text is refused here with a reason.
orjson does the work; what it refuses or would round goes to the slower reader that can explain.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

_DEEPEST = 32


class InvalidJson(ValueError):
    """The text is not JSON that we can keep; the message says why and what is allowed."""


def _integer(digits: str) -> int:
    value = int(digits) if len(digits) < 21 else 2**64
    if not -(2**63) <= value < 2**63:
        raise InvalidJson("an integer needs more than 64 bits: write it as text")
    return value


def _number(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise InvalidJson("a number is too large for a double: write it as text")
    return value


def _constant(name: str) -> Any:
    raise InvalidJson(f"{name} is not JSON: write null or a number")


def _check(value: Any, depth: int) -> None:
    if depth > _DEEPEST:
        raise InvalidJson(f"nested deeper than {_DEEPEST} levels")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidJson("text with half of a surrogate pair") from error
    elif isinstance(value, dict):
        for key, item in value.items():
            if "\x00" in key:
                raise InvalidJson("a field name with a NUL character")
            _check(key, depth)
            _check(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, depth + 1)


# orjson makes a double of an integer beyond 64 bits: a text with so many digits is looked at.
_AS_ZERO = bytes.maketrans(b"123456789", b"000000000")
_LONG = b"0" * 19
_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=_number, parse_constant=_constant)

_TAKEN_APART = json.JSONDecoder(parse_int=str, parse_float=str)
_SPACES = " \t\n\r"
_SPACE = re.compile(f"[{_SPACES}]*")


def loads(body: bytes) -> Any:
    """The value of a JSON text in UTF-8.

    :raises InvalidJson: what is wrong, in words for the sender.
    """
    try:
        value = _explained(body) if _LONG in body.translate(_AS_ZERO) else orjson.loads(body)
    except orjson.JSONDecodeError:
        value = _explained(body)
    # The full walk only for a text that could hold what it looks for.
    if b"\\u" in body or body.count(b"{") + body.count(b"[") > _DEEPEST:
        _check(value, 0)
    return value


def elements(body: bytes) -> list[bytes]:
    """The texts of the elements of a JSON array, of which some may hold what we can't keep.

    :raises InvalidJson: where one ends can't be told.
    """
    try:
        text = body.decode()
        place, found = _SPACE.match(text).end(), list[bytes]()  # type: ignore[union-attr]
        if text[place : place + 1] != "[":
            raise InvalidJson("not an array")
        while text[place : place + 1] in ("[", ","):
            place = _SPACE.match(text, place + 1).end()  # type: ignore[union-attr]
            _value, end = _TAKEN_APART.raw_decode(text, place)
            found.append(text[place:end].encode())
            place = _SPACE.match(text, end).end()  # type: ignore[union-attr]
    except (ValueError, RecursionError) as error:
        raise InvalidJson(f"it can't be taken apart: {error}") from error
    if text[place:].strip(_SPACES) != "]":
        raise InvalidJson(f"it can't be taken apart at character {place}")
    return found


def dumps(value: Any) -> bytes:
    """Compact UTF-8 JSON, Chinese text as it is, the same value always the same bytes.

    A number that is none (NaN) becomes null.

    :raises TypeError: it holds what JSON can't, or an integer beyond 64 bits.
    """
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _explained(body: bytes) -> Any:
    try:
        return _DECODER.decode(body.decode())
    except InvalidJson:
        raise
    except UnicodeDecodeError as error:
        raise InvalidJson(f"not UTF-8 at byte {error.start}") from error
    except RecursionError as error:
        raise InvalidJson(f"nested deeper than {_DEEPEST} levels") from error
    except ValueError as error:
        raise InvalidJson(f"not JSON: {error}") from error
