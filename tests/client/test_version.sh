# Every program says which release it is: the number of project(), and nothing has to be there for it.
set -u
want=$(sed -n 's/^project(espalier VERSION \([0-9.]*\).*/\1/p' "$ESPALIER_SOURCE/CMakeLists.txt")
[ -n "$want" ] || { echo "FAILED: project() names no version"; exit 1; }
fails=0
for program in espalier espalierd espalier-worker; do
    said=$(env -i HOME=/nowhere PATH="$PATH" timeout 20 "$ESPALIER_BUILD/$program" --version 2>&1 </dev/null)
    rc=$?
    if [ $rc != 0 ] || [ "$said" != "$program $want" ]; then
        echo "FAILED: $program --version: status $rc, said \"$said\", wanted \"$program $want\""
        fails=$((fails + 1))
    fi
done
exit $((fails > 0))
