"""Every page, checked by axe-core in a real Chromium, wide and narrow, light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser

from tests.conftest import ROOT, Installation
from tests.test_reading_runs import Writer

pytestmark = [pytest.mark.browser, pytest.mark.server]
AXE = (ROOT / "tests/vendor/axe-4.14.1.min.js").read_text()
RUN_AXE = """async () => (await axe.run(document, {resultTypes: ["violations"]})).violations
  .filter(found => ["serious", "critical"].includes(found.impact))
  .map(found => `${found.id}: ${found.nodes.slice(0, 3).map(node => node.html.slice(0, 160)).join(" | ")}`)"""
LOOKS: tuple[tuple[int, int, Literal["light", "dark"]], ...] = ((1280, 900, "light"), (390, 844, "dark"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, list[str]]]:
    """The address of a web process, the key of a session, and the addresses of its pages."""
    installation = Installation(
        Path(tmp_path_factory.mktemp("axe")), DJANGO_SUPERUSER_PASSWORD="correct horse battery"
    )
    made = installation.command("createsuperuser", "--noinput", "--username=olga", "--email=o@example.com")
    assert made.returncode == 0, made.stderr
    writer = Writer(installation)
    pages = writer.do("pages olga").split()
    yield installation.serve(), writer.do("session olga"), pages
    writer.close()
    installation.close()


def test_no_page_has_a_serious_finding(browser: Browser, served: tuple[str, str, list[str]]) -> None:
    base, key, pages = served
    found = []
    context = browser.new_context(base_url=base, bypass_csp=True, reduced_motion="reduce")
    context.add_cookies([{"name": "sessionid", "value": key, "url": base}])
    page = context.new_page()
    for path in pages:
        assert (response := page.goto(path)) is not None and response.status < 400, path
        page.evaluate(AXE)
        for width, height, scheme in LOOKS:
            page.set_viewport_size({"width": width, "height": height})
            page.emulate_media(color_scheme=scheme)
            found += [f"{path} {scheme} {line}" for line in page.evaluate(RUN_AXE)]
    context.close()
    assert not found, "\n".join(found)
