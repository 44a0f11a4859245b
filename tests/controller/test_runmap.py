"""A value for each number, kept by runs."""

from __future__ import annotations

import random

import pytest

from ipmpi.controller.runmap import RunMap


@pytest.mark.parametrize("seed", range(30))
def test_it_does_what_a_dictionary_does(seed: int) -> None:
    chance, model, runs = random.Random(seed), dict[int, int](), RunMap[int]()
    for step in range(80):
        first = chance.randrange(40)
        run = range(first, first + chance.randrange(1, 9))
        if chance.random() < 0.6 and not any(number in model for number in run):
            runs.insert(run, step)
            model.update(dict.fromkeys(run, step))
        elif chance.random() < 0.5:
            gone = run[:: chance.choice([1, 1, 2])]
            runs.remove(gone)
            for number in gone:
                model.pop(number, None)
        assert (list(runs.ids()), len(runs)) == (sorted(model), len(model))
        assert [runs.get(number) for number in range(50)] == [model.get(number) for number in range(50)]
        for wanted in (run, range(first, 50, chance.randrange(1, 5))):
            found = [(number, value) for part, value in runs.within(wanted) for number in part]
            assert found == [(number, model[number]) for number in wanted if number in model]
        assert (first in runs) == (first in model)
