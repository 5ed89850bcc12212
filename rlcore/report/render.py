"""Reports as files: plots in every theme, and pages from templates with their plots embedded."""

import base64
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rlcore.files import writing
from rlcore.report.style import THEMES


def draw(folder: Path, name: str, figure_of: Callable[[], Figure | None]) -> dict[str, Path]:
    """Writes `NAME-THEME.png` for every theme; returns the files by theme, or none if there is no figure.

    Raises UserError if it cannot write.
    """
    drawn = {}
    for theme in THEMES:
        with rc_context(theme.rc):
            figure = figure_of()
            if figure is None:
                return {}
            path = drawn[theme.name] = folder / f"{name}-{theme.name}.png"
            with writing(path):
                FigureCanvasAgg(figure)
                figure.savefig(path, dpi=160)
    return drawn


def embedded(pictures: Mapping[str, Path]) -> dict[str, Markup]:
    """PNG files as data URIs."""
    read = {theme: base64.b64encode(path.read_bytes()).decode() for theme, path in pictures.items()}
    return {theme: Markup("data:image/png;base64," + encoded) for theme, encoded in read.items()}


def render(template: str, **values: Any) -> str:
    """A page from a template of this room. All text is escaped, as models may have written it."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = files("rlcore.report").joinpath(template).read_text(encoding="utf-8")
    return environment.from_string(text).render(**values)
