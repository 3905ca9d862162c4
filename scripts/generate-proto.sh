#!/bin/sh
# Writes src/rpc/gen anew from proto/. Run it after every change there and commit both.
# Needs protoc (3.21 or later) on the PATH or below .tools/, and the installed node_modules.
set -eu
cd "$(dirname "$0")/.."

tools="$PWD/.tools/usr"
includes=''
if [ -x "$tools/bin/protoc" ]; then
  PATH="$tools/bin:$PATH"
  LD_LIBRARY_PATH="$(echo "$tools"/lib/*-linux-gnu | tr ' ' ':')${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
  export LD_LIBRARY_PATH
  includes="-I $tools/include"
elif ! command -v protoc >/dev/null; then
  echo 'Cannot generate code: protoc is missing. Install it: apt-get install protobuf-compiler' >&2
  exit 1
fi
# The plugin needs the project's own Node, which may be newer than the machine's.
PATH="$PWD/node_modules/node/bin:$PWD/node_modules/.bin:$PATH"
export PATH

# Written beside the old code first, so that a failure leaves that as it was.
fresh="$(mktemp -d src/rpc/gen.XXXXXX)"
trap 'rm -rf "$fresh"' EXIT
# shellcheck disable=SC2046,SC2086 # Neither paths below proto/ nor the option contain spaces.
protoc -I proto $includes \
  --es_out "$fresh" --es_opt target=ts,import_extension=ts \
  $(find proto -name '*.proto' | LC_ALL=C sort)
chmod 755 "$fresh"
rm -rf src/rpc/gen
mv "$fresh" src/rpc/gen
