// Command workload is all that is in the images of the end-to-end tests: something to run in a pod.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

const usage = `usage: workload COMMAND
  pause                       wait for a signal
  serve ADDRESS               HTTP: /, /healthz, /burn?for=1s, /exit?code=3
  get URL [COUNT [INTERVAL]]  HTTP requests, one after the other
  burn DURATION               use one CPU
  write FILE BYTES            write, with fsync
  read FILE                   read to the end
  allocate BYTES DURATION     hold memory that has been written to
  fork COUNT [INTERVAL]       run "workload exit 0" so many times
  exit CODE                   end at once
  sleep DURATION
  print TEXT...               a line, then pause
  whoami                      ask the API server what it knows about this pod's service account
  loop INTERVAL COMMAND...    one of these again and again`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	code, err := run(ctx, os.Args[1:])
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "workload:", err)
		code = 1
	}
	os.Exit(code)
}

func run(ctx context.Context, arguments []string) (int, error) {
	command := arguments
	for len(arguments) < 4 {
		arguments = append(arguments, "")
	}
	first, second, third := arguments[1], arguments[2], arguments[3]
	switch arguments[0] {
	case "", "pause":
		<-ctx.Done()
		return 0, nil
	case "print":
		for _, word := range command[1:] {
			fmt.Print(word, " ")
		}
		fmt.Println()
		<-ctx.Done()
		return 0, nil
	case "serve":
		return 0, serve(ctx, first)
	case "get":
		return 0, repeat(ctx, second, third, func() error { return get(ctx, first) })
	case "burn":
		d, err := time.ParseDuration(first)
		if err == nil {
			burn(ctx, d)
		}
		return 0, err
	case "write":
		size, err := strconv.Atoi(second)
		if err == nil {
			err = write(first, size)
		}
		return 0, err
	case "read":
		file, err := os.Open(first)
		if err != nil {
			return 1, err
		}
		defer file.Close()
		n, err := io.Copy(io.Discard, file)
		fmt.Println(n, "bytes")
		return 0, err
	case "allocate":
		size, err := strconv.Atoi(first)
		if err != nil {
			return 1, err
		}
		d, err := time.ParseDuration(second)
		if err != nil {
			return 1, err
		}
		held := bytes.Repeat([]byte{1}, size)
		sleep(ctx, d)
		fmt.Println(len(held), "bytes were held")
		return 0, nil
	case "fork":
		return 0, repeat(ctx, first, second, func() error { return exec.CommandContext(ctx, "/proc/self/exe", "exit", "0").Run() })
	case "exit":
		return strconv.Atoi(first)
	case "sleep":
		d, err := time.ParseDuration(first)
		sleep(ctx, d)
		return 0, err
	case "whoami":
		return 0, whoami(ctx)
	case "loop":
		interval, err := time.ParseDuration(first)
		if err != nil {
			return 1, err
		}
		for ctx.Err() == nil {
			if _, err := run(ctx, command[2:]); err != nil {
				fmt.Fprintln(os.Stderr, "workload:", err)
			}
			sleep(ctx, interval)
		}
		return 0, nil
	}
	return 2, errors.New(usage)
}

// repeat calls f so many times (once if count is empty), with an interval between.
func repeat(ctx context.Context, count, interval string, f func() error) error {
	n, d := 1, time.Duration(0)
	var err error
	if count != "" {
		if n, err = strconv.Atoi(count); err != nil {
			return err
		}
	}
	if interval != "" {
		if d, err = time.ParseDuration(interval); err != nil {
			return err
		}
	}
	for i := range n {
		if i > 0 {
			sleep(ctx, d)
		}
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func burn(ctx context.Context, d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end) && ctx.Err() == nil; {
	}
}

func write(path string, size int) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.Write(make([]byte, size)); err != nil {
		return err
	}
	return file.Sync()
}

func serve(ctx context.Context, address string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		name, _ := os.Hostname()
		fmt.Fprintln(w, name)
	})
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/burn", func(w http.ResponseWriter, r *http.Request) {
		d, err := time.ParseDuration(r.FormValue("for"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		burn(r.Context(), d)
	})
	mux.HandleFunc("/exit", func(w http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.FormValue("code"))
		os.Exit(code)
	})
	server := &http.Server{Addr: address, Handler: mux, ReadHeaderTimeout: time.Minute}
	context.AfterFunc(ctx, func() { server.Close() })
	err := server.ListenAndServe()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func get(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	fmt.Println(response.Status)
	_, err = io.Copy(os.Stdout, response.Body)
	return err
}

// whoami asks the API server as pods do: by the service's address and the service account's token.
func whoami(ctx context.Context) error {
	const directory = "/var/run/secrets/kubernetes.io/serviceaccount/"
	token, err := os.ReadFile(directory + "token")
	if err != nil {
		return err
	}
	authority, err := os.ReadFile(directory + "ca.crt")
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	host := os.Getenv("KUBERNETES_SERVICE_HOST") + ":" + os.Getenv("KUBERNETES_SERVICE_PORT")
	// A review of itself needs no rights but to be somebody.
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+host+"/apis/authentication.k8s.io/v1/selfsubjectreviews",
		bytes.NewBufferString(`{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}`))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+string(token))
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	fmt.Println(response.Status)
	_, err = io.Copy(os.Stdout, response.Body)
	return err
}
