"""The colours of all figures, and PNG files that may be in a bucket."""

import io

from etils import epath
from matplotlib.figure import Figure

# The colours of Okabe and Ito, distinguishable with all common forms of colour blindness.
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY = "#E69F00", "#56B4E9"
INK, GREY, GRID = "#1a1a1a", "#6b6b6b", "#e6e6e6"


def save_png(figure: Figure, path: epath.PathLike, dpi: int = 160) -> None:
    """Writes the same bytes for the same figure, without the version of matplotlib."""
    image = io.BytesIO()  # matplotlib cannot write to a bucket
    figure.savefig(image, format="png", dpi=dpi, metadata={"Software": None})
    epath.Path(path).write_bytes(image.getvalue())
