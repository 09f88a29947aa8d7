# Part of tests/campaign: tables at a million sessions and at eight million. Hits beside the bare probe, insertions over
# churn, memory, and the end of all sessions in one instant.
# shellcheck shell=bash disable=SC2154 # the variables are those of tests/campaign

# Times as long as the bare probe that a hit may take, and nanoseconds of the 99.99th percentile of an insertion.
HIT=1.3
INSERT=10000
SIZES='1048576 8388608'

run_tables() {
    local dir size round kind result ratio limit status=0 first=1
    dir=$(mktemp -d)
    cargo bench --quiet --bench session --no-run
    for size in $SIZES; do
        SAMPAN_SESSIONS=$size SAMPAN_NANOS=$INSERT SAMPAN_REPORT=$dir/$size.json \
            cargo test --quiet --release --test campaign_tables >/dev/null || status=$?
        for ((round = 1; round <= rounds; round++)); do
            SAMPAN_SESSIONS=$size cargo bench --quiet --bench session -- only-compare 2>/dev/null |
                awk -v dir="$dir" '/ beside the bare probe: / { sub("/", "__", $1); print $6 >>(dir "/" $1) }'
        done
    done
    {
        echo '{'
        head_members
        printf '  "rounds": %s,\n  "hits": [\n' "$rounds"
        for size in $SIZES; do
            for kind in hit6 hit4 hit6_tcp; do
                [ $first = 1 ] || printf ',\n'
                first=0
                limit=$HIT
                [ $kind != hit6_tcp ] || limit=null
                result=$(quartiles <"$dir/session_$((size >> 20))m__$kind")
                ratio=$(sed -E 's/"median": ([0-9.]+),.*/\1/' <<<"$result")
                printf '    {"sessions": %s, "name": "%s", %s, "limit": %s}' "$size" "$kind" "$result" "$limit"
                [ "$limit" = null ] || ! exceeds "$ratio" "$limit" || status=1
            done
        done
        printf '\n  ],\n  "tables": ['
        first=1
        for size in $SIZES; do
            [ $first = 1 ] || printf ', '
            first=0
            printf '{\n  '
            cat "$dir/$size.json"
            printf '\n  }'
        done
        printf '],\n  "passed": %s\n}\n' "$([ $status = 0 ] && echo true || echo false)"
    } >"$out"
    rm -rf "$dir"
    return $status
}
