"""The dashboard that a project gets is the one that Grafana's own builders make."""

from __future__ import annotations

import json
import sys

from .conftest import REPO

sys.path.insert(0, str(REPO / "scripts"))


def test_the_dashboard_is_what_the_builders_make():
    from dashboard import TARGET, text

    assert TARGET.read_text(encoding="utf-8") == text(), "use `make sync`"


def test_no_panel_is_empty():
    from dashboard import ROWS, text

    panels = [panel for panel in json.loads(text())["panels"] if panel["type"] != "row"]
    assert len(panels) == 3 + sum(map(len, ROWS.values()))
    assert all(target["expr"] for panel in panels for target in panel["targets"])
