"""Configuration of the documentation. Build it with: make docs"""

import importlib.metadata

project = "distil"
author = "The distil authors"
copyright = "The distil authors, Apache-2.0"
release = importlib.metadata.version("distil")

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"distil {release}"
html_show_sourcelink = False
html_theme_options = {"source_view_link": "", "top_of_page_buttons": []}
