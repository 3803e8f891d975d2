"""Requests inside of every limit that want more work than they are worth: add yours.

The service answers or refuses each within the processor time of two full legal requests and the memory
of one worker: `tests/slow/test_attacks.py` watches the memory, `make bench-serving ONLY=refused` both.
"""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

MAX_BODY = 3_990_000  # bytes of a body: just below `serving.limits.body_mb`
ROWS = 1000  # as `serving.limits.rows`


@dataclass(frozen=True)
class Attack:
    """A request, and how it is sent."""

    name: str
    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    method: str = "POST"


def full(example: dict[str, Any]) -> Attack:
    """The largest request that is answered as it should be: what the others are measured by."""
    return Attack("a full legal request", "/predict", json.dumps([example] * ROWS).encode())


def repeated(
    item: bytes, before: bytes = b"[", after: bytes = b"]", limit: int = MAX_BODY
) -> bytes:
    """As many items, with commas between them, as a body holds."""
    count = (limit - len(before) - len(after)) // (len(item) + 1)
    return before + b",".join([item] * count) + after


def numbered(item: str, before: str = "", after: str = "", limit: int = MAX_BODY) -> bytes:
    """The same of items that differ: `%d` is their number."""
    size, parts, number = len(before) + len(after), [], 0
    while size + len(item) + 8 < limit:
        parts.append(item % number)
        size += len(parts[-1]) + 1
        number += 1
    return (before + ",".join(parts) + after).encode()


def attacks(example: dict[str, Any], name: str) -> list[Attack]:
    """All of them.

    Args:
        example: a row that is answered, column -> value; name: of the model, as GET /v2 has it.
    """
    infer = f"/v2/models/{name}/infer"
    binary = {"inference-header-content-length": ""}
    requests = [Attack(f"rows: {title}", "/predict", body) for title, body in _rows(example)]
    requests += [Attack(f"feedback: {title}", "/feedback", body) for title, body in _feedback()]
    requests += [Attack(f"tensors: {title}", infer, body) for title, body in _tensors(example)]
    for title, head, tail in _tails(example):
        length = {**binary, "inference-header-content-length": str(len(head))}
        requests.append(Attack(f"tensors: {title}", infer, head + tail, length))
    router = [
        ("many steps", repeated(b"0.5", b'{"steps":[', b"]}")),
        ("many keys", numbered('"k%d":1', "{", "}")),
        ("one key, again and again", repeated(b'"share":0.5', b"{", b"}")),
        ("nested lists", repeated(b"[[[[]]]]", b'{"steps":[', b"]}")),
        ("a name of four megabytes", b'{"experiment":"' + b"x" * MAX_BODY + b'"}'),
        ("a number of many digits", b'{"step_requests":' + b"9" * MAX_BODY + b"}"),
    ]
    requests += [
        Attack(f"router: {title}", "/router", body, method="PUT") for title, body in router
    ]
    zipped = {"content-encoding": "gzip"}
    for path in ("/predict", "/feedback", infer):
        requests += [
            Attack(f"zipped: zeros for {path}", path, gzip.compress(b"0" * 400_000_000, 6), zipped),
            Attack(f"zipped: empty parts for {path}", path, gzip.compress(b"") * (MAX_BODY // 20), zipped),
            Attack(f"zipped: noise for {path}", path, b"\x1f\x8b" * (MAX_BODY // 2), zipped),
            Attack(f"zipped: rows for {path}", path, gzip.compress(repeated(b"{}"), 6), zipped),
        ]  # fmt: skip
    return requests


def _rows(example: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    misspelt = {f"{key}s": value for key, value in example.items()}
    text = next(key for key, value in example.items() if isinstance(value, str))
    number = next(key for key, value in example.items() if isinstance(value, float))
    row = json.dumps(example).encode()
    yield "misspelt columns", json.dumps([misspelt] * ROWS).encode()
    for count in (ROWS, 4 * ROWS):
        rows = [{f"{key}{position}": 1 for key in example} for position in range(count)]
        yield (
            f"columns misspelt otherwise in each of {count} rows",
            json.dumps(rows).encode()[:MAX_BODY],
        )
    yield "a name of four megabytes", b'{"' + b"x" * (MAX_BODY - 6) + b'":1}'
    yield "long names", repeated(b'{"' + b"abcdefgh" * 400 + b'":1}')
    yield "many columns in a row", numbered('"c%d":1', "{", "}")
    yield "one column, again and again", repeated(f'"{number}":1'.encode(), b"{", b"}")
    yield "one wrong value, again and again", repeated(f'"{number}":""'.encode(), b"{", b"}")
    yield "one row too many", b"[" + b",".join([row] * (ROWS + 1)) + b"]"
    yield "rows as far as they go", repeated(row)
    for item in (
        b"{}",
        b"[]",
        b"1",
        b"null",
        b'""',
        b"true",
        b"1e5",
        b"[[[]]]",
        b'{"":{}}',
        b"{ }",
    ):
        yield f"a list of {item.decode()}", repeated(item)
        yield f"the same behind a row: {item.decode()}", repeated(item, b"[" + row + b",")
        yield (
            f"the same as a value: {item.decode()}",
            repeated(item, f'[{{"{text}":['.encode(), b"]}]"),
        )
    yield "lists in lists", b"[" * MAX_BODY
    yield "lists in lists, closed", b"[" * (MAX_BODY // 2) + b"]" * (MAX_BODY // 2)
    yield "lists in lists as a value", f'{{"{text}":'.encode() + b"[" * (MAX_BODY // 2)
    yield "objects in objects", b'{"a":' * (MAX_BODY // 5)
    yield "a row of blanks", b" " * MAX_BODY
    yield "a row behind blanks", b" " * (MAX_BODY - 2) + b"{}"
    yield "not JSON", b"x" * MAX_BODY
    yield "not text", b"\xff" * MAX_BODY
    yield (
        "a text of four megabytes",
        json.dumps({**example, text: "x" * (MAX_BODY - 2000)}).encode(),
    )
    escaped = "\\u0041" * (MAX_BODY // 6 - 400)
    yield "a text of escapes", json.dumps({**example, text: "?"}).replace("?", escaped).encode()
    braces = json.dumps("{" * ((MAX_BODY - len(row) * 10) // 10))
    rows = json.dumps([{**example, text: "?"}] * 10).replace('"?"', braces)
    yield "texts of braces", rows.encode()
    for digits in (4_000, MAX_BODY - 2000):
        long_number = "9" * digits
        for column in (text, number):
            row_of = json.dumps({**example, column: "?"}).replace('"?"', long_number).encode()
            yield f"a number of {digits} digits for {column}", repeated(row_of)
    wrong = {key: {"a": 1} for key in example}
    yield "every value wrong", json.dumps([wrong] * ROWS).encode()
    yield "every value wrong, rows in plenty", repeated(json.dumps(wrong).encode())
    yield (
        "a wrong value at the end",
        json.dumps([example] * (ROWS - 1) + [{**example, number: "x"}]).encode(),
    )
    late = [example] * (ROWS - 1) + [misspelt]
    yield "a misspelt column at the end", json.dumps(late).encode()
    yield "required values missing", json.dumps([dict.fromkeys(example)] * ROWS).encode()
    zones = [
        {
            **example,
            "event_time": f"2026-01-31 12:00 America/Z{'abcdefghij'[n % 10]}{'q' * (n % 90)}",
        }
        for n in range(ROWS)
    ]
    yield "time zones that there are not", json.dumps(zones).encode()
    for title, moment in (
        ("digits", "1" * 3000),
        ("blanks", f"2026-01-31{' ' * 3000}x"),
        ("a zone of letters", "2026-01-31 12:00 A" + "a" * 3000 + "/"),
    ):
        yield f"times of {title}", repeated(json.dumps({**example, "event_time": moment}).encode())
    odd = [
        {
            key: f"odd {n}" if isinstance(value, str) else 1e30
            for key, value in example.items()
            if key != "event_time"
        }
        for n in range(ROWS)
    ]
    yield "every value odd", json.dumps(odd).encode()


def _feedback() -> Iterator[tuple[str, bytes]]:
    yield "made-up labels", numbered('{"id":"a%027x","label":1}', "[", "]")
    yield "labels without an id", repeated(b'{"label":1}')
    for item in (b'{"id":""}', b"{}", b"1", b"[]", b'{"id":"","label":[[]]}', b'{"x":1}'):
        yield f"a list of {item.decode()}", repeated(item)
    yield "an id of four megabytes", b'{"id":"' + b"a" * (MAX_BODY - 20) + b'","label":1}'
    yield "ids of many bytes", repeated(b'{"id":"' + b"abcdef" * 600 + b'","label":2}')
    yield "a label of four megabytes", b'{"id":"a","label":"' + b"a" * (MAX_BODY - 30) + b'"}'
    yield "a label of many digits", b'{"id":"a","label":' + b"9" * (MAX_BODY - 30) + b"}"
    yield "an unknown key of four megabytes", b'{"id":"a","' + b"k" * (MAX_BODY - 30) + b'":1}'
    yield "lists in lists", b"[" * MAX_BODY
    yield "rewards out of bounds", repeated(b'{"id":"x","reward":7}')


def _tensors(example: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    number = next(key for key, value in example.items() if isinstance(value, float))
    text = next(key for key, value in example.items() if isinstance(value, str))

    def tensor(name: str, shape: str, kind: str = "FP64") -> tuple[bytes, bytes]:
        head = f'{{"inputs":[{{"name":"{name}","shape":{shape},"datatype":"{kind}","data":['
        return head.encode(), b"]}]}"

    for item in (b"1", b"1.5", b"[1]", b"null", b"[]", b"{}", b'""', b"true", b"[[[1]]]", b'","'):
        for shape in ("[1000000]", "[1000]", "[1]"):
            for column, kind in ((number, "FP64"), (text, "BYTES")):
                title = f"{item.decode()} as {kind} of shape {shape}"
                yield title, repeated(item, *tensor(column, shape, kind))
    yield "values in lists in lists", tensor(number, "[1]")[0] + b"[" * MAX_BODY
    yield (
        "many tensors",
        repeated(
            f'{{"name":"{number}","shape":[1],"datatype":"FP64","data":[1]}}'.encode(),
            b'{"inputs":[',
            b"]}",
        ),
    )
    yield (
        "many tensors of nothing",
        repeated(b'{"name":"","shape":[],"datatype":""}', b'{"inputs":[', b"]}"),
    )
    yield (
        "a tensor's name of four megabytes",
        b'{"inputs":[{"name":"'
        + b"n" * (MAX_BODY - 100)
        + b'","shape":[1],"datatype":"FP64","data":[1]}]}',
    )
    yield (
        "a datatype of four megabytes",
        f'{{"inputs":[{{"name":"{number}","shape":[1],"data":[1],"datatype":"'.encode()
        + b"n" * (MAX_BODY - 200)
        + b'"}]}',
    )
    yield (
        "a shape of many numbers",
        repeated(
            b"1",
            f'{{"inputs":[{{"name":"{number}","datatype":"FP64","data":[1],"shape":['.encode(),
            b"]}]}",
        ),
    )
    yield (
        "a shape of many digits",
        f'{{"inputs":[{{"name":"{number}","datatype":"FP64","data":[1],"shape":['.encode()
        + b"9" * (MAX_BODY - 200)
        + b"]}]}",
    )
    head = f'{{"inputs":[{{"name":"{number}","shape":[1],"datatype":"FP64","data":[1]'
    for title, before, after in (
        ("a tensor's parameters", head + ',"parameters":{"a":[', "]}}]}"),
        ("the request's parameters", head + '}],"parameters":{"a":[', "]}}"),
        ("what nobody knows", head + '}],"more":[', "]}"),
    ):
        for item in (b"[]", b"{}", b'{"a":1}'):
            yield f"{title}: {item.decode()}", repeated(item, before.encode(), after.encode())
    yield "parameters by number", numbered('"k%d":1', head + '}],"parameters":{', "}}")
    yield "many outputs", repeated(b'{"name":"score"}', (head + '}],"outputs":[').encode(), b"]}")
    yield "outputs that there are not", numbered('{"name":"o%d"}', head + '}],"outputs":[', "]}")
    yield (
        "an output's name of four megabytes",
        (head + '}],"outputs":[{"name":"').encode() + b"o" * (MAX_BODY - 300) + b'"}]}',
    )
    yield "an id of four megabytes", (head + '}],"id":"').encode() + b"i" * (MAX_BODY - 300) + b'"}'


def _tails(example: dict[str, Any]) -> Iterator[tuple[str, bytes, bytes]]:
    number = next(key for key, value in example.items() if isinstance(value, float))
    text = next(key for key, value in example.items() if isinstance(value, str))
    for title, column, kind, shape, tail in (
        ("millions of empty texts", text, "BYTES", 1000, b"\0\0\0\0" * (MAX_BODY // 4)),
        (
            "millions of empty texts, so declared",
            text,
            "BYTES",
            MAX_BODY // 4,
            b"\0\0\0\0" * (MAX_BODY // 4),
        ),
        ("a text longer than the body", text, "BYTES", 1, b"\xff\xff\xff\xff" + b"a" * MAX_BODY),
        ("one text", text, "BYTES", 1, struct.pack("<I", MAX_BODY - 500) + b"a" * (MAX_BODY - 500)),
        (
            "one text that is none",
            text,
            "BYTES",
            1,
            struct.pack("<I", MAX_BODY - 500) + b"\xff" * (MAX_BODY - 500),
        ),
        ("half a million numbers", number, "FP64", 1000, b"\0" * 8 * (MAX_BODY // 8)),
        (
            "half a million numbers, so declared",
            number,
            "FP64",
            MAX_BODY // 8,
            b"\0" * 8 * (MAX_BODY // 8),
        ),
        ("four million switches", number, "BOOL", 1000, b"\1" * MAX_BODY),
        ("four million bytes", number, "INT8", MAX_BODY, b"\1" * MAX_BODY),
    ):
        tail = tail[: MAX_BODY - 1000]
        head = {
            "name": column,
            "shape": [shape],
            "datatype": kind,
            "parameters": {"binary_data_size": len(tail)},
        }
        yield title, json.dumps({"inputs": [head]}).encode(), tail
