"""In which way the current run of one kernel is interrupted, which no record tells.

Owns the look-up of what the settings or else the kernelspec say, and the tries
of one that failed for a passing reason.  Interrupts nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from supervisor.disk.errand import Steps
from supervisor.kernel.equipment import Launcher
from supervisor.kernel.launch import LaunchError
from supervisor.kernel.run import Run
from supervisor.settings.config import KernelConfig

log = logging.getLogger(__name__)

# How long an interrupt waits to learn in which way an adopted kernel is interrupted, in seconds.
MODE_PATIENCE = 3.0
# How often what could not be looked up is looked up again, in seconds.
MODE_INTERVAL = 5.0
# As long as nobody knows: a kernel that does not take messages ignores one, but SIGINT ends a JVM.
HARMLESS = "message"


class InterruptMode:
    """What is known of it, for the run that is the current one."""

    def __init__(
        self,
        kernel: str,
        launcher: Launcher,
        settings: Callable[[], KernelConfig | None],
        is_passing: Callable[[Exception], bool],
    ) -> None:
        self._kernel = kernel
        self._launcher = launcher
        # Those in force; ``is_passing`` of a failure: nothing is known to be missing.
        self._settings = settings
        self._is_passing = is_passing
        self._told = asyncio.Event()
        self._told.set()
        self._trying: asyncio.Task[None] | None = None

    def expect(self) -> None:
        """From now on whoever wants to interrupt waits, until ``settle``, or ``learn`` has looked."""
        self._told.clear()

    def settle(self) -> None:
        """Nobody is to wait any longer."""
        self._told.set()

    async def wait(self) -> None:
        """Return once it has been looked up, or that takes too long."""
        try:
            async with asyncio.timeout(MODE_PATIENCE):
                await self._told.wait()
        except TimeoutError:
            pass

    async def learn(self, run: Run) -> None:
        """Have the run interrupted as the settings in force say, or else its kernelspec.

        Returns after a first look; what could not be told then is looked up again in the background.
        """
        self.close()
        looks = Steps()
        if not await self._look(run, looks) and not run.is_over:
            self.close()
            self._trying = asyncio.get_running_loop().create_task(self._keep_looking(run, looks))

    async def _look(self, run: Run, looks: Steps, *, is_first: bool = True) -> bool:
        """Look once; whether it is known now."""
        while (config := self._settings()) is not None:
            mode = config.interrupt_mode or await self._mode_of_spec(config, looks, is_first=is_first)
            if self._settings() is config:
                run.interrupt_mode = mode or HARMLESS
                self._told.set()
                return mode is not None
        return True

    async def _keep_looking(self, run: Run, looks: Steps) -> None:
        is_known = False
        while not is_known:
            await asyncio.sleep(MODE_INTERVAL)
            is_known = run.is_over or await self._look(run, looks, is_first=False)

    async def _mode_of_spec(self, config: KernelConfig, looks: Steps, *, is_first: bool) -> str | None:
        """What the kernelspec says; ``None`` if that cannot be told now."""
        try:
            return await looks.do(self._launcher.interrupt_mode, config)
        except Exception as error:
            if isinstance(error, LaunchError) and not self._is_passing(error):
                # Its kernelspec is gone, which is no reason to harm the living.
                log.warning(
                    "cannot tell how kernel %s is interrupted, SIGINT is taken: %s", self._kernel, error
                )
                return "signal"
            if is_first:
                log.warning("cannot tell yet how kernel %s is interrupted: %s", self._kernel, error)
            return None

    def close(self) -> None:
        """Look no more."""
        if self._trying is not None:
            self._trying.cancel()
            self._trying = None
