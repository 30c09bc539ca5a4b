# What Dataflow's workers run: pinned requirements, labelbeam, and trained models below /models. The same image launches
# a flex template, and labels by hand: docker run -i --entrypoint python IMAGE -m inference.run --model /models/NAME
#
# `python -m inference.container build` calls this with the right arguments and checks the result.

ARG PYTHON_VERSION=3.11
ARG BEAM_VERSION=2.77.0
ARG PYTHON_IMAGE=python:${PYTHON_VERSION}-slim
ARG BEAM_IMAGE=apache/beam_python${PYTHON_VERSION}_sdk:${BEAM_VERSION}
ARG LAUNCHER_IMAGE=gcr.io/dataflow-templates-base/python311-template-launcher-base:latest

FROM ${BEAM_IMAGE} AS beam
FROM ${LAUNCHER_IMAGE} AS launcher

FROM ${PYTHON_IMAGE} AS wheel
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
WORKDIR /src
COPY setup.py pyproject.toml README.md LICENSE labelbeam.py labelbeam.pth ./
COPY models/*.py models/
COPY models/templates models/templates
COPY training training
COPY inference inference
RUN pip wheel --quiet --no-cache-dir --no-deps --wheel-dir /wheel .

FROM ${PYTHON_IMAGE}
# A build for CPUs; for GPUs another index (https://download.pytorch.org/whl/cu128) and RUNTIMES empty. Without an index
# torch comes from where everything else does.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# What scores on a CPU: openvino, onnxruntime or both. What they need is pinned in requirements-dev.txt.
ARG RUNTIMES=openvino
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
COPY requirements.txt requirements-dev.txt requirements-torch.txt /tmp/
RUN set -eu; cd /tmp; pip="pip install --quiet --no-cache-dir --root-user-action=ignore"; \
    names=" $RUNTIMES "; \
    case "$names" in *" openvino "*) names="$names openvino-telemetry ";; esac; \
    case "$names" in *" onnxruntime "*) names="$names onnx onnxscript onnx-ir ml-dtypes flatbuffers ";; esac; \
    awk -F== -v names="$names" '/^[a-z]/ { on = index(names, " " $1 " ") } on' requirements-dev.txt >> requirements.txt; \
    $pip --no-deps --require-hashes -r requirements.txt; \
    $pip ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} -r requirements-torch.txt; \
    pip check; rm requirements*.txt

COPY --from=beam /opt/apache/beam /opt/apache/beam
COPY --from=launcher /opt/google/dataflow/python_template_launcher /opt/google/dataflow/python_template_launcher
COPY deploy/flex_template/main.py /template/main.py
COPY --from=wheel /wheel /tmp/wheel
RUN pip install --quiet --no-cache-dir --no-deps --root-user-action=ignore /tmp/wheel/*.whl && rm -r /tmp/wheel

# Nothing is fetched while it runs; what is cached lies where every user may write.
ENV HF_HUB_OFFLINE=1 \
    HF_HOME=/tmp/huggingface \
    XDG_CACHE_HOME=/tmp/cache \
    PYTHONUNBUFFERED=1 \
    RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1 \
    FLEX_TEMPLATE_PYTHON_PY_FILE=/template/main.py

COPY models/trained /models
# Every model has to load and label; what the runtimes convert is kept beside it.
RUN python -m inference.probe /models/* > /dev/null && find /models ! -perm -a+r -exec chmod a+rX {} + && rm -rf /tmp/*

ARG PYTHON_VERSION
ARG BEAM_VERSION
ARG COMMIT=unknown
# name=SHA-256 of model.json, and name.int8=SHA-256 of model.json followed by the int8 variant's conversion.json
ARG MODELS
RUN python -c "import sys, apache_beam as b; \
found = '%d.%d' % sys.version_info[:2], b.__version__; wanted = '${PYTHON_VERSION}', '${BEAM_VERSION}'; \
sys.exit(found != wanted and f'expected Python and Beam {wanted}, found {found}')"
LABEL org.opencontainers.image.title=labelbeam \
      org.opencontainers.image.revision=${COMMIT} \
      org.labelbeam.python=${PYTHON_VERSION} \
      org.labelbeam.beam=${BEAM_VERSION} \
      org.labelbeam.models=${MODELS}

WORKDIR /tmp
ENTRYPOINT ["/opt/apache/beam/boot"]
