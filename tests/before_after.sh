# Part of tests/campaign: what a plain packet costs now and what it cost at an older commit, both in one run; and what the
# slowest input of the fuzz corpora costs beside a plain packet.
# shellcheck shell=bash disable=SC2154 # the variables are those of tests/campaign

# The last state of the main line before anything for stateless translation, fragments or RFC 4884 came in: the first
# parent of the merge of reassembly. There the translator knew TCP, UDP and echo, unfragmented, and ICMP errors.
BEFORE=20e2ca3

# Times as long that a packet of 64 bytes may take now, and that the slowest input may take beside it.
LIMIT=1.10
SLOWEST=1000

# Names of the fields that `Context` of src/xlat/$1.rs had then.
fields_then() {
    git show "$before:src/xlat/$1.rs" |
        sed -n '/^pub struct Context/,/^}/s/^    pub \([a-z0-9_]*\):.*/\1/p' | paste -sd'|'
}

# Puts the older commit into $1, with today's bench: fields that it does not know are left out.
check_out() {
    git worktree prune
    [ ! -e "$1" ] || git worktree remove --force "$1"
    git worktree add --quiet --detach "$1" "$before"
    v6_to_v4=$(fields_then v6_to_v4) v4_to_v6=$(fields_then v4_to_v6) perl -0777 -pe '
        for my $way ("v6_to_v4", "v4_to_v6") {
            my $known = $ENV{$way};
            s/($way\::Context \{)([^}]*)\}/my ($a, $b) = ($1, $2);
                $b =~ s,\b(?!(?:$known)\b)\w+: [^\,]*\,?,,g; "$a$b}"/ge;
        }' benches/packet.rs >"$1/benches/packet.rs"
    grep -q '^name = "packet"' "$1/Cargo.toml" ||
        printf '\n[[bench]]\nname = "packet"\nharness = false\n' >>"$1/Cargo.toml"
}

# Builds bench $3 of the tree $1 with the target directory $2, and copies the program to $4: the sources may change while
# a campaign runs.
build_bench() {
    local program
    program=$(cd "$1" && CARGO_TARGET_DIR=$2 cargo bench --quiet --bench "$3" --no-run --message-format=json |
        sed -n "s/.*\"name\":\"$3\".*\"executable\":\"\([^\"]*\)\".*/\1/p" | tail -n 1) || return 1
    [ -n "$program" ] && cp "$program" "$4"
}

# Runs the bench $1 of packets and adds its medians in nanoseconds to files beginning with $2.
time_packets() {
    local way
    CRITERION_HOME=$work/criterion "$1" --bench --noplot --warm-up-time 0.5 --measurement-time 1 --sample-size 40 \
        'packet64/.*/parse_plan_apply' >/dev/null 2>&1 || return 1
    for way in v6_to_v4 v4_to_v6; do
        median_of "$work/criterion/packet64/${way}_parse_plan_apply" >>"$2-$way" || return 1
    done
}

run_before_after() {
    local work tree figures head status=0 round way first=1 result over
    mkdir -p "$target"
    target=$(realpath "$target")
    work=$target/campaign/before-after
    tree=$work/tree
    figures=$(mktemp -d)
    mkdir -p "$work"
    git rev-parse --quiet --verify "$before^{commit}" >/dev/null ||
        { echo "campaign: this clone does not have the commit $before" >&2; return 1; }
    head=$(head_members)
    check_out "$tree" || return 1
    # shellcheck disable=SC2064 # the names of now
    trap "git worktree remove --force '$tree'; rm -rf '$figures'" EXIT
    build_bench "$tree" "$work/target" packet "$work/before" || return 1
    build_bench . "$target" packet "$work/after" && build_bench . "$target" slowest "$work/slowest" || return 1
    for ((round = 1; round <= rounds; round++)); do
        # Turn and turn about, so that what grows in the course of a run weighs on both.
        if ((round % 2)); then
            time_packets "$work/before" "$figures/before" && time_packets "$work/after" "$figures/after"
        else
            time_packets "$work/after" "$figures/after" && time_packets "$work/before" "$figures/before"
        fi || return 1
    done
    "$work/slowest" --bench >"$figures/slowest" || return 1
    {
        printf '{\n%s\n  "before": "%s",\n  "rounds": %s,\n  "packet64": [\n' \
            "$head" "$(git rev-parse --short=12 "$before")" "$rounds"
        for way in v6_to_v4 v4_to_v6; do
            [ $first = 1 ] || printf ',\n'
            first=0
            result=$(paste "$figures/after-$way" "$figures/before-$way" | awk '{ printf "%.4f\n", $1 / $2 }' | quartiles)
            printf '    {"name": "%s", "ratio": {%s}, "limit": %s,\n' "$way" "$result" "$LIMIT"
            printf '     "before_ns": {%s}, "after_ns": {%s}}' \
                "$(quartiles <"$figures/before-$way")" "$(quartiles <"$figures/after-$way")"
            exceeds "$(sed -E 's/"median": ([0-9.]+),.*/\1/' <<<"$result")" "$LIMIT" && status=1
        done
        printf '\n  ],\n  "slowest": [\n'
        awk -v limit=$SLOWEST '{ printf "%s    {\"target\": \"%s\", \"inputs\": %s, \"plain_ns\": %s, \"slowest_ns\": %s, " \
            "\"input\": \"%s\", \"ratio\": %.1f, \"limit\": %s}", (NR > 1 ? ",\n" : ""), $1, $2, $3, $4, $5, $4 / $3, limit }' \
            "$figures/slowest"
        over=$(awk -v limit=$SLOWEST '$4 > limit * $3' "$figures/slowest" | wc -l)
        [ "$over" = 0 ] && [ "$(wc -l <"$figures/slowest")" = 5 ] || status=1
        printf '\n  ],\n  "passed": %s\n}\n' "$([ $status = 0 ] && echo true || echo false)"
    } >"$out"
    return $status
}
