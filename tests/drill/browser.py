"""Chromium without a window, spoken to over a pipe: to look at a page as a reader would.

Source: Chrome DevTools Protocol, with `--remote-debugging-pipe` (messages end with a zero byte).
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

from helpers import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--remote-debugging-pipe",
)
_EVENTS = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")


class Page:
    """One page in one browser.

    Attributes:
        complaints: everything that the page wrote to its console, errors of scripts, what its
            policy blocked.
        requests: every address that it asked for.
    """

    def __init__(self, to: int, back: int) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._to, self._back = to, back
        self._number = 0
        self._buffer = b""
        self._loaded = False
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: object) -> dict[str, Any]:
        """Call the browser and wait for its answer."""
        self._number += 1
        message: dict[str, object] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        while True:
            said = self._next()
            if said.get("id") == self._number:
                assert "error" not in said, f"{method}: {said['error']}"
                return said["result"]  # type: ignore[no-any-return]

    def open(self, file: Path, width: int, scheme: str, height: int = 900) -> None:
        """Load a file at this width, in the `light` or `dark` scheme, and wait for its drawing."""
        mobile = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=mobile,
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])
        self._loaded = False
        self.call("Page.navigate", url=file.as_uri())
        while not self._loaded:
            self._next()
        self.call("Page.getLayoutMetrics")

    def run(self, script: str) -> Any:
        """The value of a script in the page; promises are waited for."""
        done = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def press(self, key: str) -> None:
        """Press a key, such as `Tab` or `ArrowDown`."""
        code = {"Tab": 9, "ArrowDown": 40, "Escape": 27, "Enter": 13}[key]
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code
            )

    def picture(self, file: Path, *, whole: bool = True) -> None:
        """Write what is seen as a PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))

    def _next(self) -> dict[str, Any]:
        """The next message; what the page complains of is kept."""
        end_s = time.monotonic() + PATIENCE_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._back], [], [], max(0, end_s - time.monotonic()))
            assert ready, "the browser does not answer"
            chunk = os.read(self._back, 1 << 20)
            assert chunk, "the browser is gone"
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\0", 1)
        said: dict[str, Any] = json.loads(line)
        method = said.get("method")
        if method in _EVENTS:
            self.complaints.append(f"{method}: {json.dumps(said['params'])[:1000]}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(said["params"]["request"]["url"])
        elif method == "Page.loadEventFired":
            self._loaded = True
        return said


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A browser with a profile of its own in `folder`, gone afterwards."""
    program = shutil.which("chromium")
    assert program is not None, "chromium is missing: install the Debian package chromium"
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    # Chromium reads commands from 3 and answers on 4; the shell puts the pipes there.
    words = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
    with open(folder / "browser.log", "wb") as log:
        child = subprocess.Popen(
            ["bash", "-c", words, program, *_QUIET, f"--user-data-dir={folder / 'profile'}"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(theirs_in, theirs_out),
            start_new_session=True,
        )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Page(ours_out, ours_in)
    finally:
        # It ends when its pipe is closed, and its helpers with it.
        os.close(ours_out)
        os.close(ours_in)
        try:
            child.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
