"""`edgevl models`, `edgevl pull`, `edgevl export`, `edgevl import` and `edgevl verify`."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgevl.cli.streams import print_json
from edgevl.errors import ModelError
from edgevl.export import DECODER_PRECISIONS, LAYOUT_PRECISIONS, VISION_PRECISIONS

if TYPE_CHECKING:
    from edgevl.model.manifest import DecoderSpec, Manifest


_PRECISIONS = tuple(dict.fromkeys((*VISION_PRECISIONS, *LAYOUT_PRECISIONS)))
_FORMS = {"onnx": "", "gguf": " (needs the extra gguf)", "checkpoint": " (to be exported)"}


@click.command()
@click.option("--found", "elsewhere", is_flag=True, help="List what other programs have on this disk instead.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def models(elsewhere: bool, as_json: bool) -> None:
    """List the models that are here, and those that can be pulled."""
    from edgevl.model import hub

    if elsewhere:
        _list_found(as_json)
        return
    here = [_described(folder) for folder in hub.local()]
    known = hub.registry()
    if as_json:
        document = {"here": here, "registry": [vars(entry) for entry in known]}
        print_json(document)
        return
    click.echo("Here:")
    for entry in here:
        own = entry.get("calls_itself", entry["name"])
        note = "" if own == entry["name"] else f", which calls itself {own}"
        size, precision = _mb(entry.get("n_bytes")), entry["precision"]
        click.echo(f"  {entry['name']:<24} {size:>10}  {precision:<24} {entry['folder']}{note}")
    click.echo("Can be fetched from the Hugging Face hub with `edgevl pull` (sizes are estimates):")
    for row in known:
        sizes = f"{row.download_bytes / 1e9:4.1f} GB, {row.memory_bytes / 1e9:.1f} GB of memory"
        click.echo(f"  {row.name:<24} {sizes}  {row.licence:<11} {row.repo}{_FORMS[row.form]}")


def _list_found(as_json: bool) -> None:
    """List the pairs of files that Ollama, LM Studio and llama.cpp have here, and what imports each."""
    from edgevl.model import found

    rows: list[dict[str, Any]] = [
        {
            "name": pair.name,
            "program": pair.program,
            "decoder": str(pair.decoder),
            "mmproj": str(pair.mmproj),
            "n_bytes": pair.n_bytes,
            "import": shlex.join(["edgevl", "import", *pair.sources]),
        }
        for pair in found.found()
    ]
    if as_json:
        print_json({"found": rows})
        return
    for row in rows:
        click.echo(f"  {row['program']:<10} {_mb(row['n_bytes']):>11}  {row['import']}")
    if not rows:
        click.echo("Neither Ollama nor LM Studio nor llama.cpp has a model with an mmproj file here.")


@click.command()
@click.argument("what", metavar="NAME|hf:OWNER/REPOSITORY")
@click.option("--name", help="The model's name here; default: NAME, or the repository's.")
@click.option("--vision", metavar="PRECISION", help="Of those that are published; default: the best for a processor.")
@click.option("--decoder", metavar="PRECISION", help="The same for the decoder, such as q4 or q8_0.")
@click.option("--force", is_flag=True, help="Replace a model of this name.")
def pull(what: str, **settings: Any) -> None:
    """Fetch a published model: NAME as `edgevl models` lists it, or hf:OWNER/REPOSITORY[@REVISION].

    A download that was interrupted goes on with the same command. HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE are
    respected.
    """
    from edgevl.export import pull_model

    try:
        with _progress() as progress:
            folder, made = pull_model(what, progress=progress, **settings)
    except KeyboardInterrupt:
        click.echo("note: what has arrived is kept; the same command goes on from there", err=True)
        raise
    _report(folder, made)


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The model folder to write.")
@click.option("--vision", type=click.Choice(["fp32", "fp16", "int8"]), default="int8", show_default=True)
@click.option(
    "--decoder",
    type=click.Choice(DECODER_PRECISIONS),
    default="int4",
    show_default=True,
    help="gguf: makes a decoder for llama.cpp, with its weights so quantized.",
)
@click.option(
    "--block-size",
    type=click.Choice([16, 32, 64, 128]),
    default=32,
    show_default=True,
    help="Weights of an int8 or int4 decoder that share a scale.",
)
@click.option(
    "--prefill/--no-prefill",
    default=None,
    help="A second decoder graph, quicker on prompts, of a byte a weight; default: for 32 million to a billion.",
)
@click.option("--fidelity", type=click.FloatRange(0, 1), metavar="COSINE", help="Keep MatMuls in fp32 until reached.")
@click.option("--name", help="The model's name; default: the output folder's.")
@click.option(
    "--sample", "samples", multiple=True, type=click.Path(path_type=Path), help="Image to measure fidelity on."
)
@click.option("--force", is_flag=True, help="Replace the output folder.")
def export(checkpoint: Path, output: Path, samples: tuple[Path, ...], **settings: Any) -> None:
    """Turn a CHECKPOINT folder (config, safetensors, tokenizer) into a quantized model folder."""
    from edgevl.export import export_model

    with _progress() as progress:
        made = export_model(checkpoint, output, samples=samples, progress=progress, **settings)
    _report(output, made)


@click.command("import")
@click.argument("sources", nargs=-1, required=True, metavar="MODEL.gguf MMPROJ.gguf|ollama:NAME|FOLDER")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The model folder to write.")
@click.option("--vision", type=click.Choice(_PRECISIONS), help="Default: int8; of a FOLDER the best that is there.")
@click.option("--decoder", type=click.Choice(LAYOUT_PRECISIONS), help="Of a FOLDER that has several.")
@click.option("--fidelity", type=click.FloatRange(0, 1), metavar="COSINE", help="Keep MatMuls in fp32 until reached.")
@click.option("--name", help="The model's name; default: the output folder's.")
@click.option("--chat-template", type=click.Path(path_type=Path), help="Use this instead of the file's own.")
@click.option(
    "--sample", "samples", multiple=True, type=click.Path(path_type=Path), help="Image to measure fidelity on."
)
@click.option("--force", is_flag=True, help="Replace the output folder.")
def import_(
    sources: tuple[str, ...], output: Path | None, vision: str | None, decoder: str | None, **settings: Any
) -> None:
    """Make a model folder of what is on this disk.

    Of the two files that llama.cpp runs, or Ollama's model NAME, the decoder is used as it is, in place, and vision
    becomes a graph. A FOLDER with graphs in the layout of transformers.js gets an edgevl.json beside them.
    """
    if len(sources) == 1 and not sources[0].startswith("ollama:") and not sources[0].endswith(".gguf"):
        _import_folder(Path(sources[0]), output, vision, decoder, settings)
        return
    if decoder is not None:
        raise click.UsageError("--decoder chooses among those of a FOLDER; of two files the decoder is used as it is")
    from edgevl.export import import_gguf

    text, image, target = _pair(sources, output)
    with _progress() as progress:
        made = import_gguf(text, image, target, vision=vision or "int8", progress=progress, **settings)
    _report(target, made)


def _pair(sources: tuple[str, ...], output: Path | None) -> tuple[Path, Path, Path]:
    """Return decoder, mmproj and the folder to write."""
    from edgevl.model import found, hub

    if len(sources) == 1 and sources[0].startswith("ollama:"):
        name = sources[0].removeprefix("ollama:")
        pair = found.from_ollama(name)
        return pair.decoder, pair.mmproj, output or hub.user_folder() / re.sub(r"[/:]", "-", name)
    if len(sources) != 2:
        raise click.UsageError("give the two files, MODEL.gguf MMPROJ.gguf, or one of ollama:NAME and FOLDER")
    if output is None:
        raise click.UsageError("give the folder to write with -o")
    return Path(sources[0]), Path(sources[1]), output


def _import_folder(
    folder: Path, output: Path | None, vision: str | None, decoder: str | None, settings: dict[str, Any]
) -> None:
    from edgevl.export import import_layout

    name = settings.pop("name")
    if output is not None or any(settings.values()):
        raise click.UsageError("a FOLDER stays where it is: of the options it takes --name, --vision and --decoder")
    _report(folder, import_layout(folder, name=name, vision=vision, decoder=decoder))


def _report(output: Path, made: Manifest) -> None:
    """Say what was made, and how near it is to what it was made from."""
    fidelity = made.fidelity
    click.echo(f"{output}: {made.name}, {_mb(sum(spec.n_bytes for spec in made.files.values()))}")
    if fidelity is not None:
        reference = "PyTorch" if "torch" in made.source.tools else "float32"
        click.echo(
            f"against {reference} on {fidelity.n_images} images: feature cosine {fidelity.feature_cosine:.5f} "
            f"(lowest {fidelity.feature_cosine_min:.5f}), logit KL {fidelity.logit_kl:.5f}, "
            f"equal greedy tokens {fidelity.equal_tokens:.1%}"
        )
        for kept in fidelity.kept:
            click.echo(f"kept in fp32: {kept}")


@click.command()
@click.argument("model", required=False, metavar="[MODEL_DIR]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def verify(model: str | None, as_json: bool) -> None:
    """Check a model folder's checksums, and that this machine gives its recorded answers."""
    from edgevl.model import hub
    from edgevl.verify import verify as check

    report = check(hub.find(model))
    if as_json:
        print_json(report.to_dict())
    else:
        click.echo(f"{report.model}: {report.n_files} files, {_mb(report.n_bytes)}, every checksum right")
        for result in report.results:
            click.echo(
                f"recorded picture {result.image!r}: feature cosine {result.feature_cosine:.5f}, "
                f"{result.equal_tokens:.0%} of the answer's tokens equal"
            )
    if not report.ok:
        raise ModelError(
            f"{report.model}: this machine computes other features (cosine {report.feature_cosine:.4f}) than the one "
            "that exported it; export the model here, or with --vision fp32"
        )


def _described(folder: Path) -> dict[str, Any]:
    """Describe a model folder; one that cannot be read is listed with the reason."""
    from edgevl.model import manifest

    try:
        spec = manifest.read(folder)
    except ModelError as error:
        return {"name": folder.name, "folder": str(folder), "precision": f"damaged: {error}"}
    return {
        "name": folder.name,  # by which it is found
        "calls_itself": spec.name,
        "folder": str(folder),
        "precision": f"vision {spec.vision.precision}, decoder {_decoder(spec.decoder)}",
        "n_bytes": sum(file.n_bytes for file in spec.files.values()),
    }


def _decoder(spec: DecoderSpec) -> str:
    return spec.precision if spec.kind == "onnx" else f"{spec.kind} {spec.precision}"


def _mb(n_bytes: int | None) -> str:
    return "" if n_bytes is None else f"{n_bytes / 1e6:,.1f} MB"


@contextmanager
def _progress() -> Iterator[Callable[[str, float], None]]:
    """Yield a callback that names each stage on stderr as it begins; at a terminal, in one line with a percentage."""
    before = ""

    def show(stage: str, fraction: float) -> None:
        nonlocal before
        if sys.stderr.isatty():
            click.echo(f"\r\033[K{stage} {fraction:.0%}", nl=False, err=True)
        elif stage != before:
            click.echo(stage, err=True)
        before = stage

    try:
        yield show
    finally:
        if sys.stderr.isatty():
            click.echo("\r\033[K", nl=False, err=True)
