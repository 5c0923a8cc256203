# A key is named after the user, also where there is no $USER (a service, cron, a bare root shell).
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
want=$(id -un)
fails=0
check() { # WHAT GOT WANTED
    [ "$2" = "$3" ] || { echo "FAILED: $1: \"$2\", wanted \"$3\""; fails=$((fails + 1)); }
}
named() { "$@" | awk '$1 == "client" { print $2; exit }'; }
check "without USER" "$(named env -i HOME="$dir" PATH="$PATH" "$ESPALIER_BUILD/espalier" keygen "$dir/one" --role client </dev/null)" "$want"
check "with USER" "$(named env -i HOME="$dir" PATH="$PATH" USER=someone "$ESPALIER_BUILD/espalier" keygen "$dir/two" --role client </dev/null)" someone
exit $((fails > 0))
