"""Chromium without a window, driven over the pipe of its DevTools protocol; nothing to install."""

import base64
import json
import os
import select
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["Browser"]

FLAGS = (
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
    # No name resolves but the test's own server: a request to anywhere else fails, and is seen.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "--remote-debugging-pipe",
    "about:blank",
)


class Browser:
    """One page. `requests`, `problems` are what it asked for and complained about.

    Args:
        program: the browser.
        profile: an empty folder for its files.
        flags: on top of FLAGS.
    """

    def __init__(self, program: str, profile: Path, flags: tuple[str, ...] = ()) -> None:
        self.requests: list[str] = []
        self.problems: list[str] = []
        self._number, self._pending, self._answers = 0, b"", {}
        reads, self._to = os.pipe()
        self._from, writes = os.pipe()
        # The browser wants exactly the descriptors 3 and 4.
        words = [f'exec "$@" 3<&{reads} 4>&{writes}', "sh", program, f"--user-data-dir={profile}"]
        self._process = subprocess.Popen(
            ["bash", "-c", *words, *flags, *FLAGS],
            pass_fds=(reads, writes),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(reads)
        os.close(writes)
        self._session = self._attach()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.call("Browser.close", session=None)
        except (OSError, TimeoutError):
            self._process.kill()
        self._process.wait(20)
        os.close(self._to)
        os.close(self._from)

    def _attach(self) -> str:
        targets = self.call("Target.getTargets", session=None)["targetInfos"]
        page = next(t["targetId"] for t in targets if t["type"] == "page")
        flat = {"targetId": page, "flatten": True}
        session: str = self.call("Target.attachToTarget", flat, session=None)["sessionId"]
        self._watch(session)
        return session

    def _watch(self, session: str) -> None:
        for domain in ("Runtime", "Network", "Log"):
            self._send(f"{domain}.enable", {}, session)
        # Workers have sessions of their own; each waits until it is watched too.
        auto = {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True}
        self._send("Target.setAutoAttach", auto, session)
        self._send("Runtime.runIfWaitingForDebugger", {}, session)

    def _send(self, method: str, params: dict[str, Any], session: str | None) -> int:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        return self._number

    def call(
        self, method: str, params: dict[str, Any] | None = None, *, session: str | None = ""
    ) -> dict[str, Any]:
        """Return the result of one call; `session` None is the browser itself."""
        number = self._send(method, params or {}, self._session if session == "" else session)
        self._pump(lambda: number in self._answers, 60)
        answer = self._answers.pop(number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _pump(self, done: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not done():
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._from], [], [], left)[0]:
                raise TimeoutError("the browser does not answer")
            data = os.read(self._from, 1 << 20)
            if not data:
                raise BrokenPipeError("the browser has gone")
            *messages, self._pending = (self._pending + data).split(b"\0")
            for message in messages:
                self._take(json.loads(message))

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self._answers[message["id"]] = message
            return
        method, params = message["method"], message["params"]
        if method == "Target.attachedToTarget":
            self._watch(params["sessionId"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.problems.append(str(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.problems.append(str(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(str(params["entry"]))

    def open(self, address: str, size: tuple[int, int], *, phone: bool = False) -> None:
        """Go to an address, in a window of this size."""
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": phone}
        self.call("Emulation.setDeviceMetricsOverride", metrics)
        self.call("Page.navigate", {"url": address})
        self.wait(f"location.href === '{address}' && document.readyState === 'complete'")

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression, awaited where it is a promise."""
        wanted = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        answer = self.call("Runtime.evaluate", wanted)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = 180) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.evaluate(f"Boolean({expression})"):
            if time.monotonic() > end:
                raise TimeoutError(f"{expression} stays false; the page complains: {self.problems}")
            time.sleep(0.05)

    def drop(self, file: Path, selector: str) -> None:
        """Drop a file on an element, as a person with a mouse would."""
        box = self.evaluate(
            f"(() => {{ const b = document.querySelector('{selector}').getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        data = {"items": [], "files": [str(file.resolve())], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            place = {"type": kind, "x": box[0], "y": box[1], "data": data}
            self.call("Input.dispatchDragEvent", place)

    def screenshot(self, file: Path) -> None:
        """Write the whole page as a PNG."""
        answer = self.call("Page.captureScreenshot", {"captureBeyondViewport": True})
        file.write_bytes(base64.b64decode(answer["data"]))
