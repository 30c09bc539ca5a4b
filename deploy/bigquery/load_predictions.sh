#!/usr/bin/env bash
# Loads a run's predictions, and no other files, into a BigQuery table with the schema that the run wrote. Then compares
# the ids that went in with the ids that came out:
#   deploy/bigquery/load_predictions.sh gs://BUCKET/run PROJECT.DATASET.TABLE deploy/bigquery/corpus.sql
# Needs the Cloud SDK's bq and gcloud, logged in. It exits 1 if an id is missing that is not among the run's failures.
set -euo pipefail
if [ $# -ne 3 ]; then
  echo "error: expected gs://BUCKET/RUN PROJECT.DATASET.TABLE QUERY.sql, found $# arguments; see the head of $0" >&2
  exit 2
fi
run=${1%/} table=$2 query=$3
[ -f "$query" ] || { echo "error: $query: expected the corpus's query, found no such file" >&2; exit 2; }
[[ $table == *.*.* ]] || { echo "error: $table: expected PROJECT.DATASET.TABLE" >&2; exit 2; }

here=$(mktemp -d)
trap 'rm -r "$here"' EXIT
gcloud storage cp --quiet "$run/schema.json" "$run/summary.json" "$run/run.json" "$here" || {
  echo "error: $run has no schema.json, summary.json and run.json: is the run finished?" >&2
  exit 2
}
field() { python3 -c 'import json, sys; content = json.load(open(sys.argv[1]))
for name in sys.argv[2:]: content = content[name]
print(content)' "$@"; }
identity=$(field "$here/run.json" run)
format=$(field "$here/run.json" options format)
[ "$(field "$here/summary.json" run)" = "$identity" ] || {
  echo "error: $run has a summary.json of another run: finish this one first" >&2
  exit 2
}
slices=$(field "$here/summary.json" slices)
predicted=$(field "$here/summary.json" predicted)
failed=$(field "$here/summary.json" failed)
# Each slice has one file, and its name holds the run. BigQuery takes one wildcard, which cannot tell runs apart.
files=$(gcloud storage ls "$run/predictions/*.$format") || files=""
found=$(grep -c . <<<"$files") || true
own=$(grep -cE "\.${identity:0:8}-[0-9a-f]{16}\.$format\$" <<<"$files") || true
[ "$own" = "$slices" ] && [ "$found" = "$slices" ] || {
  echo "error: $run/predictions: expected $slices files of this run and no others, found $own of $found; \`labelbeam verify $run\` names those at fault" >&2
  exit 2
}
# The rules of BigQuery: https://docs.cloud.google.com/bigquery/docs/schemas#column_names
refused=$(python3 -c '
import json, sys, unicodedata
reserved = ("_table_", "_file_", "_partition", "_row_timestamp", "__root__", "_colidentifier")
def fits(character):
    category = unicodedata.category(character)
    return category[0] in "LNM" or category in ("Pc", "Pd") or character in "&%=+:\x27<>#| \t"
def refuses(name):
    return not 0 < len(name) <= 300 or name.lower().startswith(reserved) or not all(map(fits, name))
names = [column["name"] for column in json.load(open(sys.argv[1], encoding="utf-8"))]
sys.stdout.reconfigure(encoding="utf-8")
print(*map(repr, filter(refuses, names)), sep=", ")' "$here/schema.json")
[ -z "$refused" ] || {
  echo "error: $run has columns that BigQuery refuses, $refused: label again with other --keep_fields" >&2
  exit 2
}
if [ "$format" = parquet ]; then source=PARQUET; else source=NEWLINE_DELIMITED_JSON; fi

bq load --replace --source_format="$source" "${table/./:}" "$run/predictions/*.$format" "$here/schema.json"
rows=$(bq query --use_legacy_sql=false --quiet --format=csv "
SELECT COUNT(*) FROM \`$table\`" | tail -n 1)
missing=$(bq query --use_legacy_sql=false --quiet --format=csv "
SELECT COUNT(DISTINCT corpus.id) FROM ($(cat "$query")) AS corpus
LEFT JOIN \`$table\` AS labelled USING (id) WHERE labelled.id IS NULL" | tail -n 1)
strange=$(bq query --use_legacy_sql=false --quiet --format=csv "
SELECT COUNT(DISTINCT labelled.id) FROM \`$table\` AS labelled
LEFT JOIN ($(cat "$query")) AS corpus USING (id) WHERE corpus.id IS NULL" | tail -n 1)
echo "$table: $rows rows of $predicted predicted; $missing ids without a row, $failed documents failed; $strange rows of no document"
if [ "$rows" -ne "$predicted" ] || [ "$missing" -gt "$failed" ] || [ "$strange" -ne 0 ]; then
  echo "failed: ids in and ids out differ" >&2
  exit 1
fi
