"""The floor: start a command, wait for its end, start it again; one thread per command.

Called with a file: one JSON object per line, with ``argv`` and ``output``.
"""

import json
import subprocess
import sys
import threading
from pathlib import Path


def keep(argv: list[str], output: str) -> None:
    with Path(output).open("ab") as log:
        while True:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
            process.wait()


commands = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
threads = [threading.Thread(target=keep, args=(c["argv"], c["output"])) for c in commands]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
