"""Says what this machine and installation can do, what `auto` chooses, and what is wrong.

    python -m inference.doctor --model models/trained/ai

Exit codes: 0 ready, 1 a model or the installation is at fault, 2 wrong use.
"""

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from inference.flags import add_json, print_json
from models.arguments import Parser
from models.errors import UserError, exit_code

PACKAGES = (
    *("labelbeam", "apache-beam", "torch", "transformers", "tokenizers", "numpy", "pyarrow", "google-cloud-storage"),
    *("openvino", "onnxruntime", "datasets", "docker"),
)
OPTIONAL = ("openvino", "onnxruntime")
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "asimd", "bf16", "i8mm")
ENOUGH_GB = 5.0  # of disk: an image's layers, or a few converted models

Row = tuple[str, str, bool]  # what, what was found, whether that will do


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table. Return 0 ready, 1 something is at fault, 2 wrong use."""
    return exit_code(lambda: _run(sys.argv[1:] if argv is None else argv))


def make_parser() -> Parser:
    """Return the parser of `inference.doctor`."""
    parser = Parser("python -m inference.doctor", __doc__)
    parser.add_argument(
        "--model", action="append", default=[], metavar="DIR", help="trained model to check; may be repeated"
    )
    add_json(parser)
    return parser


def _run(argv: Sequence[str]) -> int:
    flags = make_parser().parse(argv)
    rows = [*_installation(), *_machine(), *_choice(), *_cloud(), *(_model(directory) for directory in flags.model)]
    well = all(good for _, _, good in rows)
    if flags.json:
        print_json([{"what": what, "found": found, "good": good} for what, found, good in rows])
        return 0 if well else 1
    table = Table(box=None, show_header=False, pad_edge=False)
    for what, found, good in rows:
        table.add_row(Text(what), Text(found, style="" if good else "bold red"))
    Console().print(table)
    return 0 if well else 1


def _installation() -> Iterator[Row]:
    from inference.runs import run_folder

    yield "python", f"{platform.python_version()}, {sys.executable}", True
    for name in PACKAGES:
        version, optional = run_folder.version_of(name), name in OPTIONAL
        yield (
            name,
            version or ("none (optional)" if optional else "missing: install it again"),
            bool(version) or optional,
        )


def _machine() -> Iterator[Row]:
    import torch

    from inference.scoring import runtimes

    cores, memory = runtimes.cores(), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    yield "processor", f"{_processor()}, {cores} cores for this process, {memory:.0f} GB of memory", True
    yield "instructions", ", ".join(_instructions()) or "none that matter are known", True
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield "GPU", ", ".join(gpus) or "none", True
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    yield "free disk", f"{free:,.0f} GB here" + ("" if free > ENOUGH_GB else ": little"), free > ENOUGH_GB


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _instructions() -> list[str]:
    flags = set((_cpuinfo("flags") or _cpuinfo("Features")).split())
    return [name for name in INSTRUCTIONS if name in flags]


def _cpuinfo(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == key), "")


def _choice() -> Iterator[Row]:
    from inference.scoring import runtimes

    chosen = runtimes.choose("auto", "auto", "auto")
    yield "--runtime auto", f"{chosen}: {chosen.reason}", True


def _cloud() -> Iterator[Row]:
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    from inference.dataflow import images

    try:
        _, project = google.auth.default()
        yield "Google credentials", f"found, project {project or 'not set'}", True
    except DefaultCredentialsError:
        yield "Google credentials", "none (gcloud auth application-default login, where you need them)", True
    try:
        with images.engine() as client:
            yield "container engine", f"answers, version {client.version()['Version']}", True
    except UserError:
        yield "container engine", "none answers (needed to build an image)", True


def _model(directory: str) -> Row:
    from inference.scoring import model_files
    from models import trained_model

    try:
        manifest = trained_model.verify(model_files.local(directory))
    except UserError as error:
        return directory, str(error), False
    size = f"{manifest.labels.task}, {len(manifest.labels.names)} labels, reads {manifest.text.max_tokens} tokens"
    return directory, f"{size}, every file as it was written", True


if __name__ == "__main__":
    sys.exit(main())
