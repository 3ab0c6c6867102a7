"""Open every page of the built site in headless Chromium: `make docs-browser`.

Checks links, pictures, console errors, requests to other hosts, the width of pages on phones and
desktops, the contrast of text in light and dark, and the search. Prints a report; the exit status
is 1 if a check fails.
"""

import argparse
import functools
import re
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlparse

from playwright.sync_api import sync_playwright

BUILD = Path(__file__).resolve().parent / "_build" / "html"
WIDTHS, THEMES = (390, 1400), ("light", "dark")
# Terms that a reader may look for, and a page that has to be among the results.
TERMS = {
    "DyNeMoEstimator": "generated/skdyn.DyNeMoEstimator.html",
    "NEMSRegressor": "generated/skdyn.NEMSRegressor.html",
    "sessions": "guide/data.html",
    "permutation": "generated/skdyn.analysis.permutation_test.html",
    "coherence": "generated/skdyn.analysis.mode_spectra.html",
    "hidden Markov": "auto_examples/plot_dynemo_or_hmm.html",
    "grasshopper": "auto_examples/plot_grasshopper_receptor.html",
    "BlockKFold": "generated/skdyn.model_selection.BlockKFold.html",
    "osl-dynamics": "coming_from_osl_dynamics.html",
    "checkpoint": "guide/files.html",
    "learning rate": "generated/skdyn.DyNeMoEstimator.html",
    "embedding": "guide/preprocessing.html",
}
PICTURED = {
    "start": "index.html",
    "getting_started": "start.html",
    "gallery": "auto_examples/index.html",
    "example": "auto_examples/plot_soft_mixture.html",
    "api": "generated/skdyn.DyNeMoEstimator.html",
    "guide": "guide/dynemo.html",
}
# Elements that stick out to the right and that no box around them scrolls.
OVERFLOW = """() => {
  const width = document.documentElement.clientWidth;
  const scrolls = one => {
    for (; one && one !== document.body; one = one.parentElement) {
      const style = getComputedStyle(one);
      if (['auto', 'scroll'].includes(style.overflowX) && one.scrollWidth > one.clientWidth)
        return true;
      if (style.position === 'fixed' || style.visibility === 'hidden') return true;
    }
    return false;
  };
  const found = [];
  const check = (one, right) => {
    if (one.offsetParent && right > width + 1 && !scrolls(one))
      found.push(one.tagName + ' ' + one.textContent.trim().slice(0, 40));
  };
  const article = document.querySelector('article') || document.body;
  const texts = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const range = document.createRange();
    range.selectNodeContents(texts.currentNode);
    check(texts.currentNode.parentElement, range.getBoundingClientRect().right);
  }
  for (const one of article.querySelectorAll('img, svg, math, input, button'))
    check(one, one.getBoundingClientRect().right);
  return found.slice(0, 3);
}"""
BROKEN_PICTURES = """async () => {
  const pictures = [...document.querySelectorAll('img')];
  for (const one of pictures) { one.loading = 'eager'; }
  await Promise.all(pictures.map(one => one.decode().catch(() => null)));
  return pictures.filter(one => !one.naturalWidth).map(one => one.src);
}"""
# The lowest contrast of text in the article with its background, by the formula of WCAG.
CONTRAST = """() => {
  const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const level = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(v => v / 255).map(
      v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = one => {
    for (; one; one = one.parentElement) {
      const color = parse(getComputedStyle(one).backgroundColor);
      if (color.length === 3 || color[3] > 0.5) return color;
    }
    return [255, 255, 255];
  };
  let least = [21, ''];
  const texts = 'article p, article li, article td, article dt, h1, h2';
  for (const one of document.querySelectorAll(texts)) {
    if (!one.offsetParent || !one.textContent.trim()) continue;
    const [a, b] = [level(parse(getComputedStyle(one).color)), level(behind(one))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < least[0]) least = [ratio, one.tagName + ' ' + one.textContent.trim().slice(0, 40)];
  }
  return least;
}"""


class Server:
    """The built site on a local port."""

    def __enter__(self):
        class Quiet(SimpleHTTPRequestHandler):
            def log_message(self, *_):
                pass

        handler = functools.partial(Quiet, directory=str(BUILD))
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_address[1]}/"

    def __exit__(self, *_):
        self.server.shutdown()


@functools.cache
def anchors_of(path):
    """The ids of a page."""
    return set(re.findall(r'\bid="([^"]+)"', path.read_text(encoding="utf-8")))


def broken_links(page, home):
    """Yield links of a page to files or ids that do not exist."""
    links = page.eval_on_selector_all("a[href]", "all => all.map(one => one.getAttribute('href'))")
    for link in sorted(set(links)):
        address, anchor = urldefrag(urljoin(page.url, link))
        if not address.startswith(home):
            continue
        path = BUILD / unquote(urlparse(address).path).lstrip("/")
        path = path / "index.html" if path.is_dir() else path
        if not path.exists():
            yield f"link to {link}, which does not exist"
        elif anchor and path.suffix == ".html" and unquote(anchor) not in anchors_of(path):
            yield f"link to {link}, whose anchor does not exist"


def set_theme(page, theme):
    """Switch to light or dark."""
    page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)


def check_page(page, home, name):
    """Yield what is wrong with one page."""
    page.set_viewport_size({"width": 1400, "height": 900})
    page.goto(home + name, wait_until="load")
    yield from broken_links(page, home)
    for picture in page.evaluate(BROKEN_PICTURES):
        yield f"picture {picture} is broken"
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        if sticking := page.evaluate(OVERFLOW):
            yield f"wider than {width} pixels: {', '.join(sticking)}"
    for theme in THEMES:
        set_theme(page, theme)
        ratio, text = page.evaluate(CONTRAST)
        if ratio < 4.5:
            yield f"contrast of {ratio:.1f} in {theme}: {text!r}"


def check_search(page, home, term, expected):
    """Yield what is wrong with the results of a search."""
    page.goto(f"{home}search.html?q={term}", wait_until="load")
    try:
        page.wait_for_function(
            "() => document.querySelectorAll('#search-results li a').length > 0",
            timeout=20_000,
        )
        page.wait_for_timeout(1000)
    except Exception:
        yield f"search for {term!r} finds nothing"
        return
    found = page.eval_on_selector_all(
        "#search-results li a", "all => all.map(one => one.href.split('?')[0].split('#')[0])"
    )
    if home + expected not in found:
        yield f"search for {term!r} finds {len(found)} pages, but not {expected}"


def take_pictures(page, home, folder):
    """Save screenshots of some pages, narrow and wide, light and dark."""
    folder.mkdir(parents=True, exist_ok=True)
    for title, name in PICTURED.items():
        for width in WIDTHS:
            for theme in THEMES:
                page.set_viewport_size({"width": width, "height": 1000})
                page.goto(home + name, wait_until="load")
                set_theme(page, theme)
                page.wait_for_timeout(300)
                page.screenshot(path=str(folder / f"{title}_{width}_{theme}.png"))


def main():
    """Check all pages and print a report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chromium", default=None, help="path of the browser")
    parser.add_argument("--pictures", type=Path, help="folder for screenshots")
    arguments = parser.parse_args()
    names = sorted(
        path.relative_to(BUILD).as_posix()
        for path in BUILD.rglob("*.html")
        if "_static" not in path.parts
    )
    if not names:
        sys.exit(f"{BUILD} has no pages; run `make docs` first.")
    problems = []
    with Server() as home, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=arguments.chromium, args=["--no-sandbox"]
        )
        page = browser.new_page()
        here = [""]

        def note(text):
            problems.append(f"{here[0]}: {text}")

        page.on("console", lambda one: one.type == "error" and note(f"console: {one.text}"))
        page.on("pageerror", lambda error: note(f"script: {error}"))
        page.on(
            "request",
            lambda one: one.url.startswith((home, "data:", "blob:")) or note(f"asks for {one.url}"),
        )
        page.on("response", lambda one: one.status < 400 or note(f"{one.url} answers {one.status}"))
        for here[0] in names:
            for problem in check_page(page, home, here[0]):
                note(problem)
        for term, expected in TERMS.items():
            here[0] = "search"
            for problem in check_search(page, home, term, expected):
                note(problem)
        if arguments.pictures:
            take_pictures(page, home, arguments.pictures)
        browser.close()
    print(*problems, sep="\n")
    print(
        f"{len(names)} pages at {' and '.join(map(str, WIDTHS))} pixels, light and dark, and "
        f"{len(TERMS)} searches: {len(problems)} problems"
    )
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
