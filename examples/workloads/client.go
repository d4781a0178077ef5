// Calls an API of the iTwin Platform again and again. It reads the token for every call, because the file changes
// before the token expires.
package main

import (
	"cmp"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"
)

// without redirects, which would take the token to another server
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

var client = &http.Client{Timeout: 30 * time.Second, CheckRedirect: stay}

func call(address, file string) error {
	token, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	request, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "application/vnd.bentley.itwin-platform.v1+json")
	request.Header.Set("Authorization", "Bearer "+string(token))
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
	address := cmp.Or(os.Getenv("ITWIN_URL"), "https://api.bentley.com/itwins/")
	file := cmp.Or(os.Getenv("ITWIN_ACCESS_TOKEN_FILE"), "/var/run/secrets/itwin/access_token")
	interval, err := time.ParseDuration(cmp.Or(os.Getenv("INTERVAL_SECONDS"), "60") + "s")
	for ; err == nil; time.Sleep(interval) {
		if failure := call(address, file); failure != nil {
			log.Print("The call failed: ", failure)
		}
	}
	log.Fatal(err)
}
