#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""The page of `crit report` in a real browser: what it shows, that it needs nothing from outside, that it can be read in
light and dark and on a narrow screen. CRIT names the program; REPORT_SCREENSHOTS, a directory to leave pictures in."""

import html.parser
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
import zlib

import images
from images import crit

BROWSER = shutil.which("chromium")
# Appended to a copy of the page: what the browser made of it, where the dump of the document shows it.
MEASURE = """<script>
document.body.dataset.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
document.body.dataset.ground = getComputedStyle(document.body).backgroundColor;
document.body.dataset.ink = getComputedStyle(document.body).color;
document.body.dataset.targets = [...document.querySelectorAll('a[href^="#"]')]
    .filter(a => !document.getElementById(a.getAttribute('href').slice(1))).length;
document.body.dataset.requests = performance.getEntriesByType('resource').length;
</script>"""


class Document(html.parser.HTMLParser):
    """Elements as (tag, attributes), rows of tables as lists of texts by the table's class."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.tables, self.cell, self.body = [], {}, None, {}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.elements.append((tag, attributes))
        if tag == "body":
            self.body = attributes
        elif tag == "table":
            self.rows = self.tables.setdefault(attributes["class"], [])
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.cell = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = None

    def handle_data(self, data):
        if self.cell:
            self.rows[-1][-1] += data

    def named(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def browse(url, profile, *options):
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
               "--disable-extensions", "--disable-background-networking", "--user-data-dir=" + profile, *options, url]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, stdin=subprocess.DEVNULL)
    if result.returncode != 0:
        raise AssertionError("chromium: %d\n%s" % (result.returncode, result.stderr))
    return result.stdout


def colours(picture):
    """How many different rows of pixels a PNG has: a page that shows nothing has one."""
    with open(picture, "rb") as file:
        data = file.read()
    assert data.startswith(b"\x89PNG")
    at, packed = 8, b""
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        packed += data[at + 8:at + 8 + size] if kind == b"IDAT" else b""
        at += size + 12
    width, height = struct.unpack_from(">II", data, 16)
    raw = zlib.decompress(packed)
    return len({raw[row * len(raw) // height:(row + 1) * len(raw) // height] for row in range(height)}), width, height


def luminance(colour):
    channels = [int(number) / 255 for number in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


class Report(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="crit-report-")
        cls.addClassCleanup(shutil.rmtree, cls.dir)
        cls.images = os.path.join(cls.dir, "images")
        images.checkpoint(cls.images)
        cls.page = os.path.join(cls.dir, "report.html")
        result = crit("report", "-o", cls.page, cls.images)
        assert result.returncode == 0, result.stderr
        with open(cls.page, encoding="utf-8") as file:
            cls.text = file.read()
        cls.measured = os.path.join(cls.dir, "measured.html")
        with open(cls.measured, "w", encoding="utf-8") as file:
            file.write(cls.text.replace("</body>", MEASURE + "</body>"))
        cls.document = cls.shown()

    @classmethod
    def shown(cls, *options):
        return Document(browse("file://" + cls.measured, os.path.join(cls.dir, "profile"), "--dump-dom", *options))

    def test_one_file_is_all(self):
        self.assertNotRegex(self.text, r"https?:|src=|@import|url\(|<script|<link")
        self.assertEqual(self.document.body["data-requests"], "0")

    def test_tree(self):
        rows = self.document.tables["tree"]
        self.assertEqual([row[:6] for row in rows[1:]], [
            ["parent", "10", "0", "running", "2", "2"],
            ["gone", "13", "10", "zombie", "1", "0"],
            ['<b>&"child', "12", "10", "stopped", "1", "2"]])
        self.assertEqual(rows[1][6:], ["372 KiB", "16.0 KiB"])

    def test_memory_is_to_scale(self):
        bars = [attributes for attributes in self.document.named("svg") if "aria-label" in attributes]
        self.assertEqual(len(bars), 4)
        self.assertEqual(bars[0]["aria-label"], "Mapped memory of task 10: 372 KiB")
        at = next(i for i, (_, attributes) in enumerate(self.document.elements) if attributes.get("id") == "task-10")
        rectangles = []
        for tag, attributes in self.document.elements[at:]:
            if tag == "rect":
                rectangles.append(attributes)
            elif tag == "ul":
                break
        mapped = [(r["class"], float(r["width"])) for r in rectangles[:7]]
        total = 4 + 12 + 4 + 4 + 64 + 4 + 1
        for (kind, width), (wanted, pages) in zip(mapped, (("file", 4), ("heap", 12), ("shared", 4), ("shared", 4),
                                                          ("anonymous", 64), ("stack", 4), ("kernel", 1))):
            self.assertEqual(kind, wanted)
            self.assertAlmostEqual(width, 1000 * pages / total, places=2)
        self.assertEqual([(r["class"], float(r["width"])) for r in rectangles[7:]], [("heap", 750.0), ("stack", 250.0)])
        areas = self.document.tables["areas"]
        self.assertEqual(areas[2][:6], ["600000-60c000", "rw-", "48.0 KiB", "12.0 KiB", "heap", "[heap]"])

    def test_descriptors_say_with_whom(self):
        rows = [row for row in self.document.tables["descriptors"] if row[0] != "Descriptor"]
        self.assertEqual(rows, [
            ["0", "REG", "/tmp/shared", "same file: 7 of 12"],
            ["1", "PIPE", "pipe[77] writing", "other end: 0 of 12"],
            ["0", "PIPE", "pipe[77] reading", "other end: 1 of 10"],
            ["7", "REG", "/tmp/shared", "same file: 0 of 10"]])
        self.assertEqual(self.document.body["data-targets"], "0", "links that lead nowhere")

    def test_images_and_timings(self):
        rows = self.document.tables["images"][1:]
        sizes = {row[0]: int(row[2]) for row in rows}
        self.assertEqual(sizes, {name: os.path.getsize(os.path.join(self.images, name))
                                 for name in os.listdir(self.images)})
        self.assertEqual([row[2] for row in rows], sorted((row[2] for row in rows), key=int, reverse=True))
        self.assertEqual([row[:2] for row in self.document.tables["timings"][1:]], [
            ["Freezing the tree", "1.0 ms"], ["Frozen", "40.0 ms"], ["Collecting memory, of that", "10.0 ms"],
            ["Writing memory", "20.0 ms"]])

    def test_accessible(self):
        self.assertEqual(self.document.named("html")[0]["lang"], "en")
        self.assertEqual(len(self.document.named("h1")), 1)
        self.assertEqual(len(self.document.named("main")), 1)
        self.assertEqual(len(self.document.named("caption")), len(self.document.named("table")))
        for attributes in self.document.named("svg"):
            self.assertTrue("aria-label" in attributes or attributes.get("aria-hidden") == "true")
        identities = [attributes["id"] for _, attributes in self.document.elements if "id" in attributes]
        self.assertEqual(len(identities), len(set(identities)))

    def test_narrow_and_dark(self):
        light = self.document.body
        dark = self.shown("--blink-settings=preferredColorScheme=0").body
        narrow = self.shown("--window-size=500,900").body
        self.assertGreater(luminance(light["data-ground"]), 0.8)
        self.assertLess(luminance(dark["data-ground"]), 0.05)
        for body in (light, dark):
            self.assertGreater(contrast(body["data-ground"], body["data-ink"]), 10)
            self.assertEqual(body["data-overflow"], "0")
        self.assertEqual(narrow["data-overflow"], "0", "the page is wider than the screen")

    def test_it_is_drawn(self):
        keep = os.environ.get("REPORT_SCREENSHOTS", self.dir)
        for name, options in (("light", []), ("dark", ["--blink-settings=preferredColorScheme=0"])):
            picture = os.path.join(keep, "report-%s.png" % name)
            browse("file://" + self.page, os.path.join(self.dir, "profile"), "--window-size=1200,1600", "--hide-scrollbars",
                   "--screenshot=" + picture, *options)
            rows, width, height = colours(picture)
            self.assertEqual((width, height), (1200, 1600))
            self.assertGreater(rows, 100)


if __name__ == "__main__":
    if BROWSER is None:
        print("SKIPPED: no chromium here")
        sys.exit(77)
    unittest.main()
