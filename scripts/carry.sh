#!/bin/bash
# Gathers in .carry/ the wheels that a machine with torch and a usual set of packages lacks, for one without a network: about 20 MiB.
# There: python3 scripts/device_check.py. PYTHON_VERSION is that machine's.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
VERSION=${PYTHON_VERSION:-3.12}
new=$(mktemp -d) # the wheels of last time stay until the new ones are complete
trap 'rm -rf "$new"' EXIT
platforms=()
for glibc in 2_28 2_27 2_17; do platforms+=(--platform "manylinux_${glibc}_x86_64"); done
platforms+=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64)
# --no-deps: mujoco also asks for a viewer's packages, mbrl-lib for old versions of everything.
"$PYTHON" -m pip download --quiet --no-deps --only-binary=:all: --implementation cp --python-version "$VERSION" "${platforms[@]}" --dest "$new" \
    mujoco==4.0.0 mujoco-core==4.0.0 glfw==2.11.0 PyOpenGL==3.1.10 gymnasium==1.4.0 Farama-Notifications==0.0.6 \
    omegaconf==2.4.0 mbrl==0.2.0 hydra-core==1.3.8 termcolor==3.3.0
"$PYTHON" -m pip wheel --quiet --no-deps --wheel-dir "$new" antlr4-python3-runtime==4.9.3 # it has no wheel
size=$(du -sm "$new" | cut -f1)
if [ "$size" -gt 60 ]; then
    echo "carry.sh: the wheels have $size MiB, expected at most 60" >&2
    exit 1
fi
rm -rf .carry
mkdir .carry
mv "$new"/*.whl .carry
echo ".carry: $(ls .carry | wc -l) wheels, $size MiB"
