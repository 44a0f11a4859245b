"""Figures that tests measure: printed, and appended to the file that ``IPMPI_FIGURES`` names, as lines of JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def report(name: str, **figures: Any) -> None:
    """Tell what was measured, with the load of the machine."""
    figures = {key: round(value, 3) if isinstance(value, float) else value for key, value in figures.items()}
    figures["load"] = round(os.getloadavg()[0], 1)
    print(f"{name}: {', '.join(f'{key} {value}' for key, value in figures.items())}")
    path = os.environ.get("IPMPI_FIGURES")
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"name": name, **figures}) + "\n")
