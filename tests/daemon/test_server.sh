# espalierd as a program: what it says when something is in the way, and that it ends cleanly.
set -u
d=$ESPALIER_BUILD/espalierd
[ -x "$d" ] || { echo "espalierd is not built"; exit 77; }
tmp=$(mktemp -d "$PWD/server.XXXXXX")
pids=()
trap 'kill "${pids[@]}" 2>/dev/null; rm -rf "$tmp"' EXIT
fails=0

# says STATUS TEXT COMMAND...: exits with STATUS and its message has TEXT
says() {
    local want=$1 text=$2 out rc
    shift 2
    out=$(timeout 20 "$@" 2>&1 </dev/null)
    rc=$?
    if [ $rc != "$want" ] || ! grep -qF -- "$text" <<<"$out"; then
        echo "FAILED: $*: status $rc, wanted $want; said: $out; wanted: $text"
        fails=$((fails + 1))
    fi
}
ipc() { args=(--dir "$tmp/$1" --control "ipc://$tmp/$1.c" --data "ipc://$tmp/$1.w" --status "" --http ""); }

ipc one
args[-1]=127.0.0.1:0
"$d" "${args[@]}" >"$tmp/out" 2>"$tmp/err" &
pids+=($!)
for _ in $(seq 100); do
    grep -q '^ready ' "$tmp/out" && break
    read -rt 0.1 <> <(:)
done
grep -q "^ready control=ipc://" "$tmp/out" || { echo "not ready: $(cat "$tmp/out" "$tmp/err")"; fails=$((fails + 1)); }

# get PATH TEXT
get() {
    python3 - "$(sed -n 's/.*http=\([^ ]*\) .*/\1/p' "$tmp/out")" "$1" "$2" <<'PY' || fails=$((fails + 1))
import sys, urllib.error, urllib.request
try:
    said = urllib.request.urlopen(f"http://{sys.argv[1]}{sys.argv[2]}", timeout=10).read().decode()
except urllib.error.HTTPError as e:
    said = f"{e.code} {e.read().decode()}"
if sys.argv[3] not in said:
    sys.exit(f"FAILED: {sys.argv[2]} says {said!r}, wanted {sys.argv[3]!r}")
PY
}
get /metrics 'espalier_jobs{state="ready"} 0'
get /metrics 'espalier_workers{state="idle"} 0'
get /healthz ok
get /secret 404

says 1 "another espalierd (process ${pids[0]}) owns this folder" "$d" --dir "$tmp/one" --control "ipc://$tmp/x.c" --data "ipc://$tmp/x.w" --status "" --http ""
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
python3 -c "
import socket, sys
s = socket.socket(); s.bind(('127.0.0.1', $port)); s.listen(1)
print('listening', flush=True); sys.stdin.read()" <> <(:) >"$tmp/listener" &
pids+=($!)
for _ in $(seq 100); do
    [ -s "$tmp/listener" ] && break
    read -rt 0.1 <> <(:)
done
says 1 "tcp://127.0.0.1:$port: the address is in use" "$d" --dir "$tmp/two" --control "tcp://127.0.0.1:$port" --data "ipc://$tmp/2.w" --status "" --http ""
says 1 "/proc/nowhere" "$d" --dir /proc/nowhere --control "ipc://$tmp/3.c" --data "ipc://$tmp/3.w" --status "" --http ""
says 2 "is no address: allowed is IPV4:PORT" "$d" --dir "$tmp/6" --control "ipc://$tmp/6.c" --data "ipc://$tmp/6.w" --status "" --http nonsense
says 2 "is no endpoint: allowed are tcp://ADDRESS:PORT" "$d" --control bogus
says 2 "'--bogus' is not understood (see espalierd --help)" "$d" --bogus
says 2 "'--dir' lacks a value" "$d" --dir
says 2 "stray: is not understood" "$d" stray
says 2 '--log: is "loud": allowed are debug, info, warn, error and off' "$d" --log loud
says 2 '--log-format: is "xml": allowed are text and json' "$d" --log-format xml
says 2 "--dir: has 300 bytes, at most 255 are allowed" "$d" --dir "$(printf 'x%.0s' $(seq 300))"
echo "lease: 5" >"$tmp/bad.yaml"
says 2 "bad.yaml:1:1: lease" "$d" -c "$tmp/bad.yaml"
printf 'dir: %s/four\nlease_ms: 1000\nheartbeat_ms: 900\n' "$tmp" >"$tmp/bad2.yaml"
says 2 "at least two heartbeats must fit into a lease" "$d" -c "$tmp/bad2.yaml"
mkdir "$tmp/five"
head -c 20000 /dev/urandom >"$tmp/five/state.db"
ipc five
says 1 "restore the last backup" "$d" "${args[@]}"

says 1 "process ${pids[0]}) owns this folder" "$d" --dir "$tmp/one" --check
kill -TERM "${pids[0]}"
wait "${pids[0]}"
rc=$?
says 0 "the databases are whole" "$d" --dir "$tmp/one" --check
says 1 "there is no database to check" "$d" --dir "$tmp/none" --check
says 1 "restore the last backup" "$d" --dir "$tmp/five" --check
[ $rc = 0 ] || { echo "FAILED: SIGTERM: status $rc"; fails=$((fails + 1)); }
[ $fails = 0 ] && echo "all messages are as they should be"
exit $((fails > 0))
