"""`edgevl eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgevl.cli import options
from edgevl.cli.bar import bar
from edgevl.cli.streams import print_json

_LINE_EVERY_S = 30.0
"""Where stderr is no terminal, how often it is told how far the evaluation is."""


class _Task(click.ParamType[str]):
    """The name of a data set; anything else is wrong usage."""

    name = "task"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> str:
        from edgevl.eval.tasks import TASKS

        if value not in TASKS:
            self.fail(f"{value!r} must be one of {', '.join(TASKS)}", param, context)
        return str(value)


class _Command(click.Command):
    """A command whose help ends with the data sets that there are."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from edgevl.eval.tasks import TASKS

        with formatter.section("Tasks"):
            formatter.write_dl([(task.name, task.about) for task in TASKS.values()])


@click.command("eval", cls=_Command)
@click.argument("model")
@click.option("--task", required=True, type=_Task(), metavar="TASK", help="The data set; see below.")
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The folder that holds it, or one of its tables.",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Ask only N, spread evenly over the data set.")
@click.option("--against", metavar="MODEL2", help="Ask this model the same, and tell the paired difference.")
@options.image
@options.threads
@click.option(
    "-o",
    "--output",
    type=options.OutputFile(),
    help="Where answers are kept, also between runs; default: eval-TASK.ndjson here. Wrong ones: the same with .html.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def evaluate(
    model: str,
    task: str,
    data: Path,
    limit: int | None,
    against: str | None,
    detail: str,
    reduce: bool,
    max_pixels: int | None,
    threads: int | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Measure how often MODEL is right on a data set that is on this machine.

    The same command after Ctrl-C goes on where it was, and another MODEL adds to the same file.
    """
    from edgevl.eval import page, report, run
    from edgevl.eval.item import told
    from edgevl.eval.results import Results
    from edgevl.model import hub

    target = output or Path(f"eval-{task}.ndjson")
    shown = target.with_suffix(".html")
    if shown == target:
        raise click.UsageError(f"{target}: is where wrong answers are shown; give another ending, such as .ndjson")
    page.check(shown)
    second = hub.find(against) if against is not None else None
    settings = run.Settings(hub.find(model), task, data, target, limit, second, detail, threads, max_pixels, reduce)
    try:
        with bar(_LINE_EVERY_S) as on_step:
            found = run.evaluate(settings, on_step)
    except KeyboardInterrupt:
        if target.exists() and target.stat().st_size:
            click.echo(f"note: the answers so far are in {target}; the same command goes on from there", err=True)
        raise
    document = report.document(found)
    if as_json:  # told before anything is written, so that a full disk does not lose it
        places = {"output": told(target), "page": told(shown)}
        print_json({**document, **places})
    else:
        click.echo(report.text(found))
    with Results(target) as results:
        results.end(document)
    page.write(shown, found)
    if not as_json:
        click.echo(f"\nanswers: {told(target)}; wrong ones with their pictures: {told(shown)}")
