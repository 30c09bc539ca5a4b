"""Measures on a sample how fast this machine labels a corpus, and estimates time and cost of the whole."""

import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from inference.corpus import slices
from inference.corpus.files import InputFile
from inference.corpus.records import Document, Documents
from inference.corpus.slices import Part, Slice
from inference.cost import pricing, profile, sample
from inference.cost.pricing import Bill, Machine, Prices, Rate, Work
from inference.cost.profile import CPU, Profile
from inference.cost.sample import Estimate, Sample
from inference.runs import sink
from inference.runs.handler import SliceDocuments, score_slice
from inference.runs.options import RunOptions
from inference.runs.pipeline import document_recipe
from inference.scoring import model_files
from inference.scoring.options import ScoringOptions
from inference.scoring.scorer import Scorer
from models import hardware, trained_model
from models.errors import UserError

WARM_UP = 32  # documents that are scored before the measurement
UNMEASURED_SPREAD = 1.5  # factor by which a core of an unmeasured machine type may be faster or slower than one here
PIPELINE_SECONDS = 3.0  # time in which DirectRunner builds, starts and ends, measured on two cores at 2.5 GHz


@dataclass(frozen=True)
class Corpus:
    """The size of a corpus."""

    files: int  # number of files
    stored_bytes: int  # bytes of the files as stored
    slices: int  # number of slices
    text_bytes: Estimate  # bytes after decompression
    documents: Estimate  # number of documents
    tokens: Estimate  # tokens of all models together
    expand_seconds: float  # time to decompress each file once to count its lines, and again up to each of its slices


@dataclass(frozen=True)
class Offer:
    """The estimated bill of a run on one machine type."""

    bill: Bill  # most likely time and cost
    speed: str  # speed that the bill assumes
    low: float  # low end of the total, in dollars
    high: float  # high end of the total, in dollars
    per_million: float  # most likely cost of a million more documents, without the start of workers
    measured: bool  # whether the speed was measured on this machine type


def measure(
    files: Sequence[InputFile], options: RunOptions, documents: int, whole: int | None = None
) -> tuple[Profile, Corpus]:
    """Read, score and write pieces of the corpus. Return the speed, and the size of the whole corpus.

    If `whole` is given, return the size of a corpus with this many documents like those in the files.

    Raises:
        UserError: no document of the sample could be read.
    """
    scorer = Scorer(options.scoring)
    start_seconds = _age_of_process()
    sampled = sample.read(files, document_recipe(options), documents)
    sample_documents = [document for piece in sampled.pieces for document in piece.documents]
    if not sample_documents:
        raise UserError("no document of the sample could be read: check --text_fields and --id_field.")
    scorer.score(sample_documents[:: max(len(sample_documents) // WARM_UP, 1)])
    tokens = [scorer.count_tokens(piece.documents) for piece in sampled.pieces]
    directories = zip(options.model_names, model_files.all_local(options.scoring.models), strict=True)
    measured = Profile(
        models={name: trained_model.fingerprint(directory) for name, directory in directories},
        runtime=str(scorer.runtime),
        device=hardware.gpu_name() if scorer.runtime.device == "cuda" else CPU,
        cores=(options.scoring.threads or hardware.cores()) / hardware.threads_per_core(),
        documents=len(sample_documents),
        tokens=sum(tokens),
        seconds=sampled.read_seconds + _label(sample_documents, options, scorer),
        start_seconds=start_seconds,
    )
    corpus = _corpus(files, sampled, tokens, options.slice_bytes)
    return measured, _of_size(whole, corpus, sampled, tokens) if whole else corpus


@dataclass(frozen=True)
class Question:
    """A corpus and the machines whose time and cost are to be estimated."""

    files: Sequence[InputFile]  # input files of the run
    options: RunOptions  # options of the run
    sample: int  # approximate number of documents in the sample
    documents: int | None  # number of documents of a corpus like the files; None for the files themselves
    profiles: Mapping[str, Path]  # profile files by machine type; other CPUs are assumed to be as fast as the one here
    workers: int | None  # largest number of workers; None for as many as finish in DEADLINE_HOURS


def estimate(prices: Prices, asked: Question) -> tuple[Profile, Corpus, list[Offer]]:
    """Return this machine's speed, the size of the corpus, and offers with the cheapest first.

    Raises:
        UserError: no document of the sample could be read, or a profile does not fit the models, the machine type or
            the options of scoring.
    """
    here, corpus = measure(asked.files, asked.options, asked.sample, asked.documents)
    measured = {
        name: profile.read(path, here, prices.machines[name], asked.options.scoring)
        for name, path in asked.profiles.items()
    }
    others = {name: machine for name, machine in prices.machines.items() if not machine.gpu and name not in measured}
    assumed = _assume(others, here, asked) if here.device == CPU else {}
    by_price = sorted(offers(prices, corpus, measured, assumed, asked.workers), key=lambda offer: offer.bill.total)
    return here, corpus, by_price


def _assume(machines: Mapping[str, Machine], here: Profile, asked: Question) -> dict[str, Profile]:
    """Return the speed that each machine is assumed to have, which is the speed of equivalent scoring here."""
    options = asked.options
    scorings = {name: equivalent_scoring(machine, options.scoring) for name, machine in machines.items()}
    profiles = {options.scoring: here}
    for scoring in set(scorings.values()) - profiles.keys():
        profiles[scoring], _ = measure(asked.files, replace(options, scoring=scoring), asked.sample)
    return {name: profiles[scoring] for name, scoring in scorings.items()}


def equivalent_scoring(machine: Machine, scoring: ScoringOptions) -> ScoringOptions:
    """Return the options with which scoring here takes as long as on another machine, core for core.

    If only this machine has bf16 in hardware, the options say fp32, because bf16 is several times faster. They also say
    fp32 instead of int8, whose attention is computed in bf16 here. For int8 this makes the estimate rather too high.
    """
    if machine.bf16 or scoring.precision == "bf16" or not hardware.has_bf16("cpu"):
        return scoring
    return replace(scoring, precision="fp32")


def _label(documents: list[Document], options: RunOptions, scorer: Scorer) -> float:
    """Score and write the documents as one slice. Return the seconds that it took."""
    began = time.perf_counter()
    piece = Slice(0, (Part(InputFile("sample", 0), 0, 0, 1, len(documents), "", 0),))
    content = Documents(lines=len(documents), documents=documents)
    scored = score_slice(SliceDocuments(piece, content, time.time()), scorer)
    with tempfile.TemporaryDirectory(prefix="labelbeam_") as folder:
        sink.write_slice(scored, replace(options, output=folder))
    return time.perf_counter() - began


def _corpus(files: Sequence[InputFile], sampled: Sample, tokens: Sequence[int], slice_bytes: int) -> Corpus:
    plain_bytes = sum(file.size for file in files if not slices.is_packed(file))
    expanded = sampled.text_bytes.value - plain_bytes  # bytes of text in compressed files, which are expanded once
    return Corpus(
        files=len(files),
        stored_bytes=sum(file.size for file in files),
        slices=max(math.ceil(sampled.text_bytes.value / slice_bytes), 1),
        text_bytes=sampled.text_bytes,
        documents=sampled.whole([len(piece.documents) for piece in sampled.pieces]),
        tokens=sampled.whole(tokens),
        expand_seconds=sampled.expand_seconds * expanded,
    )


def _of_size(documents: int, corpus: Corpus, sampled: Sample, tokens: Sequence[int]) -> Corpus:
    """Return the size of a corpus with this many documents like those of the sample, in more files of the same size."""
    counts = [len(piece.documents) for piece in sampled.pieces]
    factor = documents / max(corpus.documents.value, 1)
    text_bytes = sample.ratio([piece.text_bytes for piece in sampled.pieces], counts, documents)
    text = InputFile("", round(text_bytes.value))
    return Corpus(
        files=math.ceil(corpus.files * factor),
        stored_bytes=round(corpus.stored_bytes * factor),
        slices=slices.expected([text], slices.slice_bytes([text])),
        text_bytes=text_bytes,
        documents=Estimate(documents, documents, documents),
        tokens=sample.ratio(tokens, counts, documents),
        expand_seconds=corpus.expand_seconds * factor,
    )


def seconds_here(here: Profile, corpus: Corpus) -> Estimate:
    """Return the seconds that the run takes on this machine, including start-up."""
    fixed = PIPELINE_SECONDS + here.start_seconds + corpus.expand_seconds
    each = here.seconds / max(here.tokens, 1)
    return Estimate(*(fixed + each * tokens for tokens in (corpus.tokens.value, corpus.tokens.low, corpus.tokens.high)))


def offers(
    prices: Prices, corpus: Corpus, measured: Mapping[str, Profile], assumed: Mapping[str, Profile], workers: int | None
) -> Iterator[Offer]:
    """Yield an offer for each machine type and each way to pay it."""
    for profiles, spread in ((measured, 1.0), (assumed, UNMEASURED_SPREAD)):
        for name, speed in profiles.items():
            for rate in prices.rates(prices.machines[name]):
                yield offer(prices, corpus, speed, (name, rate, workers), spread)


def offer(prices: Prices, corpus: Corpus, speed: Profile, chosen: tuple[str, Rate, int | None], spread: float) -> Offer:
    """Return a bill with its range.

    Args:
        prices: The prices and machine types.
        corpus: The size of the corpus.
        speed: The speed of the machine type.
        chosen: The machine type, how it is paid, and the largest number of workers or None.
        spread: The factor by which the machine may be faster or slower.
    """
    name, rate, workers = chosen
    machine = prices.machines[name]
    work, least, most = (
        _work(corpus, speed, machine, tokens)
        for tokens in (corpus.tokens.value, corpus.tokens.low / spread, corpus.tokens.high * spread)
    )
    count = min(workers or pricing.workers_for(work, machine, pricing.DEADLINE_HOURS), max(corpus.slices, 1))
    low, high = (pricing.bill(prices, name, count, end, rate).total for end in (least, most))
    bill = pricing.bill(prices, name, count, work, rate)
    growing = (bill.total - (bill.start or 0.0)) / max(corpus.documents.value, 1) * 1e6
    return Offer(bill, str(speed), low, high, growing, measured=spread == 1.0)


def _work(corpus: Corpus, speed: Profile, machine: Machine, tokens: float) -> Work:
    """Return the work on a machine type, whose cores decompress, and whose processors do everything else."""
    seconds = speed.seconds_per_token * tokens + corpus.expand_seconds / machine.cores * machine.processors
    return Work(corpus.documents.value, corpus.slices, seconds)


def _age_of_process() -> float:
    """Return the seconds since this process began on Linux, and the processor time that it used on other systems."""
    try:
        began = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        return float(Path("/proc/uptime").read_text().split()[0]) - began
    except OSError:
        return time.process_time()
