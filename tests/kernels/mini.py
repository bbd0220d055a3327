"""A minimal Jupyter kernel over pyzmq, for tests that need many kernels quickly.

``python mini.py -f CONNECTION_FILE [flags]``; speaks the protocol 5.3 as far as
clients and the supervisor use it: heartbeat, ``kernel_info``, ``execute`` (the
value of a last expression is the result), ``interrupt``, ``shutdown``.

--ignore SIGTERM,SIGINT   ignore these signals
--ignore-shutdown         answer ``shutdown_request``, and stay
--start-delay SECONDS     bind this late
--exit-after SECONDS      exit this long after it is ready
--exit-code CODE          with --exit-after
--say TEXT                written to stderr at the start
--deaf                    bind nothing
--fragile                 SIGINT ends it
--exit-unless FILE        with --exit-after: only if there is no such file
--alone FILE              hold a lock on FILE while alive; if another process holds it
                          already, tell so in FILE.two and exit 99
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import fcntl
import hashlib
import hmac
import io
import json
import os
import signal
import sys
import threading
import time
import traceback

import zmq

DELIMITER = b"<IDS|MSG>"
CHANNELS = ("shell", "iopub", "stdin", "control", "hb")


class Kernel:
    def __init__(self, connection_file, options):
        with open(connection_file, encoding="utf-8") as file:  # noqa: PTH123
            self.connection = json.load(file)
        self.options = options
        self.key = self.connection["key"].encode()
        self.session = os.urandom(16).hex()
        self.namespace = {"__name__": "__main__"}
        self.count = 0
        self.executing = False
        self.ending = None
        self.context = zmq.Context()
        self.sent = threading.Lock()

    def bind(self):
        kinds = (zmq.ROUTER, zmq.PUB, zmq.ROUTER, zmq.ROUTER, zmq.REP)
        for channel, kind in zip(CHANNELS, kinds, strict=True):
            socket = self.context.socket(kind)
            socket.setsockopt(zmq.LINGER, 500)
            ip, port = self.connection["ip"], self.connection[f"{channel}_port"]
            separator = "-" if self.connection["transport"] == "ipc" else ":"
            socket.bind(f"{self.connection['transport']}://{ip}{separator}{port}")
            setattr(self, channel, socket)

    def signature(self, parts):
        made = hmac.new(self.key, digestmod=hashlib.sha256)
        for part in parts:
            made.update(part)
        return made.hexdigest().encode()

    def send(self, socket, identities, parent, kind, content):
        header = {
            "msg_id": os.urandom(16).hex(),
            "session": self.session,
            "username": "mini",
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "msg_type": kind,
            "version": "5.3",
        }
        parts = [json.dumps(part).encode() for part in (header, parent, {}, content)]
        with self.sent:
            socket.send_multipart([*identities, DELIMITER, self.signature(parts), *parts])

    def publish(self, parent, kind, content):
        self.send(self.iopub, [kind.encode()], parent, kind, content)

    def receive(self, socket):
        frames = socket.recv_multipart()
        at = frames.index(DELIMITER)
        parts = frames[at + 2 : at + 6]
        if not hmac.compare_digest(frames[at + 1], self.signature(parts)):
            return None
        return frames[:at], json.loads(parts[0]), json.loads(parts[3])

    def serve_heartbeat(self):
        while True:
            self.hb.send(self.hb.recv())

    def serve_control(self):
        while True:
            if (got := self.receive(self.control)) is not None:
                self.answer(self.control, *got)

    def serve_shell(self):
        poller = zmq.Poller()
        poller.register(self.shell, zmq.POLLIN)
        while self.ending is None:
            try:
                if poller.poll(20) and (got := self.receive(self.shell)) is not None:
                    self.answer(self.shell, *got)
            except KeyboardInterrupt:
                pass

    def answer(self, socket, identities, header, content):
        kind = header["msg_type"]
        act = getattr(self, f"on_{kind}", None)
        if act is None:
            return
        self.publish(header, "status", {"execution_state": "busy"})
        reply = act(header, content)
        self.send(socket, identities, header, kind.replace("_request", "_reply"), reply)
        self.publish(header, "status", {"execution_state": "idle"})
        if kind == "shutdown_request" and not self.options.ignore_shutdown:
            self.ending = 0

    def on_kernel_info_request(self, header, content):
        language = {
            "name": "python",
            "version": sys.version.split()[0],
            "mimetype": "text/x-python",
            "file_extension": ".py",
        }
        return {
            "status": "ok",
            "protocol_version": "5.3",
            "implementation": "mini",
            "implementation_version": "1",
            "language_info": language,
            "banner": "mini",
        }

    def on_shutdown_request(self, header, content):
        return {"status": "ok", "restart": content.get("restart", False)}

    def on_interrupt_request(self, header, content):
        os.kill(os.getpid(), signal.SIGINT)
        return {"status": "ok"}

    def on_execute_request(self, header, content):
        self.count += 1
        out = io.StringIO()
        try:
            with contextlib.redirect_stdout(out):
                value = self.run(content["code"])
            failure = None
        except BaseException as error:
            failure = error
        if out.getvalue():
            self.publish(header, "stream", {"name": "stdout", "text": out.getvalue()})
        if failure is not None:
            content = {
                "ename": type(failure).__name__,
                "evalue": str(failure),
                "traceback": traceback.format_exception(failure),
            }
            self.publish(header, "error", content)
            return {"status": "error", "execution_count": self.count, **content}
        if value is not None:
            result = {"data": {"text/plain": repr(value)}, "metadata": {}, "execution_count": self.count}
            self.publish(header, "execute_result", result)
        return {"status": "ok", "execution_count": self.count, "user_expressions": {}, "payload": []}

    def run(self, code):
        tree = ast.parse(code)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        self.executing = True
        try:
            exec(compile(tree, "<cell>", "exec"), self.namespace)
            if last is None:
                return None
            return eval(compile(ast.Expression(last.value), "<cell>", "eval"), self.namespace)
        finally:
            self.executing = False

    def on_interrupt(self, signum, frame):
        if self.executing:
            raise KeyboardInterrupt

    def main(self):
        signal.signal(signal.SIGINT, signal.SIG_DFL if self.options.fragile else self.on_interrupt)
        for name in filter(None, self.options.ignore.split(",")):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
        if self.options.say:
            sys.stderr.write(f"{self.options.say}\n")
            sys.stderr.flush()
        time.sleep(self.options.start_delay)
        if self.options.deaf:
            while True:
                time.sleep(60)
        self.bind()
        for serve in (self.serve_control, self.serve_heartbeat):
            threading.Thread(target=serve, daemon=True).start()
        unless = self.options.exit_unless
        if self.options.exit_after is not None and not (unless and os.path.exists(unless)):  # noqa: PTH110
            alarm = threading.Timer(self.options.exit_after, os._exit, [self.options.exit_code])
            alarm.daemon = True
            alarm.start()
        self.serve_shell()
        for socket in (self.shell, self.iopub):
            socket.close()
        time.sleep(0.01)  # the reply on control is on its way
        sys.stdout.flush()
        os._exit(self.ending)


def hold(path):
    """Be the only process that holds the file, or tell that there are two."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        # POSIX locks: not inherited by children, and gone with the process.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        with open(f"{path}.two", "a", encoding="utf-8") as told:  # noqa: PTH123
            told.write(f"{os.getpid()} was started while {os.pread(descriptor, 20, 0).decode()} lived\n")
        os._exit(99)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)


def options_of(argv):
    parser = argparse.ArgumentParser(prog="mini")
    parser.add_argument("-f", dest="connection_file", required=True)
    parser.add_argument("--ignore", default="")
    parser.add_argument("--ignore-shutdown", action="store_true")
    parser.add_argument("--start-delay", type=float, default=0.0)
    parser.add_argument("--exit-after", type=float)
    parser.add_argument("--exit-code", type=int, default=0)
    parser.add_argument("--say", default="")
    parser.add_argument("--deaf", action="store_true")
    parser.add_argument("--exit-unless", default="")
    parser.add_argument("--alone", default="")
    parser.add_argument("--fragile", action="store_true")
    return parser.parse_args(argv)


if __name__ == "__main__":
    options = options_of(sys.argv[1:])
    if options.alone:
        hold(options.alone)
    Kernel(options.connection_file, options).main()
