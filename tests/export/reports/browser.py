"""A real browser that looks at a page: headless Chromium, driven by selenium."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
WAIT = 30  # seconds that a page may take before the test fails

# It shall look at one file and do nothing else.
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
    "--lang=en",
)

_OVERLAPS = """
const boxes = [];
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const passed = ".skip, .unseen, script, style, title, desc, option";
for (let node = texts.nextNode(); node; node = texts.nextNode()) {
  const parent = node.parentElement, text = node.data.trim();
  if (!text || parent.closest(passed)) continue;
  if (!parent.checkVisibility({checkOpacity: true, checkVisibilityCSS: true})) continue;
  const clip = {left: -1e9, top: -1e9, right: 1e9, bottom: 1e9};
  for (let e = parent; e !== document.body; e = e.parentElement) {
    if (e instanceof SVGElement || getComputedStyle(e).overflow === "visible") continue;
    const r = e.getBoundingClientRect();
    for (const key of ["left", "top"]) clip[key] = Math.max(clip[key], r[key]);
    for (const key of ["right", "bottom"]) clip[key] = Math.min(clip[key], r[key]);
  }
  const bar = Boolean(parent.closest("[data-controls]"));  // it floats above the rest
  const range = document.createRange();
  range.selectNodeContents(node);
  for (const r of range.getClientRects()) {
    const h = r.height / 5;  // a line is higher than its letters
    const box = {
      left: Math.max(clip.left, r.left + 1), right: Math.min(clip.right, r.right - 1),
      top: Math.max(clip.top, r.top + h), bottom: Math.min(clip.bottom, r.bottom - h),
    };
    if (box.left < box.right && box.top < box.bottom) boxes.push({...box, text, bar});
  }
}
boxes.sort((a, b) => a.top - b.top);
const found = [];
for (let i = 0; i < boxes.length; i++) {
  const a = boxes[i];
  for (let j = i + 1; j < boxes.length && boxes[j].top < a.bottom; j++) {
    const b = boxes[j];
    if (a.left < b.right && b.left < a.right && a.bar === b.bar)
      found.push([a.text.slice(0, 60), b.text.slice(0, 60)]);
  }
}
return found;
"""


class Browser:
    """One page in Chromium, and what can be asked of it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.requests: list[str] = []
        self.messages: list[str] = []

    def open(
        self,
        path: Path,
        width: int = 1400,
        height: int = 1000,
        dark: bool = False,
        script: bool = True,
    ) -> Browser:
        """Opens a file in a window of that size, in light or dark, with or without JavaScript."""
        self.driver.get("about:blank")
        self.driver.get_log("performance")
        self.driver.get_log("browser")
        self.requests, self.messages = [], []
        self.cdp("Emulation.setScriptExecutionDisabled", value=not script)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.cdp("Emulation.setEmulatedMedia", media="", features=[scheme])
        self.resize(width, height)
        self.driver.get(path.resolve().as_uri())
        self._read_logs()
        return self

    def resize(self, width: int, height: int = 1000) -> None:
        """Gives the page's viewport a size, in CSS pixels."""
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def cdp(self, command: str, **parameters: Any) -> Any:
        """Sends a command of the Chrome DevTools Protocol."""
        return self.driver.execute_cdp_cmd(command, parameters)

    def js(self, text: str, *arguments: Any) -> Any:
        """Runs JavaScript in the page."""
        return self.driver.execute_script(text, *arguments)

    def find(self, selector: str) -> Any:
        """The first element of a CSS selector."""
        return self.driver.find_element("css selector", selector)

    def find_all(self, selector: str) -> list[Any]:
        """The elements of a CSS selector."""
        return self.driver.find_elements("css selector", selector)

    def errors(self) -> list[str]:
        """What the console has said since the page was opened; a broken policy is said there."""
        self._read_logs()
        return self.messages

    def foreign_requests(self) -> list[str]:
        """What the page has asked for, apart from itself and what it holds."""
        self._read_logs()
        own = self.driver.current_url.partition("#")[0]
        return [u for u in self.requests if u != own and not u.startswith(("data:", "about:"))]

    def sideways(self) -> int:
        """By how many pixels the page is wider than its window."""
        return self.js(
            "const d = document.documentElement; return Math.max(d.scrollWidth, "
            "document.body.scrollWidth) - d.clientWidth;"
        )

    def overlaps(self) -> list[list[str]]:
        """Pairs of visible texts that lie on one another; the bar of controls may, as it floats."""
        return self.js(_OVERLAPS)

    def violations(self) -> list[str]:
        """What axe-core finds wrong for those who do not see or use no mouse."""
        axe = pytest.importorskip("axe_core_python")
        source = Path(axe.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
        self.cdp("Runtime.evaluate", expression=source)  # the page's own policy would refuse it
        found = self.driver.execute_async_script(
            "const done = arguments[0]; axe.run(document, {resultTypes: ['violations']}).then("
            "r => done(r.violations), e => done([{id: String(e), nodes: []}]));"
        )
        return [
            f"{v['id']}: {n['html'][:200]}" for v in found for n in v["nodes"] or [{"html": ""}]
        ]

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """Takes a picture of the page, to be looked at."""
        shot = self.cdp("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self) -> bytes:
        """The page as it would be printed."""
        return base64.b64decode(self.cdp("Page.printToPDF", printBackground=False)["data"])

    def _read_logs(self) -> None:
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
        self.messages += [entry["message"] for entry in self.driver.get_log("browser")]


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Browser]:
    """Starts a browser whose files lie in an empty folder; skips where none is installed."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("Chromium and chromedriver are not installed (Debian: chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # The path keeps selenium from looking for a driver of its own on the network.
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        browser.set_page_load_timeout(WAIT)
        browser.set_script_timeout(WAIT)
        yield Browser(browser)
    finally:
        browser.quit()
