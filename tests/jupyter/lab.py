"""A real JupyterLab in a real browser, on kernels of a real daemon.

Owns what a test starts: the server, its pages, its notebooks.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from playwright.sync_api import Browser, Error
from playwright.sync_api import Page as BrowserPage

from tests.e2e.daemon import DEADLINE, Scene, wait_for

TOKEN = "a-token-of-the-tests"
PAGE_DEADLINE = 60.0
CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    *(
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-dev-shm-usage",
    ),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def until_there(file: Path) -> str:
    """Code that runs until a file is there."""
    return f"import pathlib, time\nwhile not pathlib.Path({str(file)!r}).exists(): time.sleep(0.1)\n"


class Server:
    """A Jupyter server of the scene's kernels: JupyterLab, or what ``words`` begin."""

    def __init__(self, scene: Scene, *words: str, port: int | None = None) -> None:
        self.scene = scene
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.root = scene.directory / "notebooks"
        self.root.mkdir(exist_ok=True)
        self.log = scene.directory / f"server-{self.port}.log"
        self.token = TOKEN
        self._words = words or (
            *("-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.root_dir={self.root}"),
            *("--expose-app-in-browser", f"--IdentityProvider.token={TOKEN}"),
            *("--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"),
        )
        self.process: subprocess.Popen[bytes] | None = None

    def environment(self) -> dict[str, str]:
        mine = self.scene.directory / "jupyter"
        return self.scene.environment(
            KERNEL_SUPERVISOR_SOCKET=str(self.scene.socket),
            JUPYTER_CONFIG_DIR=str(mine / "config"),
            JUPYTER_DATA_DIR=str(mine / "data"),
            JUPYTER_RUNTIME_DIR=str(mine / "runtime"),
            PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        )

    def command(self, *words: str) -> str:
        """What a verb of the command line prints, in the server's environment."""
        done = subprocess.run(
            [sys.executable, "-m", "supervisor", *words],
            cwd=self.scene.directory,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=PAGE_DEADLINE,
            check=False,
        )
        assert 0 == done.returncode, done.stderr
        return done.stdout

    def start(self, *more: str, wait: bool = True) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self._words, f"--port={self.port}", *more],
                cwd=self.scene.directory,
                env=self.environment(),
                stdout=log,
                stderr=log,
            )
        if wait:
            self.wait_answers()

    def start_with_token(self, file: Path) -> None:
        """Start ``serve``, which makes its token itself, in this file."""
        self.start(wait=False)
        wait_for(lambda: file.exists() and file.read_text().strip(), "the token is written", PAGE_DEADLINE)
        self.token = file.read_text().strip()
        self.wait_answers()

    def wait_answers(self) -> None:
        wait_for(self._answers, lambda: f"the server answers; {self.log.read_text()[-3000:]}", PAGE_DEADLINE)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        try:
            return self.ask("GET", "/api/status")[0] == 200
        except OSError:
            return False

    def end(self, signum: int = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(signum)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            # A server that is told to end while it reads a file waits for that thread for ever.
            self.process.kill()
            self.process.wait(DEADLINE)

    @contextmanager
    def running(self, *kernels: str) -> Iterator[Self]:
        """With its daemon and these kernels, enabled and listed; all of it ends with that."""
        try:
            self.scene.start(*kernels)
            self.command("jupyter", "enable", "--user")
            self.start()
            self.wait_listed(*kernels)
            yield self
            assert "could not be told" not in self.log.read_text()
        finally:
            self.clean_up()

    def clean_up(self) -> None:
        """End it, whatever it does, and all of its scene."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.scene.clean_up()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """A request with the token; status and JSON."""
        sent = {"Authorization": f"token {self.token}", "Content-Type": "application/json", **headers}
        content = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, method=method, headers=sent, data=content)
        try:
            with urllib.request.urlopen(request, timeout=PAGE_DEADLINE) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")

    def kernel(self, name: str) -> dict[str, Any]:
        """A kernel as the server lists it; empty if it does not."""
        return next((k for k in self.ask("GET", "/api/kernels")[1] if k["name"] == name), {})

    def wait_listed(self, *names: str) -> None:
        def listed() -> bool:
            found = {k["name"]: k["execution_state"] for k in self.ask("GET", "/api/kernels")[1]}
            return all(found.get(name) in ("idle", "busy") for name in names)

        wait_for(listed, lambda: f"{names} are listed: {self.ask('GET', '/api/kernels')[1]}")

    def notebook(self, path: str, kernel: str, *cells: str) -> None:
        """Write a notebook with these cells, for this kernel."""
        made = [
            {
                "cell_type": "code",
                "metadata": {},
                "source": s,
                "outputs": [],
                "execution_count": None,
                "id": f"cell-{n}",
            }
            for n, s in enumerate(cells or ("",))
        ]
        spec = {"name": kernel, "display_name": kernel, "language": "python"}
        content = {"cells": made, "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5}
        (self.root / path).write_text(json.dumps(content))


_STATE = """() => { const w = window.jupyterapp.shell.currentWidget;
  const s = w.sessionContext, k = s.session?.kernel;
  return {path: w.context?.path, id: k?.id, name: s.kernelDisplayName, status: k?.status,
    connection: k?.connectionStatus} }"""
_RUN = """async ([cell, code, wait]) => { const a = window.jupyterapp, w = a.shell.currentWidget;
  w.content.activeCellIndex = cell; if (code !== null) w.content.activeCell.model.sharedModel.setSource(code);
  const done = a.commands.execute('notebook:run-cell'); if (wait) await done; }"""
_WATCH = """() => { window.lost = false;
  window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.connectionStatusChanged.connect(
    (_, status) => { window.lost ||= status !== 'connected'; }) }"""
_OUTPUTS = "n => window.jupyterapp.shell.currentWidget.content.widgets[n].model.outputs.toJSON()"
_PROMPT = "n => window.jupyterapp.shell.currentWidget.content.widgets[n].model.executionState ?? ''"


class Page:
    """A notebook in a page of its own."""

    def __init__(self, browser: Browser, server: Server) -> None:
        self.server = server
        self.browser_page: BrowserPage = browser.new_page(viewport={"width": 1180, "height": 760})
        self.browser_page.set_default_timeout(PAGE_DEADLINE * 1000)

    def open(self, notebook: str) -> Page:
        self.browser_page.goto(f"{self.server.url}/lab/tree/{notebook}?token={self.server.token}&reset")
        self.wait_connected()
        return self

    def close(self) -> None:
        self.browser_page.close()

    def state(self) -> dict[str, Any]:
        try:
            return dict(self.browser_page.evaluate(_STATE))
        except Error:
            return {}  # not there yet

    def wait(
        self, condition: Callable[[], Any], what: str | Callable[[], str], deadline: float = DEADLINE
    ) -> float:
        """Wait for something of the page; how many seconds it took."""
        begun = time.monotonic()
        while not condition():
            if time.monotonic() - begun > deadline:
                told = what() if callable(what) else what
                raise AssertionError(f"not within {deadline:g} s: {told}; {self.state()}; {self.dialogs()}")
            self.browser_page.wait_for_timeout(20)
        return time.monotonic() - begun

    def wait_connected(self, *statuses: str, deadline: float = PAGE_DEADLINE) -> float:
        wanted = statuses or ("idle", "busy")

        def connected() -> bool:
            state = self.state()
            return state.get("connection") == "connected" and state.get("status") in wanted

        return self.wait(connected, f"connected and {wanted}", deadline)

    def watch_connection(self) -> None:
        """From now on it is kept whether the connection was lost."""
        self.browser_page.evaluate(_WATCH)

    def wait_connected_anew(self) -> float:
        """Wait until the connection was lost and is there again; how many seconds it took."""
        noticed = self.wait(
            lambda: self.browser_page.evaluate("window.lost"), "it has noticed", PAGE_DEADLINE
        )
        return noticed + self.wait_connected("idle")

    def begin(self, code: str | None, cell: int = 0) -> None:
        """Have a cell executed, and do not wait."""
        self.browser_page.evaluate(_RUN, [cell, code, False])

    def run(self, code: str | None, cell: int = 0) -> str:
        """Have a cell executed; what it gave."""
        self.browser_page.evaluate(_RUN, [cell, code, True])
        return self.text(cell)

    def outputs(self, cell: int = 0) -> list[dict[str, Any]]:
        return list(self.browser_page.evaluate(_OUTPUTS, cell))

    def text(self, cell: int = 0) -> str:
        found = []
        for output in self.outputs(cell):
            text = (
                output.get("text") or output.get("evalue") or output.get("data", {}).get("text/plain") or ""
            )
            name = f"{output['ename']}: " if output.get("ename") else ""
            found.append(name + ("".join(text) if isinstance(text, list) else text))
        return "".join(found).strip()

    def wait_text(self, pattern: str, cell: int = 0, deadline: float = DEADLINE) -> float:
        return self.wait(
            lambda: re.search(pattern, self.text(cell)), lambda: f"{pattern}: {self.text(cell)!r}", deadline
        )

    def prompt(self, cell: int = 0) -> str:
        """What is before the cell: ``[*]:`` while it is executed."""
        return (
            self.browser_page.locator(".jp-CodeCell")
            .nth(cell)
            .locator(".jp-InputPrompt")
            .inner_text()
            .strip()
        )

    def wait_ended(self, cell: int = 0, deadline: float = DEADLINE) -> float:
        """Wait until the cell shows no ``[*]``."""
        return self.wait(lambda: "*" not in self.prompt(cell), "the cell ends", deadline)

    def command(self, name: str) -> None:
        self.browser_page.evaluate(f"() => window.jupyterapp.commands.execute('{name}')")

    def dialogs(self) -> list[str]:
        return [d.inner_text() for d in self.browser_page.query_selector_all(".jp-Dialog-content")]

    def dismiss(self) -> None:
        for _ in range(5):
            buttons = self.browser_page.query_selector_all(".jp-Dialog-content .jp-mod-accept")
            if not buttons:
                return
            buttons[-1].click()
            self.browser_page.wait_for_timeout(100)

    def press(self, item: str) -> None:
        """Press a button of the notebook's toolbar."""
        self.browser_page.locator(
            f'[data-jp-item-name="{item}"] jp-button, [data-jp-item-name="{item}"] button'
        ).first.click()

    def accept(self) -> None:
        self.browser_page.locator(".jp-Dialog-content .jp-mod-accept").click()
