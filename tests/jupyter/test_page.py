"""The page in a real browser, served by ``kernel-supervisor serve``, on a real daemon."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from playwright.sync_api import Browser, Page, expect

from supervisor.core.model import Phase
from supervisor.wording import CAUSES, written
from tests.e2e.daemon import ROOT, Scene, send
from tests.jupyter.lab import PAGE_DEADLINE, Server
from tests.waiting import wait_for

HOSTILE = (
    "<img src=x onerror=alert(1)></script><script>document.title='owned'</script>\u202egnp.exe\x1b[31m&amp;"
)
TRAINING = "for epoch in range(40):\n    train(model, batches)"
PICTURES = os.environ.get("PICTURES")  # a directory: where the pictures of the documents are put


def ago(minutes: float) -> str:
    return written(datetime.now(UTC) - timedelta(minutes=minutes))


def past() -> list[dict[str, Any]]:
    """What a daemon of before has told of kernel a."""
    died = {
        "cause": "oom",
        "signal": "SIGKILL",
        "uptime": 1200.0,
        "output_tail": [HOSTILE],
        "detail": HOSTILE,
    }
    told = [
        (50, "kernel.starting", {"generation": 1, "pid": 7}),
        (49, "kernel.ready", {"took": 0.5}),
        (30, "kernel.died", died),
        (30, "kernel.restarting", {"attempt": 1, "delay": 60.0}),
        (29, "kernel.starting", {"generation": 2, "pid": 8}),
        (28, "kernel.ready", {"took": 0.5}),
        (20, "kernel.unresponsive", {"check": "heartbeat", "misses": 3}),
        (19, "kernel.responsive", {"check": "heartbeat"}),
        (10, "kernel.stopped", {"reason": "ordered"}),
    ]
    of_a = [(minutes, {"event": event, "kernel": "a", **fields}) for minutes, event, fields in told]
    trained = {"event": "kernel.died", "kernel": "b", "cause": "oom", "signal": "SIGKILL", "uptime": 900.0}
    lines = ["epoch 11  loss 0.3121", "epoch 12  loss 0.2987", "allocating batch buffer (4.0 MB) …"]
    of_b = [
        (55, {"event": "kernel.ready", "kernel": "b", "took": 0.7}),
        (
            40,
            {**trained, "output_tail": lines, "executing": {"count": 3, "since": ago(52), "code": TRAINING}},
        ),
        (39, {"event": "kernel.ready", "kernel": "b", "took": 0.7}),
        (24, {**trained, "output_tail": lines}),
        (23, {"event": "kernel.ready", "kernel": "b", "took": 0.7}),
    ]
    return [
        {"timestamp": ago(minutes), "seq": number, "generation": 1, **fields}
        for number, (minutes, fields) in enumerate(sorted(of_a + of_b, key=lambda item: -item[0]), 1)
    ]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    scene = Scene(tmp_path_factory.mktemp("page"))
    scene.write(
        scene.ipykernel("a"),
        scene.mini("b", heartbeat="{ interval = 0.2, misses = 2 }"),
        scene.ipykernel("telling", warm_start='"prepared"'),
    )
    scene.state_dir.mkdir(mode=0o700)
    lines = "".join(json.dumps(event) + "\n" for event in past())
    (scene.state_dir / "events.jsonl").write_text(lines)
    token = scene.directory / "token"
    server = Server(scene, "-m", "supervisor", "serve", "--token-file", str(token))
    try:
        scene.start("a", "b", "telling")
        server.start_with_token(token)
        yield server
    finally:
        server.clean_up()


TIDY = """(pairs) => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) for (const [old, now] of pairs) walker.currentNode.data = walker.currentNode.data.replaceAll(old, now);
}"""  # noqa: E501


class Look:
    """A page, what it said to the console, and where it asked."""

    def __init__(self, browser: Browser, server: Server, **how: Any) -> None:
        size = {"width": how.pop("width", 1280), "height": 900}
        self.context = browser.new_context(viewport=size, timezone_id="UTC", **how)
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(PAGE_DEADLINE * 1000)
        self.said: list[str] = []
        self.asked: set[str] = set()
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append("a dialog was opened"))
        self.page.on("request", lambda request: self.asked.add(request.url.split("/")[2]))
        self.directory = server.scene.directory
        self.url = f"{server.url}/supervisor/?token={server.token}"

    def open(self, place: str = "") -> Page:
        self.page.goto(self.url + place)
        self.page.wait_for_selector("main > section")
        wait_for(lambda: self.page.evaluate("page.isCurrent"), deadline=PAGE_DEADLINE)
        return self.page

    def picture(self, name: str) -> None:
        """A picture for the documents, without the directories of the machine."""
        if PICTURES:
            self.page.wait_for_timeout(2000)  # what the page still asks for has come
            self.page.evaluate("page.beat = () => {}")
            self.page.evaluate(
                TIDY, [[str(self.directory), "/srv/lab"], [sys.prefix, "/opt/kernels"], [str(ROOT), "/opt"]]
            )
            self.page.screenshot(path=str(Path(PICTURES) / name))
            self.page.evaluate("delete page.beat")


@pytest.fixture
def look(browser: Browser, served: Server) -> Iterator[Look]:
    made = Look(browser, served)
    yield made
    made.context.close()
    assert [] == made.said
    assert {served.url.split("/")[2]} >= made.asked, "no request leaves the machine"


def test_a_death_appears_with_its_cause_and_the_restart_follows(look: Look, served: Server) -> None:
    page = look.open()
    before = served.scene.kernel("b")

    os.kill(before["pid"], signal.SIGKILL)

    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="b", exact=True))
    expect(row.locator(".c-death")).to_contain_text("SIGKILL", timeout=PAGE_DEADLINE * 1000)
    expect(row.locator(".c-state")).to_contain_text("running", timeout=PAGE_DEADLINE * 1000)
    look.picture("page.png")


# When the row of b tells one restart more, and the death before it.
WATCH = """(restarts) => {
  const row = page.list.rows.get('b').element, text = (part) => row.querySelector(part).textContent;
  const isTold = () => text('.c-runs') !== restarts && text('.c-death').startsWith('SIGKILL, 0 s');
  window.seen = new Promise((resolve) => {
    new MutationObserver(() => { if (isTold()) resolve(Date.now()); }).observe(row, { characterData: true, subtree: true });
  });
}"""  # noqa: E501


def test_a_death_appears_within_a_second(look: Look, served: Server) -> None:
    page, took = look.open(), []
    for _ in range(3):  # the quickest counts: the machine may be busy with something else
        before = served.scene.kernel("b")
        expect(page.locator(".rows .row").filter(has_text="SIGKILL")).to_contain_text("running")
        page.evaluate(WATCH, str(before["restarts"]))

        os.kill(before["pid"], signal.SIGKILL)

        seen = page.evaluate("window.seen")
        died = served.scene.wait_event("kernel.died", kernel="b", generation=before["generation"])
        took.append(seen / 1000 - datetime.fromisoformat(died["timestamp"]).timestamp())
        served.scene.wait_running("b", after=before["generation"])
    assert 0.0 < min(took) < 1.0, took


# How tall what is drawn of the band of a kernel is at an instant, in pixels.
TALL = """(at) => {
  const lane = document.querySelector('canvas.lane'), { start, end } = page.window(), rows = new Set();
  const x = Math.round(((at - start) / (end - start)) * lane.width), top = Math.round(56 * 0.66) - 7;
  const { data } = lane.getContext('2d').getImageData(x, top, 3, 14);
  for (let i = 3; i < data.length; i += 4) if (data[i]) rows.add(Math.floor(i / 12));
  return rows.size;
}"""


def test_the_timeline_of_the_history_is_drawn(look: Look, served: Server) -> None:
    page = look.open("#/kernel/a")
    expect(page.locator("canvas.lane")).to_have_attribute("aria-label", re.compile("Timeline: "))
    told = [event for event in served.scene.events(kernel="a") if event.get("seq", 0) < 20]
    instants = [datetime.fromisoformat(event["timestamp"]).timestamp() + 30 for event in told]

    tall = [
        (event["event"], page.evaluate(TALL, at * 1000)) for event, at in zip(told, instants, strict=True)
    ]

    assert 0 == page.evaluate(TALL, (instants[0] - 120) * 1000), "nothing is known of then"
    expected = {
        "kernel.starting": 2,  # two lines
        "kernel.ready": 4,
        "kernel.restarting": 4,  # dashes
        "kernel.unresponsive": 12,
        "kernel.responsive": 4,
        "kernel.stopped": 2,
    }
    assert [(name, expected[name]) for name, _ in tall if name in expected] == [
        (name, height) for name, height in tall if name in expected
    ]


def test_the_timeline_is_that_of_the_history(look: Look) -> None:
    page = look.open()

    states = page.evaluate("page.model.kernels.get('a').bands.map((band) => band.state)")
    expected = ["starting", "running", "backoff", "starting", "running", "unresponsive", "running", "stopped"]
    assert expected == states[: len(expected)]
    assert 1 == page.evaluate("page.model.kernels.get('a').deaths.length")
    lane = page.locator("canvas.lane").first
    lane.focus()
    for _ in range(20):
        lane.press("ArrowLeft")
    page.get_by_role("button", name="24 h").click()
    assert "Nothing earlier in view" == page.locator("#said").inner_text()


def test_the_past_changes_nothing_of_what_is_so(look: Look, served: Server) -> None:
    page = look.open()

    for name in ("a", "b"):
        kernel = served.scene.kernel(name)
        seen = page.evaluate(f"page.model.kernels.get('{name}').view")
        for key in ("phase", "pid", "generation", "restarts", "last_death", "since"):
            assert kernel[key] == seen[key], (name, key)
    assert "b" == page.locator(".rows .row a").first.inner_text(), "the worst first"


def test_what_it_executed_as_it_died_is_told_and_a_busy_band(look: Look) -> None:
    page = look.open("#/kernel/b")

    expect(page.locator(".history")).to_contain_text("was executing In [3] for 12 min: for epoch in")
    assert [12 * 60] == page.evaluate(
        "page.model.kernels.get('b').busy.map(({ at, to }) => Math.round((to - at) / 1000))"
    )
    lane = page.locator("canvas.lane")
    assert "busy for 12 min in view" in (lane.get_attribute("aria-label") or "")
    lane.focus()
    for _ in range(20):
        lane.press("ArrowLeft")
    expect(page.locator("#tip")).to_contain_text("running for 15 min")
    expect(page.locator("#tip")).to_contain_text("busy for 12 min of it")
    expect(page.locator(".legend")).to_contain_text("busy, where it is known")


# Whether the lane is drawn above the thin line of a kernel that runs, at an instant.
IS_THICK = """(at) => {
  const lane = document.querySelector('canvas.lane'), { start, end } = page.window();
  const x = ((at - start) / (end - start)) * lane.width, y = (Math.round(56 * 0.66) - 3) * devicePixelRatio;
  return lane.getContext('2d').getImageData(x, y, 1, 1).data[3] > 0;
}"""


def test_what_it_executes_is_a_busy_band_also_after_a_reload_and_a_new_server(
    look: Look, served: Server
) -> None:
    def spans() -> list[list[float]]:
        page.evaluate("page.measure()")
        found = page.evaluate("page.model.kernels.get('a').busy.map(({ at, to }) => [at, to])")
        return list(found)

    begun = time.time() * 1000
    served.scene.execute("a", "import time; time.sleep(3)")
    page = look.open("#/kernel/a")
    wait_for(spans, deadline=PAGE_DEADLINE)
    [[at, to]] = spans()
    assert begun <= at
    assert 2000 < to - at, "as the server heard it, which may be late"
    page.get_by_role("button", name="10 min").click()
    assert page.evaluate(IS_THICK, (at + to) / 2)
    assert not page.evaluate(IS_THICK, at - 4000), "where nothing is known, nothing is shown"

    with served.scene.client("a") as client:
        send(client, "time.sleep(60)")
        wait_for(lambda: 2 == len(spans()), "it goes on", PAGE_DEADLINE)
        served.end()
        served.start_with_token(served.scene.directory / "token")
        served.wait_listed("a")
        page.goto("about:blank")
        page = look.open("#/kernel/a")
        wait_for(spans, deadline=PAGE_DEADLINE)
        assert 1 == len(spans()), "this server has not heard that it goes on"
        served.scene.order("interrupt", "a")
        wait_for(lambda: 2 == len(spans()), "its begin was on record", PAGE_DEADLINE)

    assert at == spans()[0][0]


def test_a_death_ends_what_was_executed(look: Look, served: Server) -> None:
    page = look.open("#/kernel/a")
    before = served.scene.kernel("a")
    known = len(served.ask("GET", "/supervisor/busy?kernel=a")[1]["busy"]["a"])
    with served.scene.client("a") as client:
        send(client, "import time; time.sleep(60)")
        wait_for(lambda: len(served.ask("GET", "/supervisor/busy?kernel=a")[1]["busy"]["a"]) > known)

        os.kill(before["pid"], signal.SIGKILL)
        served.scene.wait_running("a", after=before["generation"])

    died = datetime.fromisoformat(served.scene.events("kernel.died", kernel="a")[-1]["timestamp"])
    [_, ended] = served.ask("GET", "/supervisor/busy?kernel=a")[1]["busy"]["a"][-1]
    assert 2.0 > abs(ended - died.timestamp())
    assert page.evaluate("page.model.kernels.get('a').deaths.length") > 1


def test_busy_is_asked_for_in_numbers_and_of_kernels_that_there_are(served: Server) -> None:
    assert 400 == served.ask("GET", "/supervisor/busy?kernel=a&since=yesterday")[0]
    assert (200, {"busy": {}}) == served.ask("GET", "/supervisor/busy?kernel=nobody")


def test_a_kernel_tells_its_deaths_its_settings_and_its_output(look: Look, served: Server) -> None:
    log = served.scene.state_dir / "output" / "a.log"
    with log.open("a") as output:
        output.write(f"{HOSTILE}\n")

    page = look.open("#/kernel/a")

    expect(page.locator(".history")).to_contain_text("Ran out of memory")
    expect(page.locator(".history .tail").filter(has_text="<img src=x")).to_have_count(1)
    expect(page.locator("pre[aria-label=Output]")).to_contain_text("<img src=x")
    expect(page.locator(".settings").first).to_contain_text("argv")
    with log.open("a") as output:
        output.write("one line more\n")
    expect(page.locator("pre[aria-label=Output]")).to_contain_text("one line more")
    made_of_text = "document.querySelectorAll('main img, main script, #tip img, dialog img').length"
    assert 0 == page.evaluate(made_of_text)
    assert not page.evaluate(r"/[\u202e\x1b]/.test(document.body.innerText)")
    assert "owned" not in page.title()


def test_output_that_falls_silent_is_asked_for_anew(look: Look, served: Server) -> None:
    asked: list[str] = []

    def hang_once(route: Any) -> None:
        asked.append(route.request.url)
        if len(asked) > 1:
            route.continue_()

    look.page.clock.install()
    look.page.route("**/kernels/a/output?*", hang_once)
    page = look.open("#/kernel/a")
    wait_for(lambda: page.evaluate("true") and asked, deadline=PAGE_DEADLINE)  # which lets it ask
    page.clock.fast_forward(31_000)
    page.clock.fast_forward(3_000)
    with (served.scene.state_dir / "output" / "a.log").open("a") as output:
        output.write("heard after the silence\n")

    expect(page.locator("pre[aria-label=Output]")).to_contain_text("heard after the silence")
    assert 2 == len(asked)


def test_an_order_is_given_after_a_question_and_once(look: Look, served: Server) -> None:
    page = look.open("#/kernel/b")
    before = served.scene.kernel("b")["generation"]
    page.set_viewport_size({"width": 1280, "height": 1000})
    look.picture("page-kernel.png")

    page.get_by_role("button", name="Restart…").click()
    assert "Leave it" == page.evaluate("document.activeElement.textContent")
    expect(page.get_by_role("dialog")).to_contain_text("All variables and imports in its memory")
    page.get_by_role("button", name="Restart", exact=True).click()

    wait_for(lambda: served.scene.kernel("b")["generation"] == before + 1, deadline=PAGE_DEADLINE)
    expect(page.locator(".facts").first).to_contain_text(f"{before + 1}, pid")


def refused(served: Server, path: str, body: bytes | None = None, **headers: str) -> int:
    request = urllib.request.Request(f"{served.url}/supervisor/{path}", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=PAGE_DEADLINE) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_nobody_without_the_token_sees_or_orders_anything(look: Look, served: Server) -> None:
    for path in ("v1/status", "v1/events", "metrics", "busy?kernel=a"):
        assert 403 == refused(served, path), path
    assert 403 == refused(served, "v1/kernels/a/restart", b"{}")
    assert 403 == refused(served, "v1/status", Authorization="token wrong")
    look.open()
    cookies = "; ".join(f"{c['name']}={c['value']}" for c in look.context.cookies() if c["name"] != "_xsrf")
    assert 200 == refused(served, "v1/status", Cookie=cookies)
    assert 403 == refused(served, "v1/kernels/a/restart", b"{}", Cookie=cookies)
    known = {"Authorization": f"token {served.token}"}
    assert 403 == refused(served, "v1/shutdown", b"{}", **known)
    assert 200 == refused(served, "metrics", **known)
    assert served.token not in look.page.content()


SMUGGLED = "status%20HTTP/1.1%0D%0AHost:%20localhost%0D%0A%0D%0APOST%20/v1/detach"


@pytest.mark.parametrize(
    "path", ["detach", "detach%3Fx=1", "%64etach", "%2564etach", "status/%2e%2e/detach", SMUGGLED]
)
@pytest.mark.parametrize("body", [None, b"{}"], ids=["GET", "POST"])
def test_no_spelling_of_a_path_ends_the_daemon(served: Server, path: str, body: bytes | None) -> None:
    known = {"Authorization": f"token {served.token}"}

    assert refused(served, f"v1/{path}", body, **known) in (403, 404, 405)

    assert "running" == served.scene.kernel("a")["phase"]
    assert served.scene.daemon is not None
    assert served.scene.daemon.poll() is None
    assert [] == served.scene.events("daemon.detached")


INTRUDE = """async () => {
  const refused = new Set(), script = document.createElement('script'), image = new Image();
  document.addEventListener('securitypolicyviolation', (event) => refused.add(event.effectiveDirective));
  script.textContent = 'window.isIn = true';
  image.setAttribute('onerror', 'window.isIn = true');
  image.src = 'http://127.0.0.2:9/x';
  document.body.append(script, image);
  await fetch('http://127.0.0.2:9/').catch(() => {});
  while (refused.size < 4) await new Promise((resolve) => setTimeout(resolve, 10));
  return [...refused].sort();
}"""


def test_the_policy_of_the_page_lets_nothing_in_nor_out(look: Look) -> None:
    policies = []
    look.page.on("response", lambda answer: policies.append(answer.headers["content-security-policy"]))
    page = look.open()

    refused = page.evaluate(INTRUDE)

    assert ["connect-src", "img-src", "script-src-attr", "script-src-elem"] == refused
    assert page.evaluate("window.isIn") is None
    assert policies
    assert not any("unsafe" in policy for policy in policies)
    look.asked.discard("127.0.0.2:9")  # which the browser refused


def test_a_daemon_that_has_gone_is_shown_and_the_page_comes_back_by_itself(
    look: Look, served: Server
) -> None:
    page = look.open("#/kernel/a")
    served.scene.command("detach")

    expect(page.locator("#away")).to_contain_text("No daemon has answered for")
    expect(page.get_by_role("button", name="Restart…")).to_be_disabled()

    served.scene.start("a", "b")
    expect(page.locator("#away")).to_be_hidden(timeout=PAGE_DEADLINE * 1000)
    expect(page.get_by_role("button", name="Restart…")).to_be_enabled()
    seen = page.evaluate("page.model.edits.map(({ event }) => event.seq)")
    assert sorted(set(seen)) == seen, "resumed without a double"


def test_a_daemon_that_is_frozen_is_shown_and_goes_on(look: Look, served: Server) -> None:
    page = look.open()
    assert served.scene.daemon is not None
    served.scene.daemon.send_signal(signal.SIGSTOP)
    try:
        page.evaluate("page.measure()")
        expect(page.locator("#away")).to_contain_text("No daemon has answered", timeout=PAGE_DEADLINE * 1000)
        assert "503" == page.locator("#away").get_attribute("data-why")
    finally:
        served.scene.daemon.send_signal(signal.SIGCONT)

    expect(page.locator("#away")).to_be_hidden(timeout=PAGE_DEADLINE * 1000)


def test_a_token_that_has_expired_and_a_server_that_has_gone_are_told_from_a_daemon_that_has(
    look: Look, served: Server
) -> None:
    page, away = look.open(), look.page.locator("#away")
    look.context.clear_cookies()
    page.evaluate("page.measure()")
    expect(away).to_contain_text("Sign in again", use_inner_text=True, timeout=PAGE_DEADLINE * 1000)
    page = look.open()
    expect(away).to_be_hidden()

    served.end()

    told = "The server of this page has not answered"
    expect(away).to_contain_text(told, use_inner_text=True, timeout=PAGE_DEADLINE * 1000)
    served.start_with_token(served.scene.directory / "token")
    expect(away).to_be_hidden(timeout=PAGE_DEADLINE * 1000)


SHOW = """(hidden) => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
  document.dispatchEvent(new Event('visibilitychange')); }"""


def test_a_hidden_tab_has_no_connection_and_misses_nothing(look: Look, served: Server) -> None:
    page = look.open("#/kernel/b")
    ended: list[str] = []
    page.on("requestfailed", lambda request: ended.append(request.url))
    wait_for(lambda: "GET" == page.evaluate("document.querySelector('.settings') && 'GET'"))
    page.evaluate(SHOW, True)
    wait_for(
        lambda: (
            page.evaluate("1") and {"events", "output"} <= {url.split("?")[0].split("/")[-1] for url in ended}
        )
    )
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    before = served.scene.kernel("b")

    os.kill(before["pid"], signal.SIGKILL)
    served.scene.wait_running("b", after=before["generation"])
    page.evaluate("page.measure()")
    assert [] == asked
    page.evaluate(SHOW, False)

    expect(page.locator(".facts").first).to_contain_text(f"{before['generation'] + 1}, pid")
    expect(page.locator("#away")).to_be_hidden()
    died = served.scene.events("kernel.died", kernel="b")[-1]["seq"]
    seen = "page.model.kernels.get('b').deaths.map(({ event }) => event.seq)"
    wait_for(lambda: died in page.evaluate(seen), "the death is told", PAGE_DEADLINE)
    numbers = page.evaluate(seen)
    assert sorted(set(numbers)) == numbers


JUDGE = """async (view) => {
  const { Kernel } = await import('./static/model.js'), kernel = new Kernel('x'), { BANDS } = await import('./static/lane.js');
  const { ORDERS } = await import('./static/kernel.js');
  Object.assign(kernel.view, view);
  kernel.judge(0);
  const { state, icon, rank } = kernel;
  return rank >= 0 && document.getElementById(`i-${icon}`) !== null && state in BANDS && state in ORDERS;
}"""  # noqa: E501


def test_every_phase_has_a_symbol_a_band_orders_and_a_place_among_the_others(look: Look) -> None:
    page = look.open()
    names = {phase.__name__.lower() for phase in get_args(Phase)} - {"queued"}
    views = [{"phase": name} for name in names] + [{"phase": "running", "health": "unresponsive"}]

    assert "waiting" in names
    assert [] == [view for view in views if not page.evaluate(JUDGE, view)]


def test_mistakes_of_an_edit_are_shown_with_their_line(look: Look, served: Server) -> None:
    page = look.open("#/file")
    text = served.scene.config.read_text()
    served.scene.config.write_text(f'{text}restrat = "never"\n')

    expect(page.locator("h1")).to_contain_text("1 mistake in the file", timeout=PAGE_DEADLINE * 1000)
    expect(page.locator(".mistake")).to_contain_text('no such key; did you mean "restart"?')
    expect(page.locator(".mistake")).to_contain_text("line ")
    served.scene.config.write_text(text)
    expect(page.locator("h1")).to_contain_text("The file is in force", timeout=PAGE_DEADLINE * 1000)


def test_two_hundred_kernels_are_rows_of_which_only_those_in_view_are_drawn(look: Look) -> None:
    def many(route: Any) -> None:
        status = route.fetch().json()
        names = [HOSTILE, *(f"k{number:03}" for number in range(1, 200))]
        status["kernels"] = [{**status["kernels"][0], "name": name} for name in names]
        route.fulfill(json=status)

    look.page.route("**/v1/status", many)
    page = look.open()

    expect(page.locator(".rows .row")).to_have_count(200)
    drawn = page.evaluate("[...page.list.rows.values()].filter((row) => row.lane.canvas.width).length")
    assert 0 < drawn < 100
    page.get_by_label("Filter by name or cause").fill("k11")
    expect(page.locator(".rows .row")).to_have_count(10)
    page.get_by_label("Filter by name or cause").fill("<img")
    page.locator(".rows .row a").click()
    expect(page.locator("h1")).to_contain_text("<img src=x")
    assert 0 == page.evaluate("document.querySelectorAll('main img, main script').length")


@pytest.mark.parametrize("width", [360, 640, 1100, 1920])
def test_nothing_runs_over_the_edge_of_a_screen(browser: Browser, served: Server, width: int) -> None:
    look = Look(browser, served, width=width)
    for place in ("", "#/kernel/a", "#/file"):
        page = look.open(place)
        assert 0 >= page.evaluate("document.documentElement.scrollWidth - innerWidth"), place
    if width == 360:
        look.open()
        look.picture("page-phone.png")
    look.context.close()


UNNAMED = """[...document.querySelectorAll('button,a,input,select,canvas[tabindex],[role=img]')]
  .filter((e) => !(e.getAttribute('aria-label') || e.textContent.trim())).map((e) => e.outerHTML)"""
CONTRAST = """(() => {
  const style = getComputedStyle(document.documentElement), low = [];
  const light = (name) => [1, 3, 5].map((i) => parseInt(style.getPropertyValue(`--${name}`).trim().slice(i, i + 2), 16) / 255)
    .map((x) => (x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)).reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
  const check = (names, grounds, least) => names.forEach((name) => grounds.forEach((ground) => {
    const [a, b] = [light(name), light(ground)].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < least) low.push([name, ground]);
  }));
  check(['text', 'muted', 'link', 'warn-text', 'bad-text', 'ok-text'], ['ground', 'surface', 'hover', 'raised'], 4.5);
  check(['warn-text', 'text', 'muted'], ['warn-soft'], 4.5);
  check(['bad-text', 'text', 'muted'], ['bad-soft'], 4.5);
  check(['ok', 'start', 'warn', 'bad', 'off', 'edit', 'line-strong'], ['surface', 'hover'], 3);
  return low;
})()"""  # noqa: E501


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_can_be_read_and_all_that_can_be_used_has_a_name(
    browser: Browser, served: Server, scheme: Any
) -> None:
    look = Look(browser, served, color_scheme=scheme)
    for place in ("", "#/kernel/a", "#/file"):
        assert [] == look.open(place).evaluate(UNNAMED)
    assert [] == look.page.evaluate(CONTRAST)
    look.context.close()


def test_causes_have_the_words_of_the_command_line(look: Look) -> None:
    page = look.open()

    words = page.evaluate(
        "import('./static/words.js').then(({ CAUSES }) =>"
        " Object.fromEntries(Object.entries(CAUSES).map(([cause, [word]]) => [cause, word])))"
    )

    assert dict(CAUSES) == words
