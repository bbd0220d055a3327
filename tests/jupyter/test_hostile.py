"""Clients, daemons and files that do what they should not: it costs nobody else anything."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import Any

from tests.e2e.daemon import wait_for
from tests.jupyter.lab import Server
from tests.jupyter.sockets import connect, execute, read_until, request

EVERY_CHARACTER = "Z.a_9-" * 10 + "Long"


def test_a_request_whose_id_is_no_text_hinders_no_record(serve: Server) -> None:
    async def work() -> None:
        client = await connect(serve)
        await client.write_message(request("1", id_="\ud800"), binary=True)
        await execute(client, "print('after' + 'wards')")
        client.close()

    asyncio.run(work())

    wait_for(lambda: "afterwards\n" in serve.command("replay", "robot", *at(serve)), "it is recorded")


def at(served: Server) -> tuple[str, str]:
    return "--socket", str(served.scene.socket)


def test_a_kernel_that_leaves_the_file_while_a_cell_runs_ends_it(serve: Server) -> None:
    scene, text = serve.scene, serve.scene.config.read_text()
    scene.config.write_text(text + scene.ipykernel("brief") + "\n")
    scene.wait_running("brief")
    serve.wait_listed("brief")

    async def work() -> list[Any]:
        client = await connect(serve, "brief")
        await client.write_message(request("import time; print('in it'); time.sleep(60)"), binary=True)
        await read_until(client, lambda message: "in it" in message.text)
        scene.config.write_text(text)
        return await read_until(client, lambda message: message.kind == "execute_reply")

    told = asyncio.run(work())

    assert "error" == told[-1].content["status"]
    assert "brief was stopped. it has left the file" in told[-1].content["evalue"]
    wait_for(lambda: not serve.kernel("brief"), "it is not listed")


def test_a_kernel_of_every_allowed_character_is_reached_by_its_name(serve: Server) -> None:
    scene, text, name = serve.scene, serve.scene.config.read_text(), EVERY_CHARACTER
    scene.config.write_text("\n".join([text, scene.ipykernel(f'"{name}"'), ""]))
    scene.wait_running(name)
    serve.wait_listed(name)

    serve.command("jupyter", "kernelspecs", "--user", *at(serve))
    program = (
        "import sys\nfrom jupyter_client.manager import start_new_kernel\n"
        "m, c = start_new_kernel(kernel_name=sys.argv[1])\n"
        "c.execute_interactive('import os; print(os.getpid())', timeout=30)\nm.shutdown_kernel()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, name],
        env=serve.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert scene.kernel(name)["id"] == serve.ask("POST", "/api/kernels", {"name": name})[1]["id"]
    assert str(scene.kernel(name)["pid"]) == done.stdout.strip()
    scene.config.write_text(text)
    wait_for(lambda: not serve.kernel(name), "it is not listed")
    serve.command("jupyter", "kernelspecs", "--user", *at(serve))


def test_a_daemon_that_hangs_is_told_and_holds_up_no_cell(serve: Server) -> None:
    assert serve.scene.daemon is not None
    daemon, path = serve.scene.daemon.pid, f"/api/kernels/{serve.kernel('robot')['id']}/interrupt"

    async def work() -> tuple[list[str], int]:
        client = await connect(serve)
        os.kill(daemon, signal.SIGSTOP)
        try:
            asked = asyncio.create_task(asyncio.to_thread(serve.ask, "POST", path))
            told = await execute(client, "print('goes on')")
            return [message.text for message in told if message.kind == "stream"], (await asked)[0]
        finally:
            os.kill(daemon, signal.SIGCONT)
            client.close()

    assert (["goes on\n"], 503) == asyncio.run(work())
    wait_for(lambda: 204 == serve.ask("POST", path)[0], "it answers again")
