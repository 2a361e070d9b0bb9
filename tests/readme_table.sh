#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# readme_table.sh SOURCE_DIR COMMAND...: checks that one of the README.md files has every line that the command prints.
set -euo pipefail
cd "$1"
shift
printed=$("$@")
[ -n "$printed" ] || exit 1
for readme in README.md $(find include examples bench tests -name README.md); do
  missing=$(grep -vxFf "$readme" <<<"$printed" | head -n 1 || true)
  [ -n "$missing" ] || { echo "as printed in $readme"; exit 0; }
  first_missing=${first_missing-$missing}
done
echo "README.md lacks: $first_missing"
exit 1
