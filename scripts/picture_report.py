"""Takes the picture of a report that stands in the README: its first screen in a real Chromium, as a small PNG.

python scripts/picture_report.py RUN OUTPUT.png

Chromium is taken from $DISTIL_CHROMIUM, else from /usr/bin/chromium.
"""

import argparse
import io
import os
import shutil
import sys
from pathlib import Path

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)
MOST_BYTES = 200_000
SCREEN = (1200, 775)
SCALES = (2.0, 1.5, 1.0)  # sharp where it fits
COLOURS = 96  # the page has few, and a palette makes the file several times smaller


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run directory")
    parser.add_argument("output", type=Path, help="the PNG to write")
    options = parser.parse_args()
    page, chromium = options.run / "report.html", os.environ.get("DISTIL_CHROMIUM", CHROMIUM)
    if not page.is_file():
        sys.exit(f"{page}: no such file. Make it with: distil run RECIPE --run-dir {options.run}")
    if shutil.which(chromium) is None:
        sys.exit(
            f"{chromium}: no Chromium there. Install it (Debian: apt-get install chromium), or set DISTIL_CHROMIUM to "
            "the path of one"
        )
    for scale in SCALES:
        picture = with_few_colours(first_screen(page, chromium, scale))
        if len(picture) < MOST_BYTES:
            options.output.write_bytes(picture)
            print(f"{options.output}: {len(picture):,} bytes, {scale:g} pixels a point")
            return
    sys.exit(f"{page}: its picture has {len(picture):,} bytes and may have {MOST_BYTES:,}; make SCREEN smaller")


def first_screen(page: Path, chromium: str, scale: float) -> bytes:
    """The part of the page that shows without scrolling, as PNG."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sys.exit("the picture needs the package playwright. Install it with: pip install 'distil[test]'")
    width, height = SCREEN
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        context = browser.new_context(
            viewport={"width": width, "height": height}, device_scale_factor=scale, color_scheme="light", offline=True
        )
        tab = context.new_page()
        tab.goto(page.resolve().as_uri())
        picture = tab.screenshot()
        browser.close()
    return picture


def with_few_colours(picture: bytes) -> bytes:
    """The PNG with a palette."""
    from PIL import Image

    image = Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return content.getvalue()


if __name__ == "__main__":
    main()
