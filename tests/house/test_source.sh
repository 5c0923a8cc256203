# The tree keeps the house rules.
exec python3 "$ESPALIER_SOURCE/scripts/check-source" --root "$ESPALIER_SOURCE"
