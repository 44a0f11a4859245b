"""A backend of matplotlib that draws by Agg, and shows figures at the client.

matplotlib loads it by the name ``module://ipmpi.engine.session.figures``, which is the backend of ranks unless
``MPLBACKEND`` or the user says otherwise. ``plt.show()`` shows all open figures, and closes them, as in notebooks.
"""

from __future__ import annotations

from typing import Any

from matplotlib._pylab_helpers import Gcf
from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ipmpi.engine.session import displays


class FigureManager(FigureManagerBase):
    """Of one figure; there is no window."""

    def show(self) -> None:
        """Show this figure, and close it: what ``fig.show()`` does."""
        displays.current().show_figures([self])


class FigureCanvas(FigureCanvasAgg):
    """Draws in memory."""

    manager_class = FigureManager


def new_figure_manager(
    num: int | str, *args: Any, FigureClass: type[Figure] = Figure, **options: Any
) -> FigureManager:
    """Called by pyplot for a new figure."""
    return new_figure_manager_given_figure(num, FigureClass(*args, **options))


def new_figure_manager_given_figure(num: int | str, figure: Figure) -> FigureManager:
    """Called by pyplot for a figure that is there already."""
    return FigureManager(FigureCanvas(figure), num)


def show(*_args: object, **_options: object) -> None:
    """Show all open figures, and close them; never blocks."""
    displays.current().show_figures(Gcf.get_all_fig_managers())
