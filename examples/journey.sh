#!/usr/bin/env bash
# The whole journey as one script: examples/journey.sh [RECIPE] [OUT]
set -euo pipefail
recipe=${1:-recipes/starter.yaml}
out=${2:-runs/starter}

polyclinic languages --preset balanced sw ha ne ar  # who is served by which expert
polyclinic check "$recipe"                          # read a recipe strictly, print it resolved
polyclinic run "$recipe" --out "$out"               # corpus, base, mixture, training, routing, scores, report
polyclinic run "$recipe" --out "$out"               # again: nothing to do
polyclinic corpus inspect "$out"                    # the data card
polyclinic languages --preset apollo --corpus "$out"  # how many tokens each expert would get, and beside it
polyclinic upcycle verify "$out/base" "$out/upcycle"  # prove the mixture equal to its parent again
