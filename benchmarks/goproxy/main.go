// Goproxy carries Services as kube-proxy's userspace mode did; it is the benchmarks' yardstick.
//
//	goproxy --tcp 17001=10.244.0.2:8080,10.244.0.3:8080 --udp 17004=10.244.0.2:5353
//
// It has the form of the old mode, including its faults: the accept loop dials, with timeouts of
// 250 ms, 500 ms, 1 s and 2 s for up to four endpoints; a connection is two goroutines with io.Copy,
// which uses splice(2) here; the first EOF closes both sides; a UDP client is an entry in a map and a
// goroutine; and it exits when it is out of descriptors.
package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

var dialTimeouts = []time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second}

// service is a local port and its endpoints.
type service struct {
	port      string
	mu        sync.Mutex
	endpoints []string
	turn      int
}

// next returns the endpoints in turn.
func (s *service) next() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn = (s.turn + 1) % len(s.endpoints)
	return s.endpoints[s.turn]
}

// services collects the values of a repeated flag.
type services []*service

func (s *services) String() string { return fmt.Sprint(len(*s)) }

func (s *services) Set(text string) error {
	port, endpoints, found := strings.Cut(text, "=")
	if !found {
		return errors.New("want PORT=IP:PORT,…")
	}
	*s = append(*s, &service{port: port, endpoints: strings.Split(endpoints, ",")})
	return nil
}

func isTooManyFDs(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

func main() {
	var tcp, udp services
	flag.Var(&tcp, "tcp", "PORT=IP:PORT,… (repeat)")
	flag.Var(&udp, "udp", "PORT=IP:PORT,… (repeat)")
	udpTimeout := flag.Duration("udp-timeout", 250*time.Millisecond, "idle time of a UDP client, kube-proxy's default")
	flag.Parse()
	log.SetOutput(os.Stderr)
	for _, s := range tcp {
		listener, err := listenTCP(s)
		if err != nil {
			log.Fatal(err)
		}
		go serveTCP(listener, s)
	}
	for _, s := range udp {
		socket, err := listenUDP(s)
		if err != nil {
			log.Fatal(err)
		}
		go serveUDP(socket, s, *udpTimeout)
	}
	select {}
}
