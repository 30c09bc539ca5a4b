"""Finds the texts of drawn documents in the input of their run."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from inference.audits.drawing import Drawn
from inference.audits.population import Population
from inference.corpus import records, slices
from inference.runs import drift
from inference.runs.joined import JoinedRun
from models.errors import UserError
from models.text import TextError, TextRecipe


def recipe_of(population: Population, fields: Sequence[str]) -> TextRecipe:
    """Return the recipe of the texts that coders see: some fields, or else those that the model read.

    Raises:
        UserError: no fields are given, and the model is no longer there.
    """
    given = tuple(fields) or tuple(population.labels.options["text_fields"])
    if given:
        return TextRecipe(fields=given)
    path = next(one["path"] for one in population.labels.models if one["name"] == population.question.model)
    manifest = drift.manifest_of(path)
    if manifest is None:
        raise UserError(
            f"{path}: expected the model of the run, to know its text fields, found none; name them with --fields."
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
    if kept:
        found |= dict(_of_ids(population, kept, recipe))
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


def _of_ids(
    population: Population, kept: dict[str, Drawn], recipe: TextRecipe
) -> Iterator[tuple[tuple[int, int], str]]:
    """Read the whole corpus for the documents whose rows a delta kept. Their ids are unique in it."""
    id_field = population.labels.options["id_field"]
    for file in population.labels.corpus:
        for line in slices.all_lines(file, [*recipe.fields, id_field]):
            record = records.record_or_nothing(line)
            if one := kept.get(str(record.get(id_field))):
                yield (one.file, one.row), _text(record, one, recipe)


def _text(record: dict[str, object], one: Drawn, recipe: TextRecipe) -> str:
    try:
        return recipe.join(record)
    except TextError as error:
        raise UserError(f"document {one.id}: {error}; name other fields with --fields.") from None
