"""Finds the texts of drawn documents in the input of their run."""

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence

from inference.audits.drawing import Drawn
from inference.audits.population import Population
from inference.corpus import counting, records, slices
from inference.runs.joined import JoinedRun
from inference.runs.lineage import Delta
from models.errors import UserError
from models.text import TextError, TextRecipe
from models.trained_model import Manifest


def recipe_of(population: Population, manifest: Manifest | None, fields: Sequence[str]) -> TextRecipe:
    """Return the recipe of the texts that coders see: some fields, or else those that the model read.

    Raises:
        UserError: no fields are given, and the model is no longer there.
    """
    given = tuple(fields) or tuple(population.labels.options["text_fields"])
    if given:
        return (manifest.text if manifest else TextRecipe()).model_copy(update={"fields": given})
    if manifest is None:
        raise UserError(
            f"{population.source}: expected the model {population.question.model} where the run found it, to know its "
            "text fields, found none; name them with --fields."
        )
    return manifest.text


def of_drawn(population: Population, drawn: Sequence[Drawn], recipe: TextRecipe) -> list[str]:
    """Return the text of each document drawn.

    Raises:
        UserError: a row has no text, or the run and its input do not fit.
        SourceError: the input has changed since it was labelled, or cannot be read.
    """
    of_slice: defaultdict[str, dict[int, Drawn]] = defaultdict(dict)
    kept: dict[str, Drawn] = {}
    for one in drawn:
        piece = population.files[one.file].slice
        if piece:
            of_slice[piece][one.row] = one
        else:
            kept[one.id] = one
    found: dict[tuple[int, int], str] = {}
    if of_slice and population.labels.run:
        found |= dict(_of_slices(population.labels.run, of_slice, recipe))
    if kept and population.labels.kept:
        found |= dict(_of_ids(kept, population.labels.kept, recipe))
    if missing := [one for one in drawn if (one.file, one.row) not in found]:
        raise UserError(
            f"{population.source}: found no text of the document {missing[0].id} in the input; put it back."
        )
    return [found[one.file, one.row] for one in drawn]


def _of_slices(
    run: str, of_slice: dict[str, dict[int, Drawn]], recipe: TextRecipe
) -> Iterator[tuple[tuple[int, int], str]]:
    place: dict[str, int] = {}
    for name, row in JoinedRun(run, recipe.fields).rows_of(of_slice):
        if row.prediction is None:
            continue
        number = place[name] = place.get(name, -1) + 1
        if one := of_slice[name].get(number):
            yield (one.file, one.row), _text(row.record, one, recipe)


def _of_ids(kept: dict[str, Drawn], delta: Delta, recipe: TextRecipe) -> Iterator[tuple[tuple[int, int], str]]:
    """Read the whole corpus for the documents whose rows a delta kept."""
    id_field = delta.options["id_field"]
    expected = {(piece.file, piece.start): piece.checksum for piece in delta.slices}
    seen = set()
    for unit in counting.units(delta.files, delta.slice_bytes):
        with tempfile.TemporaryDirectory() as copies:
            for part in counting.count(unit, delta.slice_bytes, copies):
                if expected.get((part.file.path, part.start)) != part.checksum:
                    raise slices.changed(part)
                for line in slices.read_lines(part, copies, [*recipe.fields, id_field]):
                    record = records.record_or_nothing(line)
                    if not (one := kept.get(str(record.get(id_field)))):
                        continue
                    if one.id in seen:
                        raise UserError(
                            f"{part.file.path}: expected one document with the id {one.id!r}, found two; their rows "
                            "cannot be told apart, so label the whole corpus anew."
                        )
                    seen.add(one.id)
                    yield (one.file, one.row), _text(record, one, recipe)


def _text(record: dict[str, object], one: Drawn, recipe: TextRecipe) -> str:
    try:
        return recipe.join(record)
    except TextError as error:
        raise UserError(f"document {one.id}: {error}; name other fields with --fields.") from None
