#!/bin/sh
# Puts the examples of Triton's Python client into DIR: tests/clients/triton-examples.sh REPOSITORY DIR
#
# They are not part of its package. The commit is the same wherever it is fetched from.
set -eu
repository=$1 target=$2 commit=58a44caa0dce77303115302e6dbdf64626b2b093
rm -rf "$target"
git init --quiet "$target"
git -C "$target" fetch --quiet --depth 1 "$repository" "$commit"
git -C "$target" checkout --quiet FETCH_HEAD -- src/python/examples
