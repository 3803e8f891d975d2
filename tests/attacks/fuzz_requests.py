"""Requests that no client means, sent to a running service: hypothesis makes them up, none may give a 5xx.

    python tests/attacks/fuzz_requests.py PORT 20000

Every run asks the same: examples are derived from the strategies, not from chance.
"""

from __future__ import annotations

import http.client
import json
import socket
import struct
import sys
import zlib
from base64 import b64decode, b64encode
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

MOMENTS = (
    "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "0000-00-00", "2026-01-01T24:00:00",
    "2026-06-30T23:59:60Z", "2026-02-30", "12026-01-01", "2026-01-01 10:00 Europe/Nowhere", "2026-1-1",
    "2026-01-01 10:00 America/Argentina", "2026-01-01T10:00:00.123456789Z", "2026-01-01T10:00:00 +99:99",
)  # fmt: skip
TEXTS = st.one_of(
    st.sampled_from(
        (*MOMENTS, "", " ", "\0", "\ud800", "\udfff", "\ud83d\ud83d", "NaN", "null", "1e999", "'")
    ),
    st.text(st.characters(), max_size=20),
    st.text(st.sampled_from('a1 .,-+:/Z\0\ud800{}[]"\\'), max_size=200),
    st.sampled_from((1_000, 1_001, 70_000)).map(lambda n: "x" * n),
)
NUMBERS = st.one_of(
    st.integers(-5, 5),
    st.floats(),  # NaN and infinities, as Python writes them
    st.sampled_from((2**53, -(2**63), 2**63, 2**64, 10**30, 10**4200, 1e308, -1e300, 5e-324, -62135596801, 253402300800)),
    st.integers(),
)  # fmt: skip
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
# A PNG of a pixel, whole and damaged, of few bytes and many pixels, what is none, and names of files
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)
BOMB = struct.pack(">4sII5s", b"IHDR", 100_000, 100_000, b"\x08\x02\0\0\0")
BOMB = b"\x89PNG\r\n\x1a\n\0\0\0\r" + BOMB + struct.pack(">I", zlib.crc32(BOMB)) + b"\0" * 40
IMAGES = st.one_of(
    st.sampled_from(
        (PIXEL, PIXEL[:60], PIXEL[:-1], PIXEL + "=", PIXEL * 2, f"data:image/png;base64,{PIXEL}", f"data:,{PIXEL}", "data:",
         b64encode(BOMB).decode(), b64encode(b"<svg xmlns='http://www.w3.org/2000/svg'/>").decode(), "A" * 900_000, "=" * 99,
         "/etc/passwd", "../params.yaml", "../a.png", "/etc/shadow.jpg", "a\0.png", "x" * 5_000 + ".png", ".png", "")
    ),
    st.binary(max_size=60).map(lambda tail: b64encode(b"\x89PNG\r\n\x1a\n" + tail).decode()),
    st.builds(lambda at, new: b64encode(b64decode(PIXEL)[:at] + new + b64decode(PIXEL)[at + len(new) :]).decode(), st.integers(0, 67), st.binary(max_size=4)),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=6,
)


def requests(
    document: dict[str, Any],
) -> st.SearchStrategy[tuple[str, str, list[tuple[bytes, bytes]], bytes]]:
    """(method, path, headers, body), mostly near to what is right.

    Args:
        document: of GET /openapi.json.
    """
    schemas = document["components"]["schemas"]
    names = list(schemas["Row"]["properties"])
    example = schemas["Row"]["example"]
    paths = [path.format(name="my-model", version="none") for path in document["paths"]]
    name = st.sampled_from(names) | TEXTS
    row = st.builds(
        lambda changes, keys: {**({k: v for k, v in example.items() if k in keys}), **changes},
        st.dictionaries(name, SCALARS | VALUES, max_size=4),
        st.sets(st.sampled_from(list(example))) | st.just(set(example)),
    )
    # Of the right types, so that most are answered and logged
    kinds = {key: _typed(column) for key, column in schemas["Row"]["properties"].items()}
    required = {key: kinds[key] for key in schemas["Row"]["required"]}
    free = {key: kind for key, kind in kinds.items() if key not in required}
    right = st.fixed_dictionaries(required, optional=free)
    rows = st.one_of(
        right, row, st.lists(right, max_size=3), st.lists(row | VALUES, max_size=4), VALUES
    )
    label = st.fixed_dictionaries(
        {},
        optional={
            "id": TEXTS | st.just("a" + 39 * "0"),
            "label": SCALARS,
            "reward": SCALARS,
            "x": VALUES,
        },
    )
    labels = st.one_of(label, st.lists(label | VALUES, max_size=4), VALUES)
    changes = st.dictionaries(
        st.sampled_from(list(schemas["Router"]["properties"])) | TEXTS, VALUES, max_size=3
    )
    body = st.one_of(
        st.tuples(st.just("/predict"), rows.map(encoded), st.just([])),
        st.tuples(st.just("/feedback"), labels.map(encoded), st.just([])),
        inferences(names),
        st.tuples(st.just("/router"), changes.map(encoded), st.just([])),
    )
    return st.builds(
        assembled,
        body,
        st.none() | st.integers(0, 10_000),
        st.binary(max_size=6),
        st.none() | st.sampled_from((*paths, "/%ff", "/%00", "//", "/predict/", "/predict?%ff=%zz", "/v2/models/%F0%9F/infer", "/v2/models/a%2Fb", "/..", "*", "/\xff")),
        st.none() | st.sampled_from(("GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "get", "X")),
        st.lists(HEADERS, max_size=2),
    )  # fmt: skip


def _typed(column: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of a column's type, odd ones among them."""
    if "format" in column:
        return (
            st.sampled_from(MOMENTS)
            | NUMBERS
            | st.datetimes().map(lambda moment: moment.isoformat())
        )
    kinds = {
        "string": IMAGES if "contentEncoding" in column else TEXTS,
        "number": NUMBERS,
        "boolean": st.booleans(),
        "null": st.none(),
        "array": st.lists(NUMBERS | st.none(), max_size=20),
    }
    return st.one_of([kinds[kind] for kind in column["type"]])


HEADERS = st.tuples(
    st.sampled_from((b"content-encoding", b"inference-header-content-length", b"x-request-id", b"traceparent",
                     b"authorization", b"accept", b"content-type", b"origin", b"host", b"sec-fetch-site",
                     b"expect", b"transfer-encoding", b"connection", b"cookie", b"forwarded", b"x")),
    st.one_of(
        st.sampled_from((b"gzip", b"br", b"identity", b"0", b"-1", b"9" * 5000, b"\xc2\xb2", b"Basic \xff", b"Basic ====",
                         b"Bearer", b"null", b"*/*", b"a" * 9000, b"00-" + b"0" * 32 + b"-" + b"1" * 16 + b"-00")),
        st.binary(max_size=30).map(lambda content: bytes(x for x in content if x not in b"\r\n\0")),
        st.integers(0, 500).map(lambda n: str(n).encode()),
    ),
)  # fmt: skip


def inferences(names: list[str]) -> st.SearchStrategy[tuple[str, bytes, list[tuple[bytes, bytes]]]]:
    """(path, body, headers) of the Open Inference Protocol, some with bytes behind the JSON."""
    datatypes = (
        "FP64",
        "FP32",
        "FP16",
        "INT8",
        "INT32",
        "INT64",
        "UINT64",
        "BOOL",
        "BYTES",
        "STRING",
        "",
    )
    shape = (
        st.sampled_from(([1], [1, 1], [2], [2, 1], [0], [1000], [1, 2], [], [-1], [1e9])) | VALUES
    )
    data = st.one_of(
        st.lists(SCALARS | IMAGES, max_size=3),
        st.lists(st.lists(SCALARS, max_size=2), max_size=3),
        VALUES,
    )
    tensor = st.fixed_dictionaries(
        {"name": st.sampled_from(names) | TEXTS, "shape": shape, "datatype": st.sampled_from(datatypes) | TEXTS},
        optional={"data": data, "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(-1, 40) | VALUES, "x": VALUES})},
    )  # fmt: skip
    outputs = st.lists(
        st.fixed_dictionaries({"name": st.sampled_from(("score", "id", "x")) | TEXTS}), max_size=3
    )
    request = st.fixed_dictionaries(
        {"inputs": st.lists(tensor | VALUES, max_size=3)},
        optional={"id": SCALARS, "outputs": outputs | VALUES, "parameters": VALUES, "x": VALUES},
    )
    texts = st.lists(st.binary(max_size=5), max_size=3).map(
        lambda contents: b"".join(struct.pack("<I", len(content)) + content for content in contents)
    )

    def packed(
        request: Any, tail: bytes, binary: bool
    ) -> tuple[str, bytes, list[tuple[bytes, bytes]]]:
        head = encoded(request)
        extra_headers = (
            [(b"inference-header-content-length", str(len(head)).encode())] if binary else []
        )
        return "/v2/models/my-model/infer", head + tail, extra_headers

    return st.builds(packed, request, st.just(b"") | texts | st.binary(max_size=40), st.booleans())


def encoded(value: Any) -> bytes:
    """JSON as Python writes it, with its NaN; half a surrogate pair as an escape, or as bytes that are
    no UTF-8."""
    escaped = len(str(value)) % 3 > 0
    return json.dumps(value, ensure_ascii=escaped).encode("utf-8", "surrogatepass")


def assembled(
    body: tuple[str, bytes, list[tuple[bytes, bytes]]],
    cut: int | None,
    junk: bytes,
    path: str | None,
    method: str | None,
    headers: list[tuple[bytes, bytes]],
) -> tuple[str, str, list[tuple[bytes, bytes]], bytes]:
    """One request: a body on its way, at times with a piece of junk in it, to another place, by another
    method."""
    usual_path, content, extra_headers = body
    if cut is not None and len(junk) > 3:
        at = cut % (len(content) + 1)
        content = content[:at] + junk + content[at + len(junk) % 3 :]
    usual_method = "PUT" if usual_path == "/router" else "POST"
    astray = len(content) % 4 == 0  # most requests go where they belong
    return (
        (method or usual_method) if astray else usual_method,
        (path or usual_path) if astray else usual_path,
        [*extra_headers, *headers],
        content,
    )


def send(port: int, request: tuple[str, str, list[tuple[bytes, bytes]], bytes]) -> int:
    """The status of the answer; 0 where the connection was closed without one."""
    method, path, headers, body = request
    lines = [f"{method} {path} HTTP/1.1".encode("latin-1"), b"connection: close"]
    lines += [b": ".join(header) for header in headers]
    if not any(name == b"host" for name, _ in headers):
        lines.append(b"host: 127.0.0.1")
    if not any(name == b"transfer-encoding" for name, _ in headers):
        lines.append(f"content-length: {len(body)}".encode())
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        try:
            connection.sendall(b"\r\n".join([*lines, b"", b""]) + body)
            if any(name in (b"transfer-encoding", b"expect") for name, _ in headers):
                connection.shutdown(
                    socket.SHUT_WR
                )  # else the service waits for what it was told of
            answer = http.client.HTTPResponse(connection, method=method)
            answer.begin()
            answer.read()
            return answer.status
        except (OSError, http.client.HTTPException):
            return 0


def fuzz(port: int, count: int) -> Counter[int]:
    """Send so many requests; how often each status came.

    Raises:
        AssertionError: with a request as small as can be that gives a 5xx.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/openapi.json")
    document = json.loads(connection.getresponse().read())
    connection.close()
    statuses: Counter[int] = Counter()

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(requests(document))
    def send_request(request: tuple[str, str, list[tuple[bytes, bytes]], bytes]) -> None:
        status = send(port, request)
        statuses[status] += 1
        assert status < 500, (status, request)

    send_request()
    return statuses


if __name__ == "__main__":
    print(dict(sorted(fuzz(int(sys.argv[1]), int(sys.argv[2])).items())))
