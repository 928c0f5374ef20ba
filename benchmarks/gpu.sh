#!/usr/bin/env bash
# What needs a GPU: the tests marked `gpu`, then the speed of training, features, decoding and k-means.
#   bash benchmarks/gpu.sh [OUT]      at most 8 minutes; OUT (default runs/bench_gpu) gets tests.txt and gpu.json
# PYTHON names the interpreter (default: python), LIMIT the seconds for the measurements (default: 300).
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/bench_gpu}
python=${PYTHON:-python}
mkdir -p "$out"
status=0
timeout 170 "$python" -m pytest -q -m gpu tests/test_gpu.py -p no:cacheprovider 2>&1 | tee "$out/tests.txt" || status=1
PYTHONPATH=".${PYTHONPATH:+:$PYTHONPATH}" "$python" benchmarks/bench_gpu.py --out "$out" --limit "${LIMIT:-300}" || status=1
exit $status
