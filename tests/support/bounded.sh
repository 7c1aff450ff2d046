#!/usr/bin/env bash
# Runs a test program, and ends it when it takes longer than any of them should: one that waits for ever would otherwise
# keep all the others from being run, and nobody would learn which it was. Cargo's runner in `./test`.
#
#   AMENDS_TEST_LIMIT   seconds, 900 unless told
set -uo pipefail
limit=${AMENDS_TEST_LIMIT:-900}

"$@" &
program=$!
trap 'kill -TERM "$program" 2>/dev/null' HUP INT TERM

(
    end=$((SECONDS + limit))
    while ((SECONDS < end)); do
        sleep 1
        kill -0 "$program" 2>/dev/null || exit
    done
    echo "test: TOO LONG: $1 has run for $limit s and is ended; its threads and processes:"
    # A test's thread has the beginning of the test's name; where there is no /proc, only libtest says what takes long.
    cat /proc/"$program"/task/*/comm 2>/dev/null | grep -vxF "$(cat /proc/"$program"/comm 2>/dev/null)" | sort | uniq -c
    ps -o pid,ppid,etime,args --ppid "$program" 2>/dev/null
    kill -KILL "$program"
) >&2 </dev/null &
watch=$!

wait "$program"
code=$?
# A signal to this script ends the first wait early.
if kill -0 "$program" 2>/dev/null; then wait "$program"; code=$?; fi
kill -TERM "$watch" 2>/dev/null
wait "$watch" 2>/dev/null
exit "$code"
