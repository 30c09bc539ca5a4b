"""Measures on a sample how fast this machine labels a corpus, and what the whole will take and cost."""

import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import orjson
import torch

from inference.corpus.files import InputFile, compression_of
from inference.corpus.records import Document, Documents
from inference.corpus.slices import Slice
from inference.cost import pricing, sample
from inference.cost.pricing import Bill, Machine, Prices, Work
from inference.cost.sample import Estimate, Sample
from inference.runs import sink
from inference.runs.handler import SliceDocuments, score_slice
from inference.runs.options import RunOptions
from inference.runs.pipeline import read_options
from inference.scoring import model_files
from inference.scoring.options import ScoringOptions
from inference.scoring.runtimes import has_bf16
from inference.scoring.scorer import Scorer
from models import trained_model
from models.errors import UserError

WARM_UP = 32  # documents
OTHER_MACHINE = 1.5  # how much faster or slower than here a core elsewhere may be, unless it was measured
PIPELINE_SECONDS = 3.0  # DirectRunner's own, to build, start and end: measured on two cores at 2.5 GHz


@dataclass(frozen=True)
class Profile:
    """How fast one machine labels with these models."""

    models: dict[str, str]  # name: SHA-256
    runtime: str
    cores: float  # physical ones that were used
    documents: int
    tokens: int
    seconds: float  # reading, scoring and writing them
    start_seconds: float  # from the command to the first document, the models' loading included

    def __str__(self) -> str:
        return f"{self.documents / self.seconds:.1f} docs/s, {self.runtime}"

    @property
    def core_seconds_per_token(self) -> float:
        """What makes machines comparable."""
        return self.seconds * self.cores / max(self.tokens, 1)


@dataclass(frozen=True)
class Corpus:
    """What there is to label."""

    files: int
    stored_bytes: int
    slices: int
    text_bytes: Estimate
    documents: Estimate
    tokens: Estimate  # of all models together
    expand_seconds: float  # decompression: once to count lines, and up to each slice again


@dataclass(frozen=True)
class Offer:
    """A bill with its range."""

    bill: Bill
    speed: str  # that it is made with
    low: float  # dollars
    high: float
    measured: bool  # on this machine type


def measure(files: Sequence[InputFile], options: RunOptions, documents: int) -> tuple[Profile, Corpus]:
    """Reads, scores and writes pieces of the corpus; what that took, and what it says of the whole."""
    scorer = Scorer(options.scoring)
    start_seconds = _age_of_process()
    sampled = sample.read(files, read_options(options), documents)
    read = [document for piece in sampled.pieces for document in piece.documents]
    if not read:
        raise UserError("no document of the sample could be read: check --text_fields and --id_field.")
    scorer.score(read[:: max(len(read) // WARM_UP, 1)])
    tokens = [scorer.count_tokens(piece.documents) for piece in sampled.pieces]
    manifests = zip(options.model_names, model_files.all_local(options.scoring.models), strict=True)
    profile = Profile(
        models={name: trained_model.fingerprint(directory) for name, directory in manifests},
        runtime=str(scorer.runtime),
        cores=scorer.runtime.threads / _threads_per_core(),
        documents=len(read),
        tokens=sum(tokens),
        seconds=sampled.read_seconds + _label(read, options, scorer),
        start_seconds=start_seconds,
    )
    return profile, _corpus(files, sampled, tokens, options.slice_bytes)


def estimate(  # noqa: PLR0913  (each is a choice of the user's)
    prices: Prices,
    files: Sequence[InputFile],
    options: RunOptions,
    documents: int,
    profiles: Mapping[str, Path],
    workers: int | None,
) -> tuple[Profile, Corpus, list[Offer]]:
    """Return this machine's speed, what there is to do, and offers for every machine type, the cheapest first.

    `profiles` names files that were written on such machines; the others are taken to be as fast as this one.

    Raises:
        UserError: nothing of the sample could be read, or a profile is of other models.
    """
    here, corpus = measure(files, options, documents)
    measured = {machine: read_profile(path, here) for machine, path in profiles.items()}
    others = {name: kind for name, kind in prices.machines.items() if not kind.gpu and name not in measured}
    assumed = _assume(others, here, files, options, documents)
    by_price = sorted(offers(prices, corpus, measured, assumed, workers), key=lambda offer: offer.bill.total)
    return here, corpus, by_price


def _assume(
    machines: Mapping[str, Machine], here: Profile, files: Sequence[InputFile], options: RunOptions, documents: int
) -> dict[str, Profile]:
    """Return the speed that each machine is taken to have: this one's, measured in fp32 if the other has no bf16."""
    ways = {name: as_on(kind, options.scoring) for name, kind in machines.items()}
    profiles = {options.scoring: here}
    for way in set(ways.values()) - profiles.keys():
        profiles[way], _ = measure(files, replace(options, scoring=way), documents)
    return {name: profiles[way] for name, way in ways.items()}


def as_on(machine: Machine, scoring: ScoringOptions) -> ScoringOptions:
    """How to score here so that it takes as long as on such a machine, core for core.

    One without bf16 in hardware, which is several times slower, is measured in fp32 where this one has it; so is int8,
    whose attention is in bf16 here: that errs on the dear side.
    """
    if machine.bf16 or scoring.precision == "bf16" or not has_bf16(torch.device("cpu")):
        return scoring
    return replace(scoring, precision="fp32")


def read_profile(path: Path, here: Profile) -> Profile:
    """A profile that `python -m inference.estimate_cost --json` wrote on another machine, of the same models as here.

    Raises:
        UserError: it is none, or of other models.
    """
    try:
        found = Profile(**orjson.loads(path.read_bytes())["profile"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"--profile {path}: expected what `python -m inference.estimate_cost --json` wrote; give that file."
        ) from None
    if found.models != here.models:
        raise UserError(
            f"--profile {path}: expected a profile of the models {', '.join(here.models)} as they are now, found one "
            f"of {', '.join(found.models)}, or of other weights; measure again there."
        )
    return found


def _label(documents: list[Document], options: RunOptions, scorer: Scorer) -> float:
    """Seconds to score and write the documents as one slice."""
    began = time.perf_counter()
    piece = Slice(InputFile("sample", 0), 0, 0, 1, len(documents), 0, 0)
    read = Documents(lines=len(documents), documents=documents)
    scored = score_slice(SliceDocuments(piece, read, time.time()), scorer)
    with tempfile.TemporaryDirectory(prefix="labelbeam_") as folder:
        sink.write_slice(scored, replace(options, output=folder))
    return time.perf_counter() - began


def _corpus(files: Sequence[InputFile], sampled: Sample, tokens: Sequence[int], slice_bytes: int) -> Corpus:
    compressed = [file for file in files if compression_of(file.path)]
    plain = [file for file in files if not compression_of(file.path)]
    plain_bytes = sum(file.size for file in plain)
    stored = sum(file.size for file in compressed)
    growth = (sampled.text_bytes.value - plain_bytes) / max(stored, 1)
    slices = sum(math.ceil(file.size / slice_bytes) for file in plain)
    expanded = 0.0  # bytes of text: once to count lines, and for each slice from the file's start
    for file in compressed:
        count = math.ceil(file.size * growth / slice_bytes)
        slices += count
        expanded += file.size * growth * (1 + (count + 1) / 2)
    return Corpus(
        files=len(files),
        stored_bytes=plain_bytes + stored,
        slices=slices,
        text_bytes=sampled.text_bytes,
        documents=sampled.whole([len(piece.documents) for piece in sampled.pieces]),
        tokens=sampled.whole(tokens),
        expand_seconds=sampled.expand_seconds * expanded,
    )


def seconds_here(profile: Profile, corpus: Corpus) -> Estimate:
    """How long the run takes on this machine, start-up included."""
    fixed = PIPELINE_SECONDS + profile.start_seconds + corpus.expand_seconds
    each = profile.seconds / max(profile.tokens, 1)
    return Estimate(*(fixed + each * tokens for tokens in (corpus.tokens.value, corpus.tokens.low, corpus.tokens.high)))


def offers(
    prices: Prices, corpus: Corpus, measured: Mapping[str, Profile], assumed: Mapping[str, Profile], workers: int | None
) -> Iterator[Offer]:
    """Bills for each machine type measured or assumed to be so fast: standard and, without a GPU, FlexRS."""
    for profiles, spread in ((measured, 1.0), (assumed, OTHER_MACHINE)):
        for machine, profile in profiles.items():
            for flexrs in (False,) if prices.machines[machine].gpu else (False, True):
                yield offer(prices, corpus, profile, machine, workers, flexrs=flexrs, spread=spread)


def offer(  # noqa: PLR0913  (each is a choice of the user's)
    prices: Prices, corpus: Corpus, profile: Profile, machine: str, workers: int | None, *, flexrs: bool, spread: float
) -> Offer:
    """A bill and its range: `spread` is how much faster or slower than measured the machine may be."""
    work = _work(corpus, profile, corpus.tokens.value)
    count = workers or pricing.workers_for(work, prices.machines[machine], pricing.DEADLINE_HOURS)
    low, high = (
        pricing.bill(prices, machine, count, _work(corpus, profile, tokens * factor), flexrs=flexrs).total
        for tokens, factor in ((corpus.tokens.low, 1 / spread), (corpus.tokens.high, spread))
    )
    bill = pricing.bill(prices, machine, count, work, flexrs=flexrs)
    return Offer(bill, str(profile), low, high, measured=spread == 1.0)


def _work(corpus: Corpus, profile: Profile, tokens: float) -> Work:
    seconds = profile.core_seconds_per_token * tokens + corpus.expand_seconds
    return Work(corpus.documents.value, corpus.slices, seconds)


def _age_of_process() -> float:
    """Seconds since this process began, as Linux tells it; elsewhere the processor time it has used."""
    try:
        began = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        return float(Path("/proc/uptime").read_text().split()[0]) - began
    except OSError:
        return time.process_time()


def _threads_per_core() -> int:
    """How many of the operating system's processors share a core; 1 where it cannot be told."""
    try:
        siblings = Path("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list").read_text()
    except OSError:
        return 1
    return 2 if any(mark in siblings for mark in ",-") else 1
