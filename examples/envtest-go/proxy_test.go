package shop

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

const deadline = 60 * time.Second

// serviceAddress is a line of the output of `userspace-proxy run --print-addresses=json`.
type serviceAddress struct {
	Namespace string
	Service   string
	Port      string
	// Address is empty if the Service port is no longer served.
	Address   string
	Endpoints int
}

// proxy is a running userspace-proxy.
type proxy struct {
	mutex     sync.Mutex
	changed   chan struct{}
	addresses map[string]serviceAddress
}

// startProxy serves the Services of a cluster until the test ends.
func startProxy(t *testing.T, kubeconfig []byte) *proxy {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, kubeconfig, 0o600); err != nil {
		t.Fatal(err)
	}
	program := os.Getenv("USERSPACE_PROXY")
	if program == "" {
		program = "userspace-proxy"
	}
	command := exec.Command(program, "run", "--steering=none", "--kubeconfig="+path,
		"--endpoints-from-pods", "--print-addresses=json", "--workers=1", "--state-dir=disabled",
		"--healthz-bind-address=disabled", "--metrics-bind-address=disabled")
	command.Stderr = os.Stderr
	lines, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	p := &proxy{changed: make(chan struct{}), addresses: map[string]serviceAddress{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.read(lines)
	}()
	t.Cleanup(func() {
		_ = command.Process.Signal(os.Interrupt)
		<-done
		_ = command.Wait()
	})
	return p
}

func (p *proxy) read(lines io.Reader) {
	scanner := bufio.NewScanner(lines)
	for scanner.Scan() {
		var line serviceAddress
		if err := json.Unmarshal(scanner.Bytes(), &line); err != nil {
			fmt.Fprintln(os.Stderr, "userspace-proxy:", scanner.Text())
			continue
		}
		p.mutex.Lock()
		p.addresses[fmt.Sprintf("%s/%s:%s", line.Namespace, line.Service, line.Port)] = line
		close(p.changed)
		p.changed = make(chan struct{})
		p.mutex.Unlock()
	}
}

// waitFor returns the address of a Service port, such as shop/web:http, once it has this many
// endpoints.
func (p *proxy) waitFor(t *testing.T, port string, endpoints int) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	for {
		p.mutex.Lock()
		found, changed := p.addresses[port], p.changed
		p.mutex.Unlock()
		if found.Address != "" && found.Endpoints == endpoints {
			return found.Address
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("%s does not have %d endpoints, but is %+v", port, endpoints, found)
		}
	}
}

// eventually waits for a condition, because a change is applied only some time after the API server stored it.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(deadline); !condition(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not so after %v: %s", deadline, what)
		}
	}
}
