"""Headless Chromium, driven through chromedriver's own protocol (JSON over local HTTP)."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars --lang=en-US"
)


class Page:
    """One browser window."""

    def __init__(self, address: str, width: int, height: int, profile: Path, *, dark: bool) -> None:
        options: dict[str, Any] = {
            "binary": CHROMIUM,
            "args": [*FLAGS.split(), f"--user-data-dir={profile}", f"--window-size={width},{height}"],
            "mobileEmulation": {
                "deviceMetrics": {"width": width, "height": height, "pixelRatio": 1, "touch": width < 700}
            },
        }
        wanted = {"alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}
        made = _call(f"{address}/session", {"capabilities": wanted})
        self.base = f"{address}/session/{made['sessionId']}"
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.devtools("Emulation.setEmulatedMedia", media="screen", features=scheme)

    def devtools(self, command: str, **parameters: Any) -> Any:
        """Send one command of the DevTools protocol."""
        return _call(f"{self.base}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def open(self, url: str) -> None:
        """Load a page and wait for it."""
        _call(f"{self.base}/url", {"url": url})

    def run(self, script: str) -> Any:
        """Return what a script returns."""
        return _call(f"{self.base}/execute/sync", {"script": script, "args": []})

    def console(self) -> list[str]:
        """What the page wrote to the console so far, errors of loading included."""
        return [entry["message"] for entry in _call(f"{self.base}/se/log", {"type": "browser"})]

    def screenshot(self, path: Path) -> bytes:
        """Save a picture of the whole page, and return it."""
        shot = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))
        return path.read_bytes()

    def close(self) -> None:
        """End the browser."""
        _call(self.base, None, method="DELETE")


@contextlib.contextmanager
def driver() -> Iterator[str]:
    """Start chromedriver on a free port; yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [str(DRIVER), f"--port={port}", "--silent"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(100):
            with contextlib.suppress(OSError):
                _call(f"{address}/status", None, method="GET")
                break
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(10)


def _call(url: str, body: Any, *, method: str = "POST") -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url, data=data, method=method, headers={"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=120) as answer:
            return json.loads(answer.read())["value"]
    except urllib.error.HTTPError as error:
        raise RuntimeError(error.read().decode(errors="replace")[:500]) from None
