"""Figures as files: equal bytes for equal figures."""

from matplotlib.figure import Figure

from asyppo_jax.runtime.figures import BLUE, save_png


def test_a_figure_is_written_as_a_png_with_the_same_bytes_each_time(tmp_path):
    for name in ("a.png", "b.png"):
        figure = Figure(figsize=(1, 1))
        figure.subplots().plot([0, 1], color=BLUE)
        save_png(figure, tmp_path / name)
    first, second = ((tmp_path / name).read_bytes() for name in ("a.png", "b.png"))
    assert first == second and first.startswith(b"\x89PNG")
