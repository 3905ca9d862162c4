#!/bin/sh
# Takes away what no program reads: declarations, sources of TypeScript, source maps, pages.
# Usage: prune.sh DIRECTORY
set -eu
find "$1" -type f \( -name '*.map' -o -name '*.ts' -o -name '*.mts' -o -name '*.cts' \
  -o -name '*.tsbuildinfo' -o -iname 'readme*' -o -iname 'changelog*' -o -name '*.markdown' \
  -o -name '*.flow' \) -delete
# Their code is in build/ or dist/, and nobody tests them here.
find "$1" -depth -type d \( -name test -o -name tests -o -name __tests__ -o -name .github \
  -o -name benchmark -o -name benchmarks \) -path '*/node_modules/*' -exec rm -rf {} +
# Native parts for another runtime than Node.
find "$1" -depth -type d -path '*/node_modules/bare-*/prebuilds' -exec rm -rf {} +
find "$1" -type d -empty -delete
