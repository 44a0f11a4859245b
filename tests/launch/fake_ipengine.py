"""Stands in for ipmpi.cli.ipengine: waits for the furl file, registers, and lives until its controller says so."""

import argparse
import os
import signal
import socket
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("--furl-file")
parser.add_argument("-l")
parser.add_argument("--mpi")
parser.add_argument("--wait", type=float)
parser.add_argument("--ids-dir")
options = parser.parse_args()
mode = os.environ.get("FAKE_ENGINE", "")
rank = int(os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ.get("PMI_RANK") or 0)
with open(f"{options.l}{os.uname().nodename}-{rank}-{os.getpid()}.log", "x") as log:
    log.write(f"engine rank {rank} threads {os.environ.get('OMP_NUM_THREADS')}\n")
if mode == "import error" or (mode == "rank 1 fails" and rank == 1):
    time.sleep(0.6 if rank else 0)
    import a_module_that_is_not_there  # noqa: F401
if mode == "deaf":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if mode == "never registers" or mode == "rank 1 fails":
    time.sleep(60)
deadline = time.monotonic() + options.wait
while not os.path.exists(options.furl_file) and time.monotonic() < deadline:
    time.sleep(0.01)  # the contract of --wait: a shared file system tells of no events
with open(options.furl_file) as stream:
    link = socket.create_connection(("127.0.0.1", int(stream.read())))
if mode == "kill controller" and rank == 0:
    time.sleep(0.3)
    link.send(b"k")
word = link.recv(1)
if mode == "deaf":
    time.sleep(60)
if not word:
    time.sleep(60)  # an engine that lost its controller tries to reach it again
sys.exit(0)
