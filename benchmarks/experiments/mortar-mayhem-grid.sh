#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python -m trxl_jax.experiments run mortar-mayhem-grid --seeds 1 2 3 "$@"
