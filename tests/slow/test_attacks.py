"""Requests that want more work than they are worth, and those that no client means, to a real service."""

from __future__ import annotations

import http.client
import json
import os
import re
from pathlib import Path

import pytest

from ..attacks import absurd_requests as attacks
from ..attacks import fuzz_requests as fuzz
from .test_serving import copy, logged, serve  # noqa: F401  (two are fixtures)

REQUESTS = int(os.environ.get("FUZZ", "4000"))
MAX_MEMORY_MB = 200


def peak(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


def test_each_is_answered_or_refused_within_a_workers_memory(serve):  # noqa: F811
    server = serve()
    example = json.loads(server.get("/openapi.json")[1])["components"]["schemas"]["Row"]["example"]
    wrong = []
    for attack in attacks.attacks(example, "my-model"):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request(attack.method, attack.path, attack.body, attack.headers)
        answer = connection.getresponse()
        length = len(answer.read())
        connection.close()
        if answer.status >= 500 or (answer.status != 200 and length > 100_000):
            wrong.append((attack.name, answer.status, length))
    assert not wrong
    assert peak(server.process.pid) < MAX_MEMORY_MB
    assert server.predict(example)["fallback"] is False


@pytest.mark.at_turn(2)
def test_what_hypothesis_makes_up_breaks_neither_it_nor_its_log(serve, copy):  # noqa: F811
    server = serve()
    statuses = fuzz.fuzz(server.port, REQUESTS)
    assert {200, 400, 404, 405, 413, 415, 422} <= set(statuses)
    answers = server.predict({"object_id": "o", "entity_id": "e"})
    server.stop()
    assert answers["id"] in {id for id, _ in logged(copy)}
    assert '"level": "error"' not in copy.read("serve.log")
