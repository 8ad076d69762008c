#!/bin/sh
# Takes guards out, one at a time, and demands that the simulator notices each.
#
# Each mutation replaces one exact line in a copy of the sources; that line must be there exactly once, so that a guard
# that moves or changes is noticed here too. Compiled once per mutation, into a target directory of its own
# (MUTANTS_TARGET, by default target/mutants). Options for cargo, such as --offline, may stand in CARGO_ARGS.
set -eu

cd "$(dirname "$0")/.."
repository=$PWD
CARGO_TARGET_DIR=${MUTANTS_TARGET:-$repository/target/mutants}
export CARGO_TARGET_DIR
# Always the same place, so that cargo does not take each run for another workspace.
copy=$CARGO_TARGET_DIR/mutants-copy
mkdir -p "$copy"
trap 'rm -rf "$copy"' EXIT INT TERM

fail() {
    echo "mutants: $*" >&2
    exit 1
}

fresh_copy() {
    rm -rf "$copy/ted"
    mkdir "$copy/ted"
    # With the time of now (-m): cargo goes by it, and an unmutated file is older than its mutant.
    tar -C "$repository" --exclude=./target --exclude=./.git -cf - . | tar -C "$copy/ted" -xmf -
}

# mutate FILE LINE REPLACEMENT: all without the spaces before them.
mutate() {
    LINE=$2 REPLACEMENT=$3 awk '
        {
            bare = $0
            sub(/^[ ]+/, "", bare)
            if (bare == ENVIRON["LINE"]) { found++; print ENVIRON["REPLACEMENT"] } else print
        }
        END { exit found == 1 ? 0 : 1 }
    ' "$copy/ted/$1" > "$copy/mutated" || fail "$1 does not hold this line exactly once: $2"
    cp "$copy/mutated" "$copy/ted/$1"
}

# simulate TEST: `simulation` of two nodes, or `tiers`.
simulate() {
    # shellcheck disable=SC2086 # options, split on purpose
    (cd "$copy/ted" && ${CARGO:-cargo} test ${CARGO_ARGS:-} --package ted-core --test "$1") > "$copy/log" 2>&1
}

# demand_failure WHAT [TEST] [KIND]: the mutant must compile, and the simulator must say why it fails.
demand_failure() {
    if simulate "${2:-simulation}"; then
        fail "the simulator does not notice that this was taken out: $1"
    fi
    grep -q "^seed [0-9]*: ${3:-SAFETY}" "$copy/log" || {
        tail -n 40 "$copy/log" >&2
        fail "it failed for another reason: $1"
    }
    echo "noticed: $1 ($(grep -c '^seed ' "$copy/log") seeds; $(grep -m 1 '^seed ' "$copy/log"))"
}

fresh_copy
for test in simulation tiers; do
    simulate "$test" || { tail -n 40 "$copy/log" >&2; fail "the simulator fails without any mutation: $test"; }
done
echo "passes: unmutated"

fresh_copy
mutate ted-core/src/protocol/receiver.rs 'self.actions.push_back(Action::SyncData);' 'self.synced();'
demand_failure "the data is synced before a map vouches for it"

fresh_copy
mutate ted-core/src/package/frame.rs 'if Hash::of(stored) != row.hash {' 'if false {'
demand_failure "a frame is checked before it is written"

fresh_copy
mutate ted-core/src/protocol/offer.rs 'if is_below(floor, statement) {' 'if false && is_below(floor, statement) {'
demand_failure "nothing below the floor is accepted"

# What holds in tiers. Fewer worlds do.
export TED_SIM_SEEDS=60

fresh_copy
mutate ted-core/src/package/frame.rs 'if Hash::of(stored) != row.hash {' 'if false {'
demand_failure "a frame is checked before it is passed on" tiers

fresh_copy
mutate ted-core/src/protocol/relay.rs \
    'let believed: BTreeSet<_> = up.iter().filter(|up| child.behind.contains(*up)).copied().collect();' \
    'let believed: BTreeSet<_> = up.iter().copied().collect();'
demand_failure "a child is believed only about those behind it" tiers

fresh_copy
mutate ted-core/src/protocol/relay.rs 'RelayEnd::Stopped => self.packages.remove(package),' 'RelayEnd::Stopped => None,'
demand_failure "what stopped is fetched again for whoever asks next" tiers LIVENESS
