"""Objects that come back from an engine, and the classes of this process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = '''
import enum, pickle, subprocess, sys
from ipmpi import serialize

class Counter:
    made = 0
    def __init__(self): self.value = 1
    def up(self):
        global total
        total += 1
        return self
    def __eq__(self, other): return type(other) is type(self) and other.value == self.value

class Colour(enum.Enum):
    RED = 1

total = 0
THERE = """
import sys
from ipmpi import serialize
from ipmpi.engine.session.namespace import Namespace
counter, colour = Namespace(0).home.loads([sys.stdin.buffer.read()])
kind = type(counter)
kind.made = 99                                  # what the engine's copy of the class has, is the engine's
kind.later = lambda self: "from there"
counter.value = 5
sys.stdout.buffer.write(serialize.in_one_piece(serialize.dumps((counter, colour))))
"""
sent = serialize.in_one_piece(serialize.dumps((Counter(), Colour.RED)))
up = Counter.up
Counter.made = 3
back = subprocess.run([sys.executable, "-c", THERE], input=sent, capture_output=True)
assert back.returncode == 0, back.stderr
got, colour = serialize.loads([back.stdout])
assert type(got) is Counter and got.value == 5 and colour is Colour.RED
assert Counter.made == 3, Counter.made
assert Counter.up is up and not hasattr(Counter, "later")
got.up()
assert total == 1, total                        # the methods have the globals of this program
print("right")
'''

FOREIGN = """
import subprocess, sys
from ipmpi import serialize

THERE = '''
import sys
from ipmpi import serialize
class Setup: steps = 1
first = serialize.in_one_piece(serialize.dumps(Setup()))
Setup.steps = 2
second = serialize.in_one_piece(serialize.dumps(Setup()))
print(first.hex(), second.hex())
'''
first, second = subprocess.run([sys.executable, "-c", THERE], capture_output=True, check=True).stdout.split()
one = serialize.loads([bytes.fromhex(first.decode())])
assert type(one).steps == 1
two = serialize.loads([bytes.fromhex(second.decode())])
assert type(two) is type(one) and type(two).steps == 2
print("right")
"""


def run(source: str, folder: Path) -> str:
    script = folder / "program.py"
    script.write_text(source)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    return done.stdout.strip() or done.stderr


def test_the_classes_of_this_program_stay_as_they_are(tmp_path: Path) -> None:
    assert run(PROGRAM, tmp_path) == "right"


def test_a_class_from_elsewhere_has_what_it_has_there(tmp_path: Path) -> None:
    assert run(FOREIGN, tmp_path) == "right"
