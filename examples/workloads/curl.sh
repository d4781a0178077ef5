#!/bin/sh
# Calls an API of the iTwin Platform again and again. It reads the token for every call, because the file changes before
# the token expires.
set -eu

file="${ITWIN_ACCESS_TOKEN_FILE:-/var/run/secrets/itwin/access_token}"
url="${ITWIN_URL:-https://api.bentley.com/itwins/}"

call() {
  # The header comes from standard input: other processes can see the arguments of a program.
  printf 'Authorization: Bearer %s\n' "$(cat "$file")" |
    curl --silent --show-error --fail --max-time 30 --output /dev/null --header @- \
      --header 'Accept: application/vnd.bentley.itwin-platform.v1+json' "$url"
}

while true; do
  call || echo "The call failed." >&2
  sleep "${INTERVAL_SECONDS:-60}"
done
