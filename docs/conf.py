"""Sphinx settings; `make docs` treats every warning as an error."""

project = "Beholder"
author = "the Beholder authors"
copyright = author

extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "Beholder"
html_show_sourcelink = False
html_show_copyright = False
