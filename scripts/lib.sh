# Shared by scripts/test and scripts/demo: sourced, from the root of the source tree.

# configure DIR [cmake options]: makes a build folder once; later runs of cmake are left to ninja.
configure() {
    local dir=$1
    shift
    [ -f "$dir/build.ninja" ] || cmake -S . -B "$dir" -G Ninja "$@"
}

# build DIR [targets]
build() {
    local dir=$1
    shift
    ninja -C "$dir" -j "${JOBS:-$(nproc)}" "$@"
}
