"""Calls an API of the iTwin Platform again and again. It reads the token for every call, because the file changes
before the token expires."""

import http.client
import os
import sys
import time
import urllib.request

FILE = os.environ.get("ITWIN_ACCESS_TOKEN_FILE", "/var/run/secrets/itwin/access_token")
URL = os.environ.get("ITWIN_URL", "https://api.bentley.com/itwins/")
INTERVAL_SECONDS = float(os.environ.get("INTERVAL_SECONDS", "60"))


def call(url):
    with open(FILE, encoding="ascii") as file:
        token = file.read().strip()
    request = urllib.request.Request(url, headers={"Accept": "application/vnd.bentley.itwin-platform.v1+json"})
    # An ordinary header would follow a redirect to another server.
    request.add_unredirected_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=30) as response:
        return response.read()


while True:
    try:
        call(URL)
    except (OSError, http.client.HTTPException) as error:
        print(f"The call failed: {error}", file=sys.stderr)
    except ValueError:
        # Its message may hold the token.
        print("The call failed: the token or the URL is not valid.", file=sys.stderr)
    time.sleep(INTERVAL_SECONDS)
