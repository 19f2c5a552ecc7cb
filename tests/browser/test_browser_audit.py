"""An audit's page opens from a file without errors, fits its window, and its links lead to their rows."""

import json
from html import escape

import numpy as np
import pytest

from fanin.audit import Finding, Operation, Trace, measure
from fanin.report import Report

HOSTILE = "</script><script>console.error('run')</script><img src=x onerror=console.error('run')>"


def report():
    """A residual network of long names, one of them hostile, with a finding of each level."""
    rng = np.random.default_rng(0)
    operations = []
    for k in range(60):
        prefix = f"transformer.encoder.a_rather_long_name.layers.{k}.feed_forward"
        for name, layer in ((f"{prefix}.projection", "Linear"), (f"{prefix}.{HOSTILE}", HOSTILE)):
            values = rng.standard_normal((8, 16)) * 0.8**k
            operations.append(
                Operation(
                    name=name,
                    kind="other",
                    layer=layer,
                    inputs=(len(operations) - 1,),
                    after=measure.signal(values),
                    backward=measure.spread(values),
                )
            )
    trace = Trace("torch", (), tuple(operations), outputs=(len(operations) - 1,))
    findings = tuple(
        Finding(
            code="forward-scale",
            level=level,
            where=f"layers 0 to 59 {HOSTILE}",
            measured="-0.1 decades per layer",
            expected="at most 1 decade in all",
            why="Every layer scales the signal.",
            advice="draw with he_normal",
            at=tuple(operation.name for operation in operations[:20:3]),
            snippet="import fanin.torch as ft\n" + "x" * 200,
        )
        for level in ("fail", "warn", "info")
    )
    return Report(trace, findings)


def answer(opened):
    assert opened.console == []
    return json.loads(opened.said)


FITS = """
[document.documentElement.scrollWidth, innerWidth, matchMedia('(prefers-color-scheme: dark)').matches]
"""


@pytest.mark.parametrize("width", [400, 820, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_opens_without_errors_and_fits_its_window(open_page, width, dark):
    needs, has, is_dark = answer(open_page(report().to_html(), FITS, width, dark=dark))
    assert needs <= has
    assert is_dark is dark


def test_an_error_in_a_page_would_be_seen(open_page):
    page = report().to_html().replace("<main>", "<main><script>console.error('seen')</script>")
    assert any("seen" in line for line in open_page(page).console)


def test_the_reader_sees_every_row_and_no_foreign_element(open_page):
    kinds = ["tbody tr", "svg", "img", "main script", "details"]
    script = f"{json.dumps(kinds)}.map(kind => document.querySelectorAll(kind).length)"
    rows, pictures, images, scripts, details = answer(open_page(report().to_html(), script))
    assert (rows, pictures, images, scripts) == (120, 4, 0, 0)
    assert details > 1


CLICK = """
(async () => {
  const link = document.querySelector('svg g.forward a[href="#row-100"]');
  link.dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true}));
  await new Promise(done => setTimeout(done, 200));
  const row = document.querySelector('tr:target'), box = row.getBoundingClientRect();
  const frame = document.querySelector('.rows').getBoundingClientRect();
  const head = document.querySelector('thead th').getBoundingClientRect();
  const inside = box.top >= head.bottom - 1 && box.bottom <= frame.bottom + 1;
  return [row.id, inside, box.top >= 0 && box.bottom <= innerHeight];
})()
"""


def test_a_click_on_a_point_brings_its_row_into_view(open_page):
    assert answer(open_page(report().to_html(), CLICK)) == ["row-100", True, True]


CONTRAST = """
(() => {
  const channels = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const light = text => {
    const linear = c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
    const [r, g, b] = channels(text).map(c => linear(c / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const ground = light(getComputedStyle(document.body).backgroundColor);
  const places =
    ['p.verdict', 'td.n', 'small', 'figcaption', '.both .forward', '.both .backward', 'svg text'];
  return places.map(x => {
    const style = getComputedStyle(document.querySelector(x));
    const ink = light(x == 'svg text' ? style.fill : style.color);
    return [x, (Math.max(ink, ground) + .05) / (Math.min(ink, ground) + .05)];
  });
})()
"""


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_the_contrast_that_wcag_asks_for(open_page, dark):
    for place, ratio in answer(open_page(report().to_html(), CONTRAST, dark=dark)):
        assert ratio >= 4.5, place


FRAME = """
(async () => {
  const inside = () => document.querySelector('iframe').contentDocument;
  inside().querySelector('svg g.forward a[href="#row-100"]').dispatchEvent(
    new MouseEvent('click', {bubbles: true, cancelable: true}));
  await new Promise(done => setTimeout(done, 300));
  return [inside().querySelector('tr:target').id, location.hash];
})()
"""


def test_in_a_notebook_a_link_stays_inside_its_frame(open_page):
    frame = report()._repr_html_().replace("<iframe sandbox ", '<iframe sandbox="allow-same-origin" ')
    page = f"<!doctype html><html><head><title>{escape('notebook')}</title></head><body>{frame}</body></html>"
    assert answer(open_page(page, FRAME)) == ["row-100", ""]
