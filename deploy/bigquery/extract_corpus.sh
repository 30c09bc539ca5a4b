#!/usr/bin/env bash
# Writes the rows of a query as JSON lines into Cloud Storage, where a run reads them:
#   deploy/bigquery/extract_corpus.sh deploy/bigquery/corpus.sql gs://BUCKET/corpus
# It needs bq of the Cloud SDK, logged in. BigQuery refuses a folder that already holds files.
set -euo pipefail
if [ $# -ne 2 ]; then
  echo "error: expected QUERY.sql gs://BUCKET/FOLDER, found $# arguments; see the head of $0" >&2
  exit 2
fi
query=$1 target=${2%/}
[ -f "$query" ] || { echo "error: $query: expected a file with a query, found none" >&2; exit 2; }
[[ $target == gs://*/* ]] || { echo "error: $target: expected a folder such as gs://BUCKET/corpus" >&2; exit 2; }
grep -qwi id "$query" || { echo "error: $query names no column id: every document needs one" >&2; exit 2; }

bq query --use_legacy_sql=false --quiet "EXPORT DATA OPTIONS (
  uri = '$target/part-*.jsonl', format = 'JSON', overwrite = false
) AS
$(cat "$query")"
echo "$target/part-*.jsonl"
