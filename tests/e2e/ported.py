"""Programs that were written for jupyter_client, with one import changed; each ends with "well".

They are run, and mypy reads them as a user's own.
"""

from __future__ import annotations

FIFTY_IN_THREADS = """
import threading
import pytest
from supervisor import KernelManager

@pytest.fixture
def kernel(request: pytest.FixtureRequest) -> KernelManager:
    manager = KernelManager(kernel_cmd=COMMAND)
    request.addfinalizer(lambda: manager.shutdown_kernel(now=True))
    return manager

def test_one(kernel: KernelManager) -> None:
    kernel.start_kernel()
    assert kernel.is_alive()

def test_many() -> None:
    failed: list[BaseException] = []

    def live(number: int) -> None:
        try:
            with KernelManager(kernel_cmd=COMMAND) as manager:
                manager.start_kernel()
                client = manager.client()
                client.start_channels()
                try:
                    client.wait_for_ready(timeout=100)
                    client.execute(f"{number} + 1", reply=True, timeout=60)
                finally:
                    client.stop_channels()
                manager.shutdown_kernel(now=number % 2 == 0)
                assert not manager.is_alive()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=live, args=(number,)) for number in range(COUNT)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == failed

if __name__ == "__main__":
    assert 0 == pytest.main(["-q", "-p", "no:cacheprovider", __file__])
    print("well")
"""

SERVER = """
import asyncio
from supervisor import AsyncKernelManager, start_new_async_kernel

async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    manager = AsyncKernelManager(kernel_cmd=COMMAND)
    await manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=100)
        told: list[str] = []
        await client.execute_interactive(
            (await reader.readline()).decode(), timeout=60,
            output_hook=lambda message: told.append(
                str(message["content"].get("data", {}).get("text/plain", ""))
            ),
        )
        writer.write("".join(told).encode())
    finally:
        client.stop_channels()
        await manager.shutdown_kernel(now=True)
        writer.close()

async def ask(port: int, number: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{number} * 2\\n".encode())
    answer = await reader.read()
    assert str(number * 2).encode() == answer, answer
    writer.close()

async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await asyncio.gather(*(ask(port, number) for number in range(COUNT)))
    manager, client = await start_new_async_kernel(kernel_cmd=COMMAND)
    assert await manager.is_alive() and await client.is_alive()
    client.stop_channels()
    await manager.shutdown_kernel()

asyncio.run(main())
print("well")
"""

FRONT_END = """
import queue
import signal
from typing import Any
from jupyter_client.threaded import ThreadedKernelClient, ThreadedZMQSocketChannel
from supervisor import KernelManager

said: queue.Queue[tuple[str, Any]] = queue.Queue()

class Channel(ThreadedZMQSocketChannel):
    def call_handlers(self, msg: dict[str, Any]) -> None:
        said.put((msg["msg_type"], msg["content"]))

class Client(ThreadedKernelClient):
    iopub_channel_class = shell_channel_class = Channel

class FrontEnd:
    def __init__(self) -> None:
        self.manager = KernelManager(kernel_cmd=COMMAND, client_class=Client)
        self.manager.add_restart_callback(self.restarting, "restart")
        self.manager.add_restart_callback(self.dead, "dead")
        self.manager.start_kernel()
        self.client: Any = self.manager.client()
        self.client.start_channels()

    def restarting(self) -> None:
        end = self.manager.last_exit
        said.put(("the kernel died, restarting", end and end.signal))

    def dead(self) -> None:
        said.put(("dead", None))

    def wait(self, kind: str) -> Any:
        while True:
            found, content = said.get(timeout=100)
            if found == kind:
                return content

front_end = FrontEnd()
manager, client = front_end.manager, front_end.client
manager.wait_ready(100)

def ask() -> Any:
    while True:  # a subscription comes a moment after the connection
        client.execute("6 * 7")
        try:
            while True:
                found, content = said.get(timeout=2)
                if found == "execute_result":
                    return content
        except queue.Empty:
            pass

assert "42" == ask()["data"]["text/plain"]
assert client.is_alive()
manager.signal_kernel(signal.SIGKILL)
assert "SIGKILL" == front_end.wait("the kernel died, restarting")
manager.wait_ready(100)
assert "42" == ask()["data"]["text/plain"]
manager.restart_kernel()
client.stop_channels()
manager.shutdown_kernel()
assert not client.is_alive()
print("well")
"""

NOTEBOOK = """
import sys
import time
from typing import Any
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError
from supervisor import AsyncKernelManager, KernelManager

class Client(NotebookClient):
    kernel_manager_class: Any = AsyncKernelManager

class Once(AsyncKernelManager):
    autorestart = False

def notebook(*cells: str) -> Any:
    new: Any = nbformat.v4
    return new.new_notebook(cells=[new.new_code_cell(cell) for cell in cells])

def run(kind: str, *cells: str) -> Any:
    content = notebook(*cells)
    if kind == "class":
        Client(content, timeout=60).execute()
        return content
    manager: Any = {
        "given": AsyncKernelManager, "once": Once,
        "plain": lambda: KernelManager(client_class="jupyter_client.asynchronous.AsyncKernelClient"),
    }[kind]()
    try:
        NotebookClient(content, km=manager, timeout=60).execute()
    finally:
        drive(manager.shutdown_kernel(now=True))
    return content

def drive(awaitable: Any) -> None:
    from jupyter_core.utils import ensure_async, run_sync
    run_sync(ensure_async)(awaitable)

for kind in KINDS:
    assert "42\\n" == run(kind, "x = 42", "print(x)").cells[1].outputs[0].text
    for last_words in ("import os; os.kill(os.getpid(), 9)", "import os; os._exit(0)"):
        began = time.monotonic()
        try:
            note = f"import time; open({sys.argv[1]!r}, 'w').write(str(time.monotonic()))\\n"
            run(kind, note + last_words, "1")
        except DeadKernelError:
            took = time.monotonic() - float(open(sys.argv[1]).read())
            print(kind, f"{took:.1f} s")
            assert took < 5
        else:
            raise AssertionError("a death in a cell is an error")
print("well")
"""

PAPERMILL = """
import sys
from typing import Any
import nbformat
import papermill  # type: ignore[import-untyped]
from nbclient.exceptions import DeadKernelError
from papermill.clientwrap import PapermillNotebookClient  # type: ignore[import-untyped]
from papermill.engines import NBClientEngine, papermill_engines  # type: ignore[import-untyped]
from supervisor import AsyncKernelManager

class Client(PapermillNotebookClient):  # type: ignore[misc]
    kernel_manager_class: Any = AsyncKernelManager

class Engine(NBClientEngine):  # type: ignore[misc]
    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **keywords: Any) -> Any:
        return Client(nb_man, kernel_name=kernel_name, log=papermill.engines.logger).execute()

papermill_engines.register("supervised", Engine)

def execute(cell: str) -> Any:
    new: Any = nbformat.v4
    parameters = new.new_code_cell("x = 0", metadata={"tags": ["parameters"]})
    source = new.new_notebook(cells=[parameters, new.new_code_cell(cell)])
    source.metadata.kernelspec = {"name": "python3", "language": "python", "display_name": "Python"}
    with open(sys.argv[1], "w") as file:
        file.write(new.writes(source))
    return papermill.execute_notebook(
        sys.argv[1], sys.argv[1] + ".out.ipynb", {"x": 41}, engine_name="supervised", progress_bar=False
    )

assert "42\\n" == execute("print(x + 1)").cells[-1].outputs[0].text
try:
    execute("import os; os.kill(os.getpid(), 9)")
except DeadKernelError:
    print("well")
"""

MANY = """
import asyncio
from supervisor import AsyncMultiKernelManager, KernelManager, MultiKernelManager

class Small(KernelManager):
    kernel_cmd = COMMAND

managers = MultiKernelManager(kernel_manager_class=Small)
ids = [managers.start_kernel(kernel_name="python3") for _ in range(3)]
assert ids == managers.list_kernel_ids() and ids[0] in managers
manager: KernelManager = managers.get_kernel(ids[0])
managers.add_restart_callback(ids[0], lambda: None)
managers.restart_kernel(ids[0])
alive: bool = managers.is_alive(ids[0])
managers.shutdown_kernel(ids[0], now=True)
managers.shutdown_all()
assert 0 == len(managers)

async def main() -> None:
    many = AsyncMultiKernelManager()
    one: str = await many.start_kernel(kernel_id="one", kernel_cmd=COMMAND)
    assert await many.is_alive(one)
    assert (await many.get_kernel(one).is_alive()) is True
    await many.restart_kernel(one, now=True)
    await many.shutdown_all(now=True)

asyncio.run(main())
print("well")
"""

LAUNCH = """
import asyncio
import os
import subprocess
from jupyter_client.launcher import launch_kernel
from supervisor import KernelManager
from supervisor.kernel.subproc import KernelManager as Run

class Engine(KernelManager):
    \"\"\"Launches by itself, as ipyparallel's engines are.\"\"\"

    async def launch(self) -> Run:
        self.write_connection_file()
        popen: subprocess.Popen[bytes] = launch_kernel(self.format_kernel_cmd(), cwd="/", independent=False)
        return Run(popen, files_to_cleanup=[self.connection_file])

async def main() -> None:
    engines = [Engine(kernel_cmd=COMMAND, kernel_id=f"engine-{number}") for number in range(3)]
    runs = [await engine.launch() for engine in engines]
    for engine, run in zip(engines, runs):
        client = engine.blocking_client()
        client.start_channels()
        await asyncio.to_thread(client.wait_for_ready, timeout=100)
        client.stop_channels()
        assert await run.is_alive()
        run.log.debug("%s", run.files_to_cleanup)
        await run.kill()
        assert not await run.wait()
        await run.cleanup()
        assert not os.path.exists(engine.connection_file)

asyncio.run(main())
print("well")
"""

PROGRAMS = {
    "fifty in threads": FIFTY_IN_THREADS,
    "server": SERVER,
    "front end": FRONT_END,
    "notebook": NOTEBOOK,
    "papermill": PAPERMILL,
    "many": MANY,
    "launch": LAUNCH,
}
