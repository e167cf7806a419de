"""Sphinx: pages in Markdown (MyST), the furo theme, nothing fetched from elsewhere."""

import lastcall

project = "lastcall"
author = "the lastcall authors"
project_copyright = author
release = version = lastcall.__version__

extensions = ["myst_parser"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
nitpicky = True

html_theme = "furo"
html_title = f"lastcall {release}"
html_copy_source = False
html_show_sphinx = False
