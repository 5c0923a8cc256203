# The tree is as clang-format leaves it.
command -v clang-format >/dev/null || { echo "clang-format is not installed"; exit 77; }
exec "$ESPALIER_SOURCE/scripts/format" --check
