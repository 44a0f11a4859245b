"""A second client, in a process of its own: asks for the queue status again and again until its input ends."""

from __future__ import annotations

import json
import sys
import threading
import time

from ipmpi.client import MultiEngineClient

INTERVAL = 0.02


def main(furl_file: str) -> None:
    """Say ``ready``, ask until the input ends, then print the seconds of each answer as a JSON list."""
    ended = threading.Event()
    with MultiEngineClient(furl_file) as mec:
        mec.queue_status()
        print("ready", flush=True)
        threading.Thread(target=_await_end_of_input, args=(ended,), daemon=True).start()
        waits: list[float] = []
        while True:
            start = time.perf_counter()
            mec.queue_status()
            waits.append(time.perf_counter() - start)
            if ended.wait(INTERVAL):
                break
        print(json.dumps(waits), flush=True)


def _await_end_of_input(ended: threading.Event) -> None:
    sys.stdin.read()
    ended.set()


if __name__ == "__main__":
    main(sys.argv[1])
