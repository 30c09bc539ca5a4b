"""Show what this machine and this installation can do, what `auto` chooses, and what is wrong.

    python -m inference.doctor --model models/trained/ai

Exit codes: 0 ready, 1 a model or the installation is at fault, 2 wrong use.
"""

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from inference.flags import add_json, add_model, print_json
from models.arguments import Parser
from models.console import PlainConsole
from models.errors import UserError, exit_code
from models.names import for_terminal

if TYPE_CHECKING:
    from inference.scoring.conversion_folder import Conversion

PACKAGES = (
    *("labelbeam", "apache-beam", "torch", "transformers", "tokenizers", "numpy", "pyarrow", "google-cloud-storage"),
    *("openvino", "onnxruntime", "boto3", "datasets", "docker"),
)
OPTIONAL = ("openvino", "onnxruntime", "boto3")
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "asimd", "bf16", "i8mm")
SCHEDULERS = {"Slurm": "sbatch", "Grid Engine": "qsub", "Kubernetes": "kubectl"}  # command of each scheduler
ENOUGH_GB = 5.0  # free disk space that holds the layers of an image, or a few converted models

Row = tuple[str, str, bool]  # subject, finding, and whether the finding is good enough


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table of findings. Return 0 if all are good, 1 if something is at fault, 2 after wrong use."""
    return exit_code(lambda: _main(sys.argv[1:] if argv is None else argv))


def make_parser() -> Parser:
    """Return the parser of `inference.doctor`."""
    parser = Parser("python -m inference.doctor", __doc__)
    add_model(parser, "trained model to check; may be repeated", required=False)
    add_json(parser)
    return parser


def _main(argv: Sequence[str]) -> int:
    flags = make_parser().parse(argv)
    rows = [
        *_installation(),
        *_machine(),
        *_choice(),
        *_engines(),
        *_cloud(),
        *(row for directory in flags.model for row in _model(directory)),
    ]
    exit_status = 0 if all(good for _, _, good in rows) else 1
    if flags.json:
        print_json([{"what": subject, "found": finding, "good": good} for subject, finding, good in rows])
        return exit_status
    table = Table(box=None, show_header=False, pad_edge=False)
    for subject, finding, good in rows:
        table.add_row(Text(subject), Text(for_terminal(finding), style="" if good else "bold red"))
    PlainConsole().print(table)
    return exit_status


def _installation() -> Iterator[Row]:
    from inference.runs import run_folder

    yield "python", f"{platform.python_version()}, {sys.executable}", True
    for name in PACKAGES:
        version, optional = run_folder.version_of(name), name in OPTIONAL
        yield (
            name,
            version or ("none (optional)" if optional else "missing; install labelbeam again"),
            bool(version) or optional,
        )


def _machine() -> Iterator[Row]:
    import torch

    from models import hardware

    cores, memory = hardware.cores(), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    yield "processor", f"{_processor()}, {cores} cores for this process, {memory:.0f} GB of memory", True
    yield "instructions", ", ".join(_instructions()) or "none of those that speed up scoring", True
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield "GPU", ", ".join(gpus) or "none", True
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    yield "free disk", f"{free:,.0f} GB here" + ("" if free > ENOUGH_GB else ", too little"), free > ENOUGH_GB


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _instructions() -> list[str]:
    from models import hardware

    known = hardware.instructions() or ()
    return [name for name in INSTRUCTIONS if name in known]


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
    yield "--precision int8", _int8(), True


def _int8() -> str:
    """Return what int8 would give on this machine, by the measurements in docs/performance.md."""
    from models import hardware

    if not hardware.has_int8():
        return "slower than fp32, because the processor has no int8 products (VNNI or AMX)"
    if hardware.has_bf16("cpu"):
        return "hardly faster than bf16, which this processor has"
    return "about 1.7 times as fast as fp32; `labelbeam optimize` makes and proves it"


def _engines() -> Iterator[Row]:
    yield "DirectRunner", "here: FnApiRunner, which is a part of Beam", True
    prism = sorted(Path.home().glob(".apache_beam/cache/prism/bin/*prism*"))
    yield "PrismRunner", f"{prism[-1]}" if prism else "none here; Beam downloads it, or --prism_location names it", True
    found = [name for name, tool in SCHEDULERS.items() if shutil.which(tool)]
    missing = "no scheduler found; the same command in several terminals does"
    yield "labelbeam worker", f"{', '.join(found)}" if found else missing, True
    yield "PortableRunner", "here; needs a job server (--job_endpoint) and workers (--environment_type)", True
    java = shutil.which("java")
    yield (
        "FlinkRunner, SparkRunner",
        f"Beam's job server would run in {java}" if java else "no Java for the job server",
        True,
    )


def _cloud() -> Iterator[Row]:
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    from inference.dataflow import images

    try:
        _, project = google.auth.default()
        yield "Google credentials", f"found, project {project or 'not set'}", True
    except DefaultCredentialsError:
        yield "Google credentials", "none (if you need them: gcloud auth application-default login)", True
    yield "S3", _s3(), True
    try:
        with images.engine() as client:
            yield "container engine", f"running, version {client.version()['Version']}", True
    except UserError:
        yield "container engine", "none is running (needed to build an image)", True


def _s3() -> str:
    """Return which S3 would be used, without a request to it."""
    from inference.runs import run_folder

    if not run_folder.version_of("boto3"):
        return "no boto3 (if you need it: pip install 'labelbeam[s3]')"
    from boto3.session import Session

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "Amazon's"
    given = "AWS_ACCESS_KEY_ID" in os.environ or bool(Session().available_profiles)
    return f"endpoint: {endpoint}; credentials: {'found' if given else 'neither variables nor a profile'}"


def _model(directory: str) -> Iterator[Row]:
    from inference.scoring import conversion_folder, model_files
    from models import trained_model

    try:
        folder = model_files.local(directory)
        manifest = trained_model.verify(folder)
    except UserError as error:
        yield directory, str(error), False
        return
    summary = f"{manifest.labels.task}, {len(manifest.labels.names)} labels, reads {manifest.text.most_tokens} tokens"
    yield directory, f"{summary}, every file is unchanged", True
    for conversion in conversion_folder.usable(manifest):
        yield from _conversion(folder, conversion)


def _conversion(directory: str, conversion: "Conversion") -> Iterator[Row]:
    from inference.scoring import conversion_folder

    path = os.path.join(directory, conversion_folder.FOLDER, conversion.name)
    if not os.path.lexists(path):
        return
    try:
        conversion_folder.read(conversion_folder.path_of(directory, conversion), conversion)
        yield path, "every file is unchanged", True
    except UserError as error:
        yield path, str(error), False
    except conversion_folder.ChangedError as error:
        cure = "make it again with python -m inference.optimize"
        cure = cure if conversion.precision == "int8" else "the next run that uses it makes it again"
        yield path, f"expected the conversion as it was made, found {error}; {cure}", False


if __name__ == "__main__":
    sys.exit(main())
