"""An audit's report says what the trace says: in a page, in the terminal, as JSON and as annotations."""

import dataclasses
import io
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from fanin import HeNormal, LecunNormal
from fanin.audit import Finding, measure
from fanin.audit.trace import Operation, Trace
from fanin.errors import ArgumentError
from fanin.fans import IO
from fanin.model import Model, Piece, Tensor
from fanin.report import Report
from fanin.report.outline import Branch, Fold, folded, outline

HOSTILE = "</script><img src=x onerror=alert(1)>&\"'[red]b[/red]\x1b[31m"


def chain(depth, initializer=None, width=32, prefix=""):
    """A chain of dense layers with ReLU between, measured on a normal batch."""
    initializer = HeNormal() if initializer is None else initializer
    names = [f"{prefix}{2 * k}.weight" for k in range(depth)]
    values = {name: initializer((width, width), seed=0, name=name) for name in names}
    pieces = [Piece(name, "kernel", "dense", IO, activation="relu") for name in names]
    tensors = tuple(Tensor(piece.name, (width, width), "float32", (piece,)) for piece in pieces)
    x, gradient = np.random.default_rng(0).standard_normal((2, 16, width)).astype(np.float32)
    before, signals = measure.signal(x), []
    for name in names:
        signals += [x @ values[name], np.maximum(x @ values[name], 0)]
        x = signals[-1]
    signals.pop()  # the head has no activation
    gradients = [gradient]
    for k in reversed(range(1, depth)):
        gradients.append(gradients[-1] @ values[names[k]].T)
        gradients.append(gradients[-1] * (signals[2 * k - 2] > 0))
    operations = tuple(
        Operation(
            name=f"{prefix}{k}",
            kind="activation" if k % 2 else "dense",
            layer="ReLU" if k % 2 else "Linear",
            inputs=(k - 1,),
            after=measure.signal(signal),
            parameters=() if k % 2 else (names[k // 2],),
            activation="relu" if k % 2 else None,
            backward=measure.spread(gradient),
        )
        for k, (signal, gradient) in enumerate(zip(signals, reversed(gradients), strict=True))
    )
    weights = tuple(measure.weights(Model(tensors), values.get))
    return Trace("torch", weights, operations, (before,), (len(operations) - 1,))


def finding(code="forward-scale", level="fail", **changes):
    said = {key: f"{key} of {code}" for key in ("where", "measured", "expected", "why", "advice")}
    return Finding(**({"code": code, "level": level} | said | changes))


def simple(names, rms=1.0, layer="Linear"):
    """A trace of operations of one size, one after another."""
    one = measure.signal(np.full((2, 2), rms))
    operations = tuple(Operation(name, "other", layer, (k - 1,), one) for k, name in enumerate(names))
    return Trace("torch", (), operations, (one,), (len(operations) - 1,))


FADING = Report(
    chain(20, LecunNormal()),
    (
        finding(at=("0", "2"), snippet='ft.initialize(model, "he_normal")', after="1.0 at every layer"),
        finding("wrong-gain", "warn", at=("8.weight",)),
        finding("dead-units", "info", at=("no such name",)),
    ),
)


# the outcome


@pytest.mark.parametrize(
    ("levels", "ok", "start"),
    [
        ((), True, "Nothing speaks against training: the signal stays within "),
        (("info",), True, "Nothing speaks against training: "),
        (("warn", "info"), False, "It may train, but slower or less surely; where of a: measured of a."),
        (
            ("fail", "warn"),
            False,
            "Do not expect it to train; where of a: measured of a (and 1 more finding).",
        ),
    ],
)
def test_the_verdict_is_one_sentence_by_the_gravest_finding(levels, ok, start):
    findings = tuple(finding(code, level) for code, level in zip("ab", levels, strict=False))
    report = Report(chain(3), findings)
    assert report.ok is ok
    assert report.verdict.startswith(start)
    assert report.verdict.count(". ") == 0


def test_the_range_of_a_healthy_chain_is_that_of_its_trunk():
    trace = chain(3)
    scales = [operation.after.rms for operation in trace.operations]
    assert f"within {min(scales):.3f} to {max(scales):#.3g} forward" in Report(trace, ()).verdict


def test_weights_alone_have_a_verdict_and_a_page():
    report = Report(dataclasses.replace(chain(3), operations=(), batch=(), outputs=()), ())
    assert report.verdict == "Nothing speaks against these 3 parameters; no batch was run."
    page = Page(report.to_html())
    assert page.rows() == ["0.weight", "2.weight", "4.weight"]
    assert page.tags.count("svg") == 1
    assert "4.weight" in str(report)


def test_a_report_of_nothing_at_all_is_a_page_too():
    report = Report(Trace("", ()), ())
    assert "Nothing speaks against these 0 parameters" in str(report)
    assert Page(report.to_html()).rows() == []


# JSON


def test_json_comes_back_the_same_even_where_numbers_are_not_finite():
    broken = dataclasses.replace(FADING.trace, loss=math.inf, blind_loss=math.nan)
    report = dataclasses.replace(FADING, trace=broken)
    text = report.to_json()
    back = Report.from_json(text)
    assert repr(back) == repr(report)  # nan equals nan in a repr
    assert back.to_json() == text
    assert back.verdict == report.verdict


def test_json_is_strict_and_starts_with_schema_and_verdict():
    def refuse(constant):
        raise AssertionError(constant)

    trace = dataclasses.replace(FADING.trace, loss=math.nan)
    data = json.loads(Report(trace, FADING.findings).to_json(), parse_constant=refuse)
    assert list(data) == ["schema", "ok", "verdict", "trace", "findings"]
    assert data["schema"] == "fanin.audit/1"
    assert data["trace"]["loss"] == "nan"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda s: s[:100], "report.json: .*line "),
        (lambda _: "[]", "report.json: schema None; expected 'fanin.audit/1'"),
        (lambda s: s.replace("fanin.audit/1", "fanin.audit/9"), "schema 'fanin.audit/9'; expected"),
        (lambda s: s.replace("fanin.trace/1", "fanin.trace/9"), "trace of schema 'fanin.trace/9'"),
        (lambda s: s.replace('"level": "fail"', '"level": "bad"'), "report.json: .*'bad'.*findings"),
        (lambda s: s.replace('"kind": "dense"', '"kind": "dance"', 1), "no kind 'dance'"),
        (lambda s: s.replace('"advice": ', '"advise": ', 1), "report.json: .*`advice`"),
    ],
)
def test_json_that_does_not_fit_is_an_error_with_its_place(change, text):
    with pytest.raises(ArgumentError, match=text):
        Report.from_json(change(FADING.to_json()), "report.json")


# files


@pytest.mark.parametrize("suffix", [".html", ".json", ".HTML"])
def test_it_is_saved_by_suffix_and_leaves_nothing_else(tmp_path, suffix):
    place = tmp_path / f"audit{suffix}"
    place.write_text("what was there")
    FADING.save(place)
    expected = FADING.to_json() if suffix == ".json" else FADING.to_html()
    assert place.read_text(encoding="utf-8") == expected
    assert [path.name for path in tmp_path.iterdir()] == [place.name]


def test_a_place_that_cannot_be_written_is_an_error_and_what_was_there_stays(tmp_path):
    with pytest.raises(ArgumentError, match=r"`path` 'a.pdf': its suffix must be .html or .json"):
        FADING.save("a.pdf")
    with pytest.raises(ArgumentError, match=r"cannot be written: No such file"):
        FADING.save(tmp_path / "none" / "audit.html")
    (tmp_path / "audit.html").mkdir()
    with pytest.raises(ArgumentError, match=r"audit.html' cannot be written: Is a directory"):
        FADING.save(tmp_path / "audit.html")
    assert [path.name for path in tmp_path.iterdir()] == ["audit.html"]


def test_names_that_no_encoding_has_can_be_saved(tmp_path):
    odd = Report(simple(["a\ud800"]), (finding(where="a\ud800"),))
    for name in ("audit.html", "audit.json"):
        odd.save(tmp_path / name)
    assert repr(Report.from_json((tmp_path / "audit.json").read_text())) == repr(odd)
    assert "a\\ud800" in (tmp_path / "audit.html").read_text()


# annotations


def test_each_finding_is_an_annotation_of_its_level():
    lines = FADING.github().splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["::error", "::warning", "::notice"]
    assert lines[0].startswith("::error title=fanin forward-scale%3A where of forward-scale::measured: ")


def test_annotations_escape_as_the_runner_reads_them():
    odd = finding(where="50%: a,b\n::error::x", measured="5 %\r\nof ::set-output name=x::1")
    (line,) = Report(FADING.trace, (odd,)).github().splitlines()
    command, _, message = line.removeprefix("::error title=").partition("::")
    assert command == "fanin forward-scale%3A 50%25%3A a%2Cb%0A%3A%3Aerror%3A%3Ax"
    decoded = message.replace("%0A", "\n").replace("%0D", "\r").replace("%25", "%")
    assert decoded.startswith("measured: 5 %\r\nof ::set-output name=x::1\n")


# the page


class Page(HTMLParser):
    """Collects tags, attributes and text, and insists that tags are closed in order."""

    VOID = {"meta", "wbr", "br"}  # noqa: RUF012

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append((tuple(self.open), data))

    def said(self):
        return " ".join("".join(data for _, data in self.text).split())

    def rows(self):
        """The names at the head of the table's rows."""
        heads = ("tbody", "tr", "th", "code")
        return "".join(
            data if inside[-4:] == heads else "\n" for inside, data in self.text if inside[-1:] != ("wbr",)
        ).split()


def test_the_page_shows_verdict_findings_rows_and_tree():
    page = Page(FADING.to_html())
    said = page.said()
    assert FADING.verdict in said
    for one in FADING.findings:
        for shown in (one.code, one.where, one.measured, one.expected, one.why, one.advice, one.snippet):
            assert shown in said
    assert "1.0 at every layer" in said
    assert page.rows() == [str(k) for k in range(39)]
    assert page.tags.count("svg") == 4
    first = FADING.trace.operations[0]
    assert f"(→ {first.after.rms:.2f}, ← {first.backward.rms:.2e}".replace("e-0", "e-") in said


def test_findings_stand_in_their_order_and_link_to_their_rows():
    text = FADING.to_html()
    assert re.findall(r'<article class="card (\w+)" id="finding-(\d)">', text) == [
        *(("fail", "0"), ("warn", "1"), ("info", "2")),
    ]
    cards = re.findall(r"<article.*?</article>", text, flags=re.DOTALL)
    assert [re.findall(r'href="(#row-\d+)"', card) for card in cards] == [
        ["#row-0", "#row-2"],
        ["#row-8"],
        [],
    ]


def test_a_repair_that_several_findings_share_is_written_once():
    same = tuple(finding(code, snippet="import fanin.torch as ft") for code in "abc")
    report = Report(chain(3), same)
    said = Page(report.to_html()).said()
    assert (said.count("import fanin.torch as ft"), said.count("as above")) == (1, 2)
    assert str(report).count("import fanin.torch as ft") == 1


def test_a_finding_links_to_each_row_once():
    names = ("0", "0.weight", "2.weight", "2")
    text = Report(chain(3), (finding(at=names),)).to_html()
    card = re.search(r"<article.*?</article>", text, flags=re.DOTALL)[0]
    assert re.findall(r'href="(#row-\d+)"', card) == ["#row-0", "#row-2"]


def test_every_link_leads_to_something_in_the_page():
    names = [f"blocks.{k}.{part}" for k in range(30) for part in ("norm", "fc:mul", "fc")]
    for report in (FADING, Report(simple(names), (finding(at=("blocks.3", "blocks.29.fc")),))):
        page = Page(report.to_html())
        ids = [value for name, value in page.attributes if name == "id"]
        links = {value for name, value in page.attributes if name == "href"}
        assert len(ids) == len(set(ids))
        assert links <= {f"#{each}" for each in ids}


def test_every_point_of_a_picture_is_a_link_to_its_row():
    pictures = re.findall(r"<svg.*?</svg>", FADING.to_html(), flags=re.DOTALL)
    for picture in pictures:
        assert re.findall(r'<a href="#row-(\d+)">', picture) == [str(k) for k in range(39)]


def test_the_page_asks_nothing_of_the_network_and_runs_no_script():
    text = FADING.to_html()
    page = Page(text)
    assert not {"script", "link", "iframe", "img", "object", "embed", "base", "form"} & set(page.tags)
    for name, value in page.attributes:
        assert not name.startswith("on")
        if name in ("href", "src", "action", "data", "xlink:href"):
            assert value.startswith("#"), (name, value)
    assert not re.search(r"@import|https?:|url\((?!#)", text)


def test_text_from_outside_is_escaped_everywhere():
    names = [f"{HOSTILE}.{k}:{HOSTILE}" for k in range(5)]
    trace = dataclasses.replace(simple(names, layer=HOSTILE), framework=HOSTILE, optimizer=HOSTILE)
    gates = {HOSTILE: trace.operations[0].after}
    weights = dataclasses.replace(chain(1).weights[0], name=HOSTILE, layer=HOSTILE)
    first = dataclasses.replace(trace.operations[0], gates=gates, parameters=(HOSTILE,), activation=HOSTILE)
    trace = dataclasses.replace(trace, operations=(first, *trace.operations[1:]), weights=(weights,))
    hostile = dict.fromkeys(("where", "measured", "expected", "why", "advice", "snippet", "after"), HOSTILE)
    findings = tuple(finding(HOSTILE, level, at=(names[1], HOSTILE), **hostile) for level in ("fail", "info"))
    for shown in (trace, dataclasses.replace(trace, operations=(), outputs=())):
        report = Report(shown, findings)
        page = Page(report.to_html())
        assert not {"script", "img"} & set(page.tags)
        assert not [name for name, _ in page.attributes if name.startswith("on")]
        assert HOSTILE.replace("\x1b", "\\x1b") in page.said()
        assert "\x1b" not in report.to_html() + str(report)
        assert "[red]b[/red]" in str(report)


def test_zero_nan_and_broken_signals_are_drawn_and_said():
    trace = chain(6)
    values = [0.0, math.nan, math.inf, 1e-300, 1e300]
    changed = [
        dataclasses.replace(
            operation,
            after=dataclasses.replace(operation.after, rms=value, broken=k, cosine=None, magnitudes={}),
            backward=dataclasses.replace(operation.backward, rms=value),
        )
        for k, (operation, value) in enumerate(zip(trace.operations, values, strict=False))
    ]
    report = Report(dataclasses.replace(trace, operations=(*changed, *trace.operations[5:])), ())
    said = Page(report.to_html()).said()
    for shown in ("nan", "inf", "1.00e-300", "1.00e300", "4 not finite"):
        assert shown in said
    assert report.to_html().count('class="off"') == 6
    assert "9 not finite" in str(report)  # 2, 3 and 4, in one line


def test_a_page_of_three_hundred_layers_stays_small_and_shows_each():
    report = Report(chain(300, prefix="transformer.blocks.0.feed_forward."), FADING.findings)
    text = report.to_html()
    assert len(text.encode()) < 2_000_000
    assert len(Page(text).rows()) == 599


def test_a_page_of_a_great_many_parameters_says_what_it_leaves_out():
    one = chain(1).weights[0]
    weights = tuple(dataclasses.replace(one, name=f"layers.{k}.weight") for k in range(5000))
    report = Report(Trace("torch", weights), (finding(at=("layers.2500.weight",)),))
    text = report.to_html()
    assert len(text.encode()) < 2_000_000
    page = Page(text)
    assert "1,200 rows of 5,000" in page.said()
    rows = page.rows()
    assert len(rows) == 1200
    assert {"layers.0.weight", "layers.2500.weight", "layers.4999.weight"} <= set(rows)
    assert "and 4,600 more" in str(report)


def test_a_notebook_shows_the_page_in_a_frame_of_its_own():
    page = Page(FADING._repr_html_())
    assert page.tags == ["iframe"]
    inside = dict(page.attributes)["srcdoc"]
    assert inside.replace('<base href="about:srcdoc">', "") == FADING.to_html()
    assert "sandbox" in dict(page.attributes)


def test_the_same_report_gives_the_same_bytes():
    assert FADING.to_html() == Report.from_json(FADING.to_json()).to_html()


# the tree of modules


def test_equal_blocks_are_folded_but_for_the_first_and_the_last():
    names = [f"h.{k}.{part}" for k in range(12) for part in ("ln", "attn.qkv", "attn:softmax", "mlp")]
    (tree,) = outline(simple(["embed", *names, "head"]).operations)[1:2]
    assert isinstance(tree, Branch)
    first, middle, last = folded(tree.parts)
    assert (first.label, middle.label, middle.count, last.label) == ("0", "1 … 10", 10, "11")
    assert isinstance(middle, Fold)
    assert list(middle.operations) == list(range(5, 45))


def test_blocks_that_a_finding_names_stay_in_sight():
    names = [f"h.{k}.{part}" for k in range(12) for part in ("ln", "mlp")]
    (tree,) = outline(simple(names).operations)
    labels = [part.label for part in folded(tree.parts, kept={9})]
    assert labels == ["0", "1 … 3", "4", "5 … 10", "11"]


def test_a_chain_without_modules_folds_by_its_period():
    parts = outline(chain(10).operations)
    assert [part.label for part in folded(parts)] == ["0", "1", "2 … 15", "16", "17", "18"]


def test_blocks_of_other_shapes_are_not_alike():
    small, large = (measure.signal(np.ones((2, units))) for units in (2, 4))
    trace = simple([f"{k}" for k in range(8)])
    operations = tuple(
        dataclasses.replace(operation, after=small if k < 4 else large)
        for k, operation in enumerate(trace.operations)
    )
    assert [part.label for part in folded(outline(operations))] == ["0", "1 … 2", "3", "4", "5 … 6", "7"]


@pytest.mark.parametrize("name", ["", ":add", "a..b", ".", "a" * 3000, "a." * 3000])
def test_any_name_has_a_place_in_the_tree(name):
    report = Report(simple(["x", name]), ())
    assert [at for part in outline(report.trace.operations) for at in part.operations] == [0, 1]
    Page(report.to_html())


# the terminal


def printed(report, width):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    report.show(console)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 140])
def test_the_terminal_shows_verdict_rows_and_findings_in_its_width(width):
    long = [f"transformer.encoder.layers.{k}.feed_forward.projection" for k in range(3)]
    for report in (FADING, Report(simple(long), FADING.findings)):
        text = printed(report, width)
        assert max(map(len, text.splitlines())) <= width
        assert "…" not in text.replace(" … ", "")
        assert " ".join(text.split()).startswith(report.verdict)
        for one in report.findings:
            assert one.measured in text
            assert one.advice in text
    assert 'ft.initialize(model, "he_normal")' in printed(FADING, width)


def test_the_terminal_folds_equal_blocks_and_keeps_those_with_findings():
    lines = [line for line in printed(FADING, 80).splitlines() if "alike)" in line]
    assert [line.split("  ")[0].strip() for line in lines] == ["4 … 7 (2 alike)", "10 … 35 (13 alike)"]


def test_bars_show_on_which_side_of_one_a_scale_lies():
    def bar(rms):
        line = next(line for line in printed(Report(simple(["a"], rms), ()), 80).splitlines() if "│" in line)
        left, _, right = line.partition("│")
        return left.count("█"), right.count("█")

    assert bar(1.0) == (0, 0)
    assert bar(1e-2) == (4, 0)
    assert bar(1e2) == (0, 4)
