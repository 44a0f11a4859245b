"""The few colours of ipmpi's own texts on a terminal (ANSI)."""

from __future__ import annotations

from typing import Final

GREEN: Final = "\033[0;32m"
BLUE: Final = "\033[0;34m"
RED: Final = "\033[0;31m"
NORMAL: Final = "\033[0m"
