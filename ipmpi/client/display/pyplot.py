"""matplotlib, for pictures that are drawn here."""

from __future__ import annotations

from typing import Any

from ...errors import ClientError


def axes_for(ax: Any) -> Any:
    """Return ``ax``, or the current Axes of pyplot if it is None.

    Raises:
        ClientError: there is no matplotlib here.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ClientError(f"plot() draws with matplotlib: pip install matplotlib ({error})") from None
    return plt.gca() if ax is None else ax
