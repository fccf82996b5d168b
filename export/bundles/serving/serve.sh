#!/bin/sh
# Serves a bundle with TensorFlow Serving in Docker: gRPC on port 8500, REST on port 8501.
#
#   ./serve.sh [BUNDLE]              default: the bundle this folder was written for
#   BATCHING=1 ./serve.sh            joins requests, by batching.config
#   GPU=1 ./serve.sh                 on the GPUs of this machine
set -eu

bundle=${1:-}
[ -n "$bundle" ] || bundle=@BUNDLE@
here=$(cd "$(dirname "$0")" && pwd)
image=tensorflow/serving:@SERVING@

set --
if [ "${BATCHING:-0}" = 1 ]; then
  set -- --enable_batching --batching_parameters_file=/serving/batching.config
fi
gpus=
if [ "${GPU:-0}" = 1 ]; then
  gpus=--gpus=all
  image=$image-gpu
fi

# shellcheck disable=SC2086  # no GPU is no argument
exec docker run --rm $gpus \
  --publish 8500:8500 --publish 8501:8501 \
  --volume "$bundle:/models/@NAME@/1:ro" \
  --volume "$here:/serving:ro" \
  --env MODEL_NAME=@NAME@ \
  "$image" "$@"
