"""Stands in for ipmpi.cli.ipcontroller: keeps its contract with ipcluster, or breaks it when told to."""

import argparse
import json
import os
import selectors
import signal
import socket
import sys

parser = argparse.ArgumentParser()
parser.add_argument("--ready-fd", type=int)
parser.add_argument("--lifeline-fd", type=int)
parser.add_argument("--engine-furl-file")
parser.add_argument("--multiengine-furl-file", default="")
parser.add_argument("--engine-port", type=int, default=0)
parser.add_argument("-l")
options, _ = parser.parse_known_args()
mode = os.environ.get("FAKE_CONTROLLER", "")
log = open(f"{options.l}{os.uname().nodename}-{os.getpid()}.log", "x", buffering=1)  # noqa: SIM115
wake_read, wake_write = os.pipe()
os.set_blocking(wake_write, False)
signal.set_wakeup_fd(wake_write)
for signum in (signal.SIGINT, signal.SIGTERM):
    signal.signal(signum, signal.SIG_IGN if mode == "deaf" else lambda *_: None)

if mode == "port taken":
    print("ipcontroller: port 10105 of 127.0.0.1 is taken by another program.", file=sys.stderr)
    sys.exit(1)
listener = socket.create_server(("127.0.0.1", options.engine_port))
os.makedirs(os.path.dirname(options.engine_furl_file), exist_ok=True)


def write_furl(path):
    with open(path + ".new", "w") as stream:
        stream.write(str(listener.getsockname()[1]))
    os.rename(path + ".new", path)


def hear():
    """What ipcluster has for clients, and the launch whose furl it wants; False at the end."""
    data = os.read(options.lifeline_fd, 65536)
    for line in data.splitlines():
        launch = json.loads(line).get("launch")
        if launch is not None:
            write_furl(launch["file"])
    return bool(data)


write_furl(options.engine_furl_file)


def tell(**what):
    os.write(options.ready_fd, json.dumps(what).encode() + b"\n")


files = {"engine_furl_file": options.engine_furl_file, "multiengine_furl_file": options.multiengine_furl_file}
tell(pid=os.getpid(), **files)
log.write("controller is up\n")
engines = set()
selector = selectors.DefaultSelector()
for source in (listener, wake_read, options.lifeline_fd):
    selector.register(source, selectors.EVENT_READ)
while True:
    stop = False
    for key, _ in selector.select():
        if key.fileobj is listener:
            engine, _ = listener.accept()
            engines.add(engine)
            selector.register(engine, selectors.EVENT_READ)
            tell(engines=len(engines))
        elif key.fileobj in engines:
            word = key.fileobj.recv(1)
            if word == b"k":
                stop = True
            elif not word:
                engines.discard(key.fileobj)
                selector.unregister(key.fileobj)
                tell(engines=len(engines))
        elif key.fileobj == options.lifeline_fd and hear():
            pass
        elif mode != "deaf":
            stop = True
    if stop:
        break
for engine in engines:
    engine.send(b"x")
log.write("controller says goodbye\n")
