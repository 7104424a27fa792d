// Command loadgen sends the requests of a migration as fast as two Vault servers answer them: read a key at the
// source, write it at the destination, and read it back: "each" at once, all in a "second pass", or not at all. It
// compares nothing: it is the ceiling that clients are measured against. It takes its work as JSON on standard input
// and prints the seconds it took.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

type end struct {
	URL   string `json:"url"`
	Token string `json:"token"`
}

type work struct {
	CA          string   `json:"ca"`
	InFlight    int      `json:"in_flight"`
	Path        string   `json:"path"`
	Version     int      `json:"version"`
	ReadBack    string   `json:"read_back"`
	Names       []string `json:"names"`
	Source      end      `json:"source"`
	Destination end      `json:"destination"`
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "loadgen:", err)
		os.Exit(1)
	}
}

// value returns the part of an answer to a read that has to be written: on version 2 it lies one level deeper.
func value(answer []byte, version int) []byte {
	var read struct {
		Data json.RawMessage `json:"data"`
	}
	fail(json.Unmarshal(answer, &read))
	if version == 1 {
		return read.Data
	}
	fail(json.Unmarshal(read.Data, &read))
	return []byte(`{"options":{"cas":0},"data":` + string(read.Data) + `}`)
}

func main() {
	var w work
	fail(json.NewDecoder(os.Stdin).Decode(&w))
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(w.CA))
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: pool},
		MaxIdleConnsPerHost: w.InFlight,
		ForceAttemptHTTP2:   false,
	}}
	call := func(to end, method, name string, body []byte) []byte {
		request, err := http.NewRequest(method, to.URL+w.Path+name, bytes.NewReader(body))
		fail(err)
		request.Header.Set("X-Vault-Token", to.Token)
		answer, err := client.Do(request)
		fail(err)
		defer answer.Body.Close()
		content, err := io.ReadAll(answer.Body)
		fail(err)
		if answer.StatusCode >= 300 {
			fail(fmt.Errorf("%s %s: HTTP %d", method, name, answer.StatusCode))
		}
		return content
	}
	all := func(do func(name string)) {
		names := make(chan string)
		var group sync.WaitGroup
		for range make([]struct{}, w.InFlight) {
			group.Add(1)
			go func() {
				defer group.Done()
				for name := range names {
					do(name)
				}
			}()
		}
		for _, name := range w.Names {
			names <- name
		}
		close(names)
		group.Wait()
	}
	started := time.Now()
	all(func(name string) {
		call(w.Destination, "POST", name, value(call(w.Source, "GET", name, nil), w.Version))
		if w.ReadBack == "each" {
			call(w.Destination, "GET", name, nil)
		}
	})
	if w.ReadBack == "second pass" {
		all(func(name string) { call(w.Destination, "GET", name, nil) })
	}
	fmt.Printf("{\"seconds\": %f}\n", time.Since(started).Seconds())
}
