#!/usr/bin/env bash
# Makes a flex template of an image that `python -m inference.container build` made and that was pushed:
#   deploy/flex_template/build.sh REGION-docker.pkg.dev/PROJECT/NAME/labelbeam:TAG gs://BUCKET/templates/labelbeam.json
# Run it:
#   gcloud dataflow flex-template run labelbeam --region REGION --template-file-gcs-location gs://BUCKET/templates/labelbeam.json \
#     --parameters model=/models/NAME,input=gs://BUCKET/corpus/*.jsonl,output=gs://BUCKET/run,sdk_container_image=IMAGE
set -euo pipefail
if [ $# -ne 2 ]; then
  echo "error: expected IMAGE gs://BUCKET/PATH.json, found $# arguments; see the head of $0" >&2
  exit 2
fi
image=$1 target=$2
if [[ ${image##*/} != *[:@]* || $image == *:latest ]]; then
  echo "error: image $image: expected a tag that stays, such as a commit" >&2
  exit 2
fi
if [[ $target != gs://* ]]; then
  echo "error: $target: expected a gs:// path for the template" >&2
  exit 2
fi
gcloud dataflow flex-template build "$target" --image "$image" --sdk-language PYTHON \
  --metadata-file "$(dirname "$0")/metadata.json"
