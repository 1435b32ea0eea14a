// Goproxy carries Services the way kube-proxy's userspace mode did, as the yardstick of the
// benchmarks.
//
//	goproxy --tcp 17001=10.244.0.2:8080,10.244.0.3:8080 --udp 17004=10.244.0.2:5353
//
// Its form is that of the old mode, faults included: the dial is made in the accept loop, with
// 250 ms, 500 ms, 1 s and 2 s for up to four endpoints; a connection is two goroutines with
// io.Copy, which is splice(2) here; the first EOF closes both sides; a UDP client is an entry in
// a map and a goroutine; and it gives up when it is out of descriptors.
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

// service is one local port and the endpoints behind it.
type service struct {
	port      string
	mu        sync.Mutex
	endpoints []string
	turn      int
}

// next returns the endpoint whose turn it is.
func (s *service) next() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn = (s.turn + 1) % len(s.endpoints)
	return s.endpoints[s.turn]
}

// services collects what a repeated flag says.
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
