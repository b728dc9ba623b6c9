"""A real headless browser for tests of pages: Chromium where one is installed, by playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (apt-get install chromium)")


@contextmanager
def open_browser() -> Iterator[Any]:
    """A browser that ends with the block. Skips the test where playwright is not installed."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (pip install 'joyful[test]')"
    )
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


def listen(page: Any, address: str, complaints: list[str]) -> None:
    """Enter what goes wrong on a page that is one file: errors, words on the console, and whatever it asks for but itself."""
    page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
    page.on("console", lambda message: complaints.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))

    def asked(request: Any) -> None:
        if request.url not in (address, "data:,"):
            complaints.append(f"asked for {request.url}")

    page.on("request", asked)
