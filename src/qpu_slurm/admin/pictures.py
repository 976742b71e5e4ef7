# SPDX-License-Identifier: Apache-2.0
"""What our pictures have in common: matplotlib, if it is there, colours, and how a file is written.

The colours are Okabe and Ito's, which people with any kind of colour vision can tell apart; what matters is
told by a hatch, or by its height, as well.
"""

from __future__ import annotations

import logging
import warnings
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qpu_slurm.errors import ConfigError
from qpu_slurm.system.atomic_file import Output

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = (".svg", ".png")
"""How the names of pictures end."""

_BLACK, _GREY, _LIGHT = "#000000", "#666666", "#dddddd"
_ORANGE, _SKY, _GREEN, _BLUE, _VERMILION = "#e69f00", "#56b4e9", "#009e73", "#0072b2", "#d55e00"

STYLES: dict[str, dict[str, Any]] = {
    "job": {"facecolor": _LIGHT, "edgecolor": _GREY, "linewidth": 0.5},
    "step": {"facecolor": _SKY, "edgecolor": _BLUE, "linewidth": 0.5},
    "session": {"facecolor": "white", "edgecolor": _GREEN, "linewidth": 1.2},
    "waiting": {"facecolor": "white", "edgecolor": _BLUE, "hatch": "////", "linewidth": 0.5},
    "executing": {"facecolor": _BLUE, "edgecolor": _BLACK, "linewidth": 0.5},
    "idle": {"facecolor": _ORANGE, "edgecolor": _BLACK, "hatch": "\\\\\\", "linewidth": 0.5},
}
"""How each kind of bar looks, in matplotlib's words."""

_WIDTH = 9.0
_DOTS = 150


def figure(height: float) -> Figure:
    """Begin a picture.

    Args:
        height: Its height, in inches.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        # Neither pyplot nor a display: a figure by itself, in no global state.
        import matplotlib as mpl  # noqa: PLC0415 - it belongs to an extra, and takes a while
        from matplotlib.figure import Figure  # noqa: PLC0415 - likewise
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"Pictures need the Python package {error.name}. In qpu_slurm's sources: pip install '.[plot]'."
        ) from None
    # It tells where it keeps its cache, if that is not where it likes to.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    mpl.rcParams.update(
        {
            "font.size": 9,
            "axes.titlesize": 11,
            "hatch.linewidth": 0.6,
            "svg.hashsalt": "qpu_slurm",  # the same picture is the same file
            "text.parse_math": False,  # a dollar in a job's name is one
        }
    )
    return Figure(figsize=(_WIDTH, height), layout="constrained")


def picture(text: str) -> Path:
    """Read the name of a picture, for a command's option.

    Raises:
        ValueError: It does not end as the name of a kind of picture that we draw.
    """
    path = Path(text)
    if path.suffix not in KINDS:
        raise ValueError(text)
    return path


def tidy(axes: Axes) -> None:
    """Take away what is no information."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=_LIGHT, linewidth=0.7)
    axes.set_axisbelow(True)


def save(figure: Figure, path: Path) -> None:
    """Write a picture: whole, or not at all.

    Args:
        figure: The picture.
        path: The file; its name's end says what kind.

    Raises:
        OutputError: It cannot be written.
    """
    picture = BytesIO()
    # An SVG has the time in it otherwise.
    metadata = {"Date": None} if path.suffix == ".svg" else None
    with warnings.catch_warnings():
        # A letter that the font lacks is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(picture, format=path.suffix[1:], dpi=_DOTS, metadata=metadata)
    with Output(path) as output:
        output.write([picture.getvalue()])
