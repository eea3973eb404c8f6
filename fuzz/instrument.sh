#!/bin/sh
# Compiles a crate of the workspace in such a way that libFuzzer sees which code an input reaches, and what is
# compared with what. Cargo runs it in the place of rustc (RUSTC_WORKSPACE_WRAPPER); the options are stable ones.
exec "$@" \
  -Cpasses=sancov-module \
  -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
  -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares
