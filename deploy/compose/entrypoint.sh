#!/bin/sh
# Gives each file under /run/secrets (SECRETS_FOLDER) that is named like an environment variable to the command as that
# variable, unless it is empty, and then becomes the command.
set -eu
for file in "${SECRETS_FOLDER:-/run/secrets}"/*; do
    name=$(basename "$file")
    case "$name" in
        *[!A-Z0-9_]*) continue ;;
    esac
    if [ -s "$file" ]; then
        value=$(cat "$file")
        export "$name=$value"
    fi
done
exec "$@"
