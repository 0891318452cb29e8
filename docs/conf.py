"""The documentation site.

``pip install -e . --group docs && sphinx-build -W -n docs .site`` builds it; then open ``.site/index.html``.
"""

import inturn

project = "inturn"
author = "the inturn authors"
version = release = inturn.__version__
html_title = f"inturn {release}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["examples"]

# Docstrings: one backtick for a name of the library, two for any other code.
default_role = "py:obj"
autodoc_typehints = "none"  # the text of each argument says what it takes
autodoc_mock_imports = ["hypothesis"]  # of `inturn.testing`; the site can be built without it
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# Pages are Markdown; links from page to page, and to headings, are checked.
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

nitpick_ignore_regex = [(r"py:.*", r"(?!inturn).*")]  # names of the standard library: their pages are elsewhere


def setup(app: object) -> None:
    app.connect("autodoc-process-signature", _without_unknown)  # type: ignore[attr-defined]


def _without_unknown(app, what, name, thing, options, signature, annotation):  # type: ignore[no-untyped-def]
    """``**unknown`` is there only for the error that says what to write in its place."""
    return (signature and signature.replace(", **unknown", ""), annotation)


html_theme = "furo"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0f766e", "color-brand-content": "#0f766e"},
    "dark_css_variables": {"color-brand-primary": "#5eead4", "color-brand-content": "#5eead4"},
}
