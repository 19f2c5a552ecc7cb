"""The command line: parse, call, print, exit code (0 fine, 1 findings, 2 usage or bad input)."""

import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

import fanin
from fanin.dialects import across
from fanin.errors import ArgumentError, FaninError
from fanin.initializers.catalogue import CATALOGUE, SYNONYMS

app = typer.Typer(
    name="fanin",
    help="Parameter initialization for neural networks: one seed, one network.",
    epilog="Start with: fanin list, then fanin show he_normal --shape 784x256 --plot",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
recipe_app = typer.Typer(no_args_is_help=True, help="Recipes: what kinds of parameters get.")
app.add_typer(recipe_app, name="recipe")
out = Console()

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


@app.command("list")
def list_(as_json: Json = False) -> None:
    """Every initializer by name, with its formula and source."""
    if as_json:
        print(json.dumps([{"name": name, **_facts(name)} for name in fanin.names()], indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("name", "formula", "source"):
        table.add_column(column, overflow="fold")
    for name in fanin.names():
        facts = _facts(name)
        table.add_row(Text(name, "bold"), Text(facts["formula"]), Text(facts["source"]))
    out.print(table)
    out.print("\nsynonyms: " + ", ".join(f"{new} = {old}" for new, old in SYNONYMS.items()))
    out.print("named recipes: " + ", ".join(fanin.recipes.names()))


def _facts(name: str) -> dict[str, str]:
    cls = CATALOGUE[name]
    return {"formula": cls.formula, "source": cls.reference}


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A name or expression: he_normal, 'orthogonal(gain=1.5)'.")],
    shape: Annotated[
        str, typer.Option(help="Shape of the weight, such as 784x256 or 3,3,64,128.")
    ] = "784x256",
    axes: Annotated[str, typer.Option(help="io: (..., in, out); oi: (out, in, ...).")] = "io",
    seed: Annotated[int, typer.Option(help="Seed of the draw for --plot.")] = 0,
    plot: Annotated[bool, typer.Option("--plot", help="Draw a histogram of one tensor.")] = False,
    dialect: Annotated[
        str, typer.Option(help="Compare what frameworks mean by it: torch,keras,jax,flax,tf1,fanin.")
    ] = "",
    as_json: Json = False,
) -> None:
    """What an initializer does to a shape: distribution, limit, standard deviations, fans, formula."""
    sizes = parse_shape(shape)
    if dialect:
        _show_dialects(name, dialect, sizes, axes, as_json)
        return
    initializer = fanin.get(name)
    description = initializer.describe(sizes, axes)
    values = initializer(sizes, seed=seed, name="show", axes=axes) if plot else None
    if as_json:
        print(json.dumps(_plain(description), indent=2))
        return
    table = Table.grid(padding=(0, 2))
    for label, text in description.rows():
        table.add_row(Text(label, "dim"), Text(text))
    out.print(table)
    if values is not None:
        out.print(Text(histogram(values)))


def _show_dialects(name: str, dialects: str, shape: tuple[int, ...], axes: str, as_json: bool) -> None:
    """One column per dialect, cells that differ from the first marked, and what differs in words."""
    result = across(name, re.split(r"[ ,]+", dialects.strip(" ,")), shape, axes)
    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("", *result.columns):
        table.add_column(column, overflow="fold")
    for what, cells in result.rows:
        marked = [Text(cell + (" *" if cell != cells[0] else "")) for cell in cells]
        table.add_row(Text(what, "dim"), *marked)
    out.print(table)
    for sentence in result.sentences:
        out.print(Text("\n" + sentence))


def _plain(description: fanin.Description) -> dict[str, Any]:
    data = dict(vars(description))
    data["fans"] = None if description.fans is None else description.fans._asdict()
    return data


def parse_shape(text: str) -> tuple[int, ...]:
    """``784x256`` or ``784,256`` as a tuple."""
    parts = [part for part in re.split(r"[x, ()\[\]]+", text.strip()) if part]
    if not all(part.isdecimal() for part in parts):
        raise ArgumentError(f"--shape {text!r}: expected sizes such as 784x256 or 3,3,64,128")
    return tuple(int(part) for part in parts)


def histogram(values: Any, rows: int = 15, width: int = 50) -> str:
    """A histogram in text, one row per bin, with the sample's mean and standard deviation."""
    if values.size == 0:
        return "no values"
    counts, edges = np.histogram(values, bins=rows)
    lines = [
        f"{left:>11.4g} {'█' * round(width * int(count) / int(counts.max()))} {count}"
        for left, count in zip(edges, counts, strict=False)
    ]
    summary = f"{values.size} values, mean {values.mean():.4g}, std {values.std():.4g}"
    return "\n".join(["", *lines, f"{edges[-1]:>11.4g}", "", summary])


Target = Annotated[
    str,
    typer.Argument(
        help="package.module:name of a model or of what returns one; a saved plan; a transformers "
        "config.json; a safetensors file, for its names and shapes."
    ),
]


def _planned(target: str, recipe: str, seed: int) -> fanin.Plan:
    from fanin.loading import plan_of

    return plan_of(target, recipe, seed)


@app.command()
def plan(
    target: Target,
    recipe: Annotated[
        str, typer.Option(help="A named recipe, an initializer, or a TOML or JSON file.")
    ] = "he_normal",
    seed: Annotated[int, typer.Option(help="0 .. 2**64 - 1.")] = 0,
    fold: Annotated[bool, typer.Option("--fold", help="One line for parameters that are alike.")] = False,
    save: Annotated[Path | None, typer.Option(help="Write the plan to this JSON file, too.")] = None,
    digests: Annotated[
        bool, typer.Option("--digests", help="Make every tensor and add its SHA-256 to what is written.")
    ] = False,
    against: Annotated[
        Path | None, typer.Option(help="A saved plan: print what differs, exit code 1 if anything does.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What every parameter of a model would get; PyTorch models are built without memory for weights."""
    made = _planned(target, recipe, seed)
    made = made.with_digests() if digests else made
    if save is not None:
        made.save(save)
    if against is not None:
        changes = fanin.Plan.from_file(against).diff(made)
        for change in changes:
            out.print(Text(str(change)))
        out.print(f"{len(changes)} differences")
        raise typer.Exit(1 if changes else 0)
    print(made.to_json() if as_json else made.table(fold=fold))


@app.command("init")
def init_(
    target: Target,
    to: Annotated[Path, typer.Option("--out", help="Folder of the checkpoint.")],
    recipe: Annotated[str, typer.Option(help="For a model: recipe, initializer or file.")] = "he_normal",
    seed: Annotated[int, typer.Option(help="For a model: 0 .. 2**64 - 1.")] = 0,
    max_shard_size: Annotated[str, typer.Option(help="Largest file, such as 5GB.")] = "5GB",
    workers: Annotated[int, typer.Option(help="Threads that make and write.")] = 1,
    part: Annotated[
        str, typer.Option(help="k/n: make the k-th of n parts, here or on another host.")
    ] = "1/1",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written.")] = False,
    as_json: Json = False,
) -> None:
    """Write a plan's tensors to safetensors files, larger than memory, without any framework."""
    from fanin.materialize import materialize, parse_size, planned

    made = _planned(target, recipe, seed)
    largest = parse_size(max_shard_size)
    if dry_run:
        files = [{"file": name, "tensors": n, "bytes": size} for name, n, size in planned(made, largest)]
        print(json.dumps(files, indent=2) if as_json else _sizes(files))
        return
    with _progress(bytes_=True) as progress:
        bar = progress.add_task("writing", total=None)
        written = materialize(
            made,
            to,
            max_shard_size=largest,
            workers=workers,
            part=_part(part),
            resume=resume,
            on_progress=lambda done, total: progress.update(bar, completed=done, total=total),
        )
    if as_json:
        print(json.dumps(vars(written), indent=2))
        return
    rest = "" if written.finished else "; other parts are not finished"
    out.print(
        f"wrote {written.wrote:,} of {written.total:,} bytes to {to} ({len(written.files)} files){rest}"
    )


def _part(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if found is None:
        raise ArgumentError(f"--part {text!r}: expected k/n, such as 3/16")
    return int(found[1]), int(found[2])


def _sizes(files: list[dict[str, Any]]) -> str:
    lines = [f"{file['file']}  {file['tensors']} tensors  {file['bytes']:,} bytes" for file in files]
    return "\n".join([*lines, f"{sum(file['bytes'] for file in files):,} bytes in {len(files)} files"])


@app.command()
def verify(
    checkpoint: Annotated[Path, typer.Argument(help="A folder of safetensors files, or a file.")],
    target: Target,
    recipe: Annotated[str, typer.Option(help="For a model: recipe, initializer or file.")] = "he_normal",
    seed: Annotated[int, typer.Option(help="For a model: 0 .. 2**64 - 1.")] = 0,
    as_json: Json = False,
) -> None:
    """Make every value of a plan again and compare a checkpoint with it, bit for bit; exit code 1 if not."""
    from fanin.materialize import verify as run_verify

    made = _planned(target, recipe, seed)
    with _progress() as progress:
        bar = progress.add_task("comparing", total=None)
        found = run_verify(
            made,
            checkpoint,
            on_progress=lambda done, total: progress.update(bar, completed=done, total=total),
        )
    if as_json:
        print(json.dumps([vars(mismatch) for mismatch in found], indent=2))
    else:
        for mismatch in found:
            out.print(Text(str(mismatch)))
        out.print(f"{len(made.tensors)} tensors, {len(found)} differ")
    raise typer.Exit(1 if found else 0)


@app.command()
def transfer(
    target: Annotated[
        str,
        typer.Argument(
            help="package.module:name of a model or of what returns one; a transformers config.json."
        ),
    ],
    checkpoint: Annotated[Path, typer.Argument(help="A file or folder of weights, of any known format.")],
    recipe: Annotated[
        str, typer.Option(help="For what the checkpoint lacks: recipe, initializer or file.")
    ] = "",
    seed: Annotated[int, typer.Option(help="0 .. 2**64 - 1.")] = 0,
    rename: Annotated[
        list[str] | None, typer.Option(help="A=B: a front or glob of the checkpoint's keys, the model's.")
    ] = None,
    adapt: Annotated[
        list[str] | None,
        typer.Option(help="GLOB=NAME: an adapter, with options as rows:new=mean, draw or keep."),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(help="A plan of the checkpoint's model, saved by fanin plan --recipe keep --save."),
    ] = None,
    layout: Annotated[
        str, typer.Option(help="oi or io: how kernels are stored in the checkpoint, if not as in the model.")
    ] = "",
    save: Annotated[
        Path | None, typer.Option("--plan", help="Write the plan to this JSON file, too.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--out", help="Folder of the new checkpoint, or one file, *.safetensors.")
    ] = None,
    max_shard_size: Annotated[str, typer.Option(help="Largest file, such as 5GB.")] = "5GB",
    workers: Annotated[int, typer.Option(help="Threads that make and write.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; write no weights.")] = False,
    as_json: Json = False,
) -> None:
    """Load what a checkpoint has into another model, draw what it lacks, and write safetensors files."""
    from fanin import loading
    from fanin.materialize import materialize, parse_size
    from fanin.planning import without_kept_buffers

    if to is None and not dry_run:
        raise ArgumentError("--out: say the folder of the new checkpoint, or --dry-run")
    model = loading.load_model(target)
    adapter = loading.adapter_of(model)
    made = adapter.transfer(
        model,
        checkpoint,
        recipe or None,
        seed=seed,
        rename=dict(_pair("--rename", text) for text in rename or ()),
        adapt={glob: _adapter(text) for glob, text in (_pair("--adapt", each) for each in adapt or ())},
        source=source,
        layout=layout or None,
        dry_run=True,
    )
    made, kept = without_kept_buffers(made)
    if kept:
        typer.echo(f"not written, as the checkpoint has none of it: {', '.join(kept)}", err=True)
    if save is not None:
        made.save(save)
    if to is None or dry_run:
        print(made.to_json() if as_json else made.table(fold=True))
        return
    with _progress(bytes_=True) as progress:
        bar = progress.add_task("writing", total=None)
        written = materialize(
            made,
            to,
            max_shard_size=parse_size(max_shard_size),
            workers=workers,
            resume=resume,
            on_progress=lambda done, total: progress.update(bar, completed=done, total=total),
        )
    if as_json:
        print(json.dumps(vars(written), indent=2))
        return
    out.print(f"wrote {written.wrote:,} bytes to {to} ({len(written.files)} files)")


def _pair(option: str, text: str) -> tuple[str, str]:
    left, equals, right = text.partition("=")
    if not equals:
        raise ArgumentError(f"{option} {text!r}: expected two names joined by =")
    return left, right


def _adapter(text: str) -> Any:
    """``rows:new=mean``, ``classes:take=[0,2]`` or a bare name; several joined by +."""
    found: list[Any] = []
    for each in text.split("+"):
        name, colon, options = each.partition(":")
        if not colon:
            found.append(name)
            continue
        pairs = re.findall(r"(\w+)=(\[[^\]]*\]|[^,]+)", options)
        if ",".join("=".join(pair) for pair in pairs) != options:
            raise ArgumentError(f"--adapt {text!r}: expected options such as rows:new=mean")
        found.append((name, {key: _literal(value) for key, value in pairs}))
    return found[0] if len(found) == 1 else found


def _literal(text: str) -> Any:
    """A JSON value, or the text itself."""
    try:
        return json.loads(text.lower() if text in ("True", "False") else text)
    except ValueError:
        return text


@app.command()
def card(plan: Annotated[Path, typer.Argument(help="A saved plan.")]) -> None:
    """An init card in Markdown for a model card: recipe, seed, what was taken, adapted and drawn, digests."""
    from fanin.transfer import card as run_card

    print(run_card(fanin.Plan.from_file(plan)), end="")


@app.command()
def audit(
    target: Annotated[
        str,
        typer.Argument(
            help="package.module:name of a model or of what returns one; a transformers config.json; a "
            "checkpoint, for its weights alone."
        ),
    ],
    batch: Annotated[
        str, typer.Option(help="package.module:name of a batch or of what returns one; none: weights alone.")
    ] = "",
    loss: Annotated[str, typer.Option(help="package.module:name of loss(output, batch).")] = "",
    optimizer: Annotated[str, typer.Option(help="Whose first step to measure: 'adam 0.001'.")] = "",
    recipe: Annotated[
        str, typer.Option(help="Initialize first: a named recipe, an initializer, or a file.")
    ] = "",
    seed: Annotated[int, typer.Option(help="Of --recipe: 0 .. 2**64 - 1.")] = 0,
    select: Annotated[
        str, typer.Option(help="Codes of the checks to run, such as symmetry,dead-units.")
    ] = "",
    ignore: Annotated[str, typer.Option(help="Codes of the checks not to run.")] = "",
    html: Annotated[Path | None, typer.Option(help="Write the page to this file, too.")] = None,
    github: Annotated[bool, typer.Option("--github", help="Print annotations for GitHub Actions.")] = False,
    as_json: Json = False,
) -> None:
    """Will it train? What speaks against it before the first step; exit code 1 if anything does.

    Which checks run, and their thresholds, can be set in pyproject.toml under \\[tool.fanin.audit].
    """
    from fanin.audit import config, examine
    from fanin.report import Report

    asked = config.load(config.find())
    chosen = _codes(select) or asked.select
    left_out = (*asked.ignore, *(_codes(ignore) or ()))
    examine(fanin.audit.Trace("", ()), chosen, left_out, asked.checks)  # an unknown code is said at once
    trace = _traced(target, batch, loss, optimizer, recipe, seed)
    report = Report(trace, examine(trace, chosen, left_out, asked.checks))
    if html is not None:
        report.save(html)
    if as_json or github:
        print(report.to_json() if as_json else report.github(), end="")
    else:
        report.show(out)
    raise typer.Exit(0 if report.ok else 1)


def _traced(target: str, batch: str, loss: str, optimizer: str, recipe: str, seed: int) -> Any:
    """The trace of a model and a batch, or of weights alone."""
    from fanin import loading

    with _progress() as progress:
        bar = progress.add_task("measuring", total=None)

        def show(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total)

        given = {"--batch": batch, "--loss": loss, "--optimizer": optimizer, "--recipe": recipe}
        if loading.is_checkpoint(target):
            for option in [name for name, value in given.items() if value]:
                raise ArgumentError(
                    f"{option}: {target!r} has weights alone; give a model, package.module:name"
                )
            return loading.stored_trace(target, show)
        model = loading.load_model(target, memory=True)
        adapter = loading.adapter_of(model)
        if recipe:
            adapter.initialize(model, recipe, seed=seed)
        if not batch:
            for option in ("--loss", "--optimizer"):
                if given[option]:
                    raise ArgumentError(f"{option} needs a --batch, package.module:name")
            return loading.weights_of(model, show)
        arguments = {"loss": loading.load("loss", loss) if loss else None, "optimizer": optimizer or None}
        return adapter.trace(model, loading.load_value("batch", batch), **arguments)


def _codes(text: str) -> tuple[str, ...] | None:
    return tuple(part for part in re.split(r"[ ,]+", text) if part) or None


@app.command()
def calibrate(
    target: Annotated[
        str, typer.Argument(help="package.module:name of a model or of what returns one, built with weights.")
    ],
    batch: Annotated[
        str, typer.Option(help="package.module:name of a batch or of what returns one; analytic needs none.")
    ] = "",
    method: Annotated[
        str,
        typer.Option(
            help="lsuv, weight_norm, krahenbuhl_within, krahenbuhl_between, analytic, jacobian, "
            "residual_scaling or head."
        ),
    ] = "lsuv",
    recipe: Annotated[
        str, typer.Option(help="Initialize first: a named recipe, an initializer, or a file.")
    ] = "",
    seed: Annotated[int, typer.Option(help="Of --recipe: 0 .. 2**64 - 1.")] = 0,
    to: Annotated[Path | None, typer.Option("--out", help="Write the weights to this file.")] = None,
    save: Annotated[
        Path | None, typer.Option(help="With --recipe: write the plan that makes them to this JSON file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Scale a model's layers to what one batch shows, and say what they were and are."""
    from fanin import loading
    from fanin.calibrate import checked

    value = loading.load_value("batch", batch) if batch else None
    checked(method, {}, value)
    if save is not None and not recipe:
        raise ArgumentError("--save needs a --recipe: without one nobody knows what made the weights")
    model = loading.load_model(target, memory=True)
    adapter = loading.adapter_of(model)
    planned = adapter.plan(model, recipe, seed=seed) if recipe else None
    if planned is not None:
        adapter.initialize(model, planned)
    result = adapter.calibrate(model, value, method, plan=planned)
    if to is not None:
        loading.save_weights(model, to)
    if save is not None:
        result.plan.save(save)
    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
        return
    out.print(Text(str(result)))


@recipe_app.command()
def infer(
    target: Annotated[
        str, typer.Argument(help="package.module:name of a model or of what returns one, built with weights.")
    ],
    to: Annotated[Path | None, typer.Option("--out", help="Write to this TOML file.")] = None,
) -> None:
    """Which recipe would draw a model's values? Commented TOML, with what was measured for each rule."""
    from fanin import loading
    from fanin.audit.infer import infer as run_infer

    model = loading.load_model(target, memory=True)
    with _progress() as progress:
        bar = progress.add_task("measuring", total=None)
        trace = loading.weights_of(
            model, lambda done, total: progress.update(bar, completed=done, total=total)
        )
    found = run_infer(trace.weights, framework=trace.framework, target=target)
    if to is None:
        print(found.text, end="")
        return
    to.write_text(found.text, encoding="utf-8")
    out.print(f"wrote {len(found.recipe.rules)} rules for {len(trace.weights)} parameters to {to}")


@app.command()
def compare(
    init: Annotated[
        list[str] | None,
        typer.Option(help="Expression to compare, repeatable; default: the tutorial's methods."),
    ] = None,
    activation: Annotated[str, typer.Option(help="Activation of the hidden layers.")] = "relu",
    depth: Annotated[int, typer.Option(help="Hidden layers.")] = 30,
    width: Annotated[int, typer.Option(help="Units of each.")] = 64,
    steps: Annotated[int, typer.Option(help="Training steps.")] = 400,
    seeds: Annotated[int, typer.Option(help="Networks per learning rate.")] = 5,
    task: Annotated[
        str,
        typer.Option(
            help="digits, halves (5 to 9, with a row pretrained on 0 to 4), spirals, or a CSV file (last "
            "column: label)."
        ),
    ] = "digits",
    calibrate: Annotated[
        str, typer.Option(help="Calibrate every start first: lsuv, weight_norm, analytic, ...")
    ] = "",
    reports: Annotated[Path, typer.Option(help="Folder for compare.html and compare.json.")] = Path(
        "reports"
    ),
    as_json: Json = False,
) -> None:
    """Train the same networks from several initializers, fairly, and say what differs.

    Every initializer gets its own best learning rate out of seven, the same steps, the same batches and at
    least five seeds; where the difference is within the noise, the table says so.
    """
    from fanin.lab import compare as run_compare
    from fanin.report import compare_html, compare_table

    with _progress() as progress:
        bar = progress.add_task("preparing", total=None)
        result = run_compare(
            init,
            activation=activation,
            depth=depth,
            width=width,
            steps=steps,
            seeds=seeds,
            task=task,
            calibrate=calibrate or None,
            on_progress=lambda done, total, text: progress.update(
                bar, completed=done, total=total, description=text
            ),
        )
    reports.mkdir(parents=True, exist_ok=True)
    (reports / "compare.html").write_text(compare_html(result), encoding="utf-8")
    (reports / "compare.json").write_text(result.to_json(), encoding="utf-8")
    if as_json:
        print(result.to_json())
        return
    out.print(compare_table(result))
    out.print(f"\nwrote {reports / 'compare.html'} and {reports / 'compare.json'}")


@app.command()
def bench(
    elements: Annotated[int, typer.Option(help="float32 numbers per fill.")] = 1 << 26,
    turns: Annotated[int, typer.Option(help="Turns each pair of processes takes.")] = 7,
    as_json: Json = False,
) -> None:
    """How fast tensors are filled here, beside the frameworks that are installed.

    One process per peer, one core each, the two taking turns; a ratio is the median over the turns.
    """
    from fanin.lab.bench import bench as run_bench

    with _progress() as progress:
        bar = progress.add_task("starting", total=None)
        results = run_bench(
            elements=elements,
            turns=turns,
            on_progress=lambda done, total, text: progress.update(
                bar, completed=done, total=total, description=text
            ),
        )
    if as_json:
        print(json.dumps([result.to_dict() for result in results], indent=2))
        return
    table = Table(box=None, pad_edge=False, title=f"{elements} elements, kernel {fanin.kernel()}")
    for column in ("this", "beside", "this Gel/s", "beside Gel/s", "times faster"):
        table.add_column(column, justify="left" if column in ("this", "beside") else "right")
    for result in results:
        table.add_row(
            str(result.ours),
            str(result.other),
            f"{elements / result.our_seconds / 1e9:.2f}",
            f"{elements / result.other_seconds / 1e9:.2f}",
            f"{result.ratio:.2f}",
        )
    out.print(table)


def _progress(*, bytes_: bool = False) -> Progress:
    """A bar on standard error, so that standard output stays clean."""
    amounts: list[ProgressColumn] = [TextColumn("{task.completed}/{task.total}"), TimeElapsedColumn()]
    if bytes_:
        amounts = [DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()]
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *amounts,
        console=console,
        transient=True,
        disable=not console.is_terminal,  # into a file it would end with an empty line
    )


def main() -> None:
    """Run the command line; bad input is one line on standard error and exit code 2."""
    try:
        app()
    except (FaninError, OSError) as error:
        fail(str(error))
    except ModuleNotFoundError as error:
        fail(f"{error.name} is not installed; pip install 'fanin[lab]'")


def fail(message: str) -> None:
    """One line on standard error, and exit code 2."""
    Console(stderr=True, soft_wrap=True).print(Text("error: ", "red") + Text(message))
    sys.exit(2)
