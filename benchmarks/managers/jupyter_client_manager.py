"""jupyter_client's own manager and restarter, keeping as many kernels as it is told.

Called with a directory and a number.  At defaults, but for ``restart_limit``:
more than five deaths in a row are wanted here.
"""

import asyncio
import signal
import sys
from pathlib import Path

from jupyter_client.ioloop.manager import AsyncIOLoopKernelManager
from traitlets.config import Config


async def main(directory: Path, count: int) -> None:
    config = Config()
    config.KernelRestarter.restart_limit = 1_000_000
    managers = [
        AsyncIOLoopKernelManager(
            config=config, kernel_name="bench", connection_file=str(directory / f"kernel-k{number:02}.json")
        )
        for number in range(count)
    ]
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    output = (directory / "output.log").open("ab")
    for manager in managers:
        await manager.start_kernel(stdout=output, stderr=output)
    await stop.wait()
    await asyncio.gather(*(manager.shutdown_kernel(now=True) for manager in managers))


asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
