"""Settings of the documentation site, which `make docs` builds."""

import html
import os
import re
import sys
from pathlib import Path

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.util import logging
from sphinx_gallery.sorting import ExplicitOrder

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
# The examples run in this process, so the threads of torch are set before it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import skdyn  # noqa: E402

logger = logging.getLogger(__name__)

project = "skdyn"
author = "The skdyn developers"
copyright = author  # noqa: A001
version = release = skdyn.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_design",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "README.md", "auto_examples/*.ipynb", "auto_examples/*.py.md5"]
templates_path = ["templates"]
default_role = "literal"
toc_object_entries_show_parents = "hide"
suppress_warnings = ["config.cache"]

autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

QUICK = os.environ.get("SKDYN_EXAMPLES") == "quick"
# The order of the gallery: first what a newcomer reads first.
GALLERY = [
    "plot_soft_mixture.py",
    "plot_resting_state.py",
    "plot_how_many_modes.py",
    "plot_dynemo_or_hmm.py",
    "plot_mode_spectra.py",
    "plot_group_difference.py",
    "plot_nems_introduction.py",
    "plot_which_encoding_model.py",
    "plot_grasshopper_receptor.py",
    "plot_from_mne.py",
    "plot_from_xarray.py",
    "*",
]
sphinx_gallery_conf = {
    "examples_dirs": str(HERE.parent / "examples"),
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/plot_",
    "ignore_pattern": r"(__init__|draw)\.py$",
    "within_subsection_order": ExplicitOrder(GALLERY),
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("skdyn",),
    "reference_url": {"skdyn": None},
    "remove_config_comments": True,
    "download_all_examples": False,
    "abort_on_example_error": False,
    "only_warn_on_example_error": False,
    "show_memory": False,
    "show_signature": False,
    "matplotlib_animations": False,
    "min_reported_time": 5,
    "write_computation_times": False,
}

html_theme = "pydata_sphinx_theme"
html_title = f"skdyn {version}"
html_favicon = "static/favicon.svg"
html_context = {"default_mode": "auto"}
html_static_path = ["static"]
html_css_files = ["skdyn.css"]
html_show_sourcelink = False
html_copy_source = False
html_math_renderer = "mathml"
html_theme_options = {
    "logo": {"text": "skdyn"},
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "show_prev_next": True,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}


def write_mathml(block):
    """Give a visitor that writes a formula as MathML, which needs no script and no network."""

    def visit(translator, node):
        # The size of signs and brackets is left to the browser.
        source = re.sub(r"\\(textstyle|displaystyle|[bB]igg?[lr]?)(?![a-zA-Z])", "", node.astext())
        try:
            tree = latex2mathml.tex2mathml(source, as_block=block)
        except MathError as error:
            logger.warning("A formula cannot be written as MathML: %s", error, location=node)
            tree = f"<code>{html.escape(source)}</code>"
        translator.body.append(f'<div class="math">{tree}</div>' if block else tree)
        raise nodes.SkipNode

    return visit


def tidy_docstring(app, what, name, obj, options, lines):
    """Join lines that end in a backslash, which raw docstrings keep, and escape ends of names."""
    joined = []
    for line in lines:
        if joined and re.search(r"[^\\]\\$", joined[-1]):
            joined[-1] = joined[-1][:-1] + line.lstrip()
        else:
            joined.append(line)
    typed = re.compile(r"^[\w, *]+ : ")
    lines[:] = [re.sub(r"_(?=[,)])", r"\_", line) if typed.match(line) else line for line in joined]


def skip_foreign(app, what, name, member, skip, options):
    """Leave out what classes inherit from other packages, except the methods users call."""
    shown = {"fit_transform", "fit_predict"}
    home = getattr(member, "__module__", None) or ""
    if callable(member) and not home.startswith("skdyn") and name not in shown:
        return True
    return None


def setup(app):
    """Connect what is defined here."""
    app.add_html_math_renderer(
        "mathml",
        inline_renderers=(write_mathml(False), None),
        block_renderers=(write_mathml(True), None),
    )
    app.connect("autodoc-process-docstring", tidy_docstring, priority=100)
    app.connect("autodoc-skip-member", skip_foreign)
