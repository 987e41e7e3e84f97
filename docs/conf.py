"""The site: all Markdown pages of the repository, and the docstrings.

``make docs`` builds it; any warning, such as of a dead link, is an error.
"""

from lshfm_mm import __version__

project = 'lshfm_mm'
author = 'The lshfm_mm authors'
release = version = __version__
# The root is the repository, so that links work here as they do there.
include_patterns = ['*.md', 'docs/**.md', 'configs/*/README.md']
root_doc = 'docs/index'
extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']
myst_heading_anchors = 3
autodoc_member_order = 'bysource'
autodoc_typehints = 'none'  # the docstrings name them
html_theme = 'furo'
html_title = project
