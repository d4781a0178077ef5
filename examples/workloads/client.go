// Calls an API of the iTwin Platform again and again. It reads the token for every call, because the file changes
// before the token expires.
package main

import (
	"cmp"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"time"
)

// bearer adds the token of a file to each request.
type bearer struct{ file, host string }

func (b bearer) RoundTrip(request *http.Request) (*http.Response, error) {
	token, err := os.ReadFile(b.file)
	if err != nil {
		return nil, err
	}
	request = request.Clone(request.Context())
	// not to the server that a redirect leads to
	if request.URL.Host == b.host {
		request.Header.Set("Authorization", "Bearer "+string(token))
	}
	return http.DefaultTransport.RoundTrip(request)
}

func call(client *http.Client, address string) error {
	request, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "application/vnd.bentley.itwin-platform.v1+json")
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", response.Status)
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

func main() {
	address, err := url.Parse(cmp.Or(os.Getenv("ITWIN_URL"), "https://api.bentley.com/itwins/"))
	if err != nil {
		log.Fatal(err)
	}
	interval, err := time.ParseDuration(cmp.Or(os.Getenv("INTERVAL_SECONDS"), "60") + "s")
	if err != nil {
		log.Fatal(err)
	}
	file := cmp.Or(os.Getenv("ITWIN_ACCESS_TOKEN_FILE"), "/var/run/secrets/itwin/access_token")
	client := &http.Client{Timeout: 30 * time.Second, Transport: bearer{file, address.Host}}
	for {
		if err := call(client, address.String()); err != nil {
			log.Print("The call failed: ", err)
		}
		time.Sleep(interval)
	}
}
