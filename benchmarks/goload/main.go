// Goload is both ends of the benchmarks' traffic: the backends, and the clients that time them.
//
//	goload serve  --http 8080 --echo 7000 --udp 5353 …                  backends; "ready", then until killed
//	goload echo   --to IP:PORT --parallel 32 --seconds 2               connect, 64 bytes there and back, close
//	goload bulk   --to IP:PORT --streams 8 --seconds 2                 receive at the highest rate
//	goload udp    --to IP:PORT --sockets 16 --seconds 2                one datagram in flight per socket
//	goload hold   --to IP:PORT --connections 8000                      open and hold; talks for each line on stdin
//	goload open   --to IP:PORT --rate 5000 --connections 64            keep-alive requests at fixed times
//	goload request --to IP:PORT --writes 2 --server-writes 2 --nagle   as echo, with a server of whole requests
//	goload probe  --echo IP:PORT --udp IP:PORT --seconds 20            wait until both answer
//
// Each report is a line of JSON. There is one thread with one epoll, and no goroutine on the path, as
// goload must be much cheaper than any proxy between its two ends.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"
)

func main() {
	runtime.LockOSThread()
	debug.SetGCPercent(1000)
	commands := map[string]func(*flag.FlagSet) func() (any, error){
		"bulk": bulk, "echo": echo, "hold": hold, "open": open, "probe": probe,
		"request": request, "serve": serve, "udp": udp,
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: goload bulk|echo|hold|open|probe|request|serve|udp [flags]")
		os.Exit(2)
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	run := commands[os.Args[1]](flags)
	_ = flags.Parse(os.Args[2:])
	result, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "goload:", err)
		os.Exit(1)
	}
	_ = json.NewEncoder(os.Stdout).Encode(result)
}

// address is the value of a flag: IP:PORT.
type address struct{ syscall.SockaddrInet4 }

func (a *address) String() string { return "" }

func (a *address) Set(text string) error {
	parsed, err := netip.ParseAddrPort(text)
	if err != nil {
		return err
	}
	a.Addr, a.Port = parsed.Addr().As4(), int(parsed.Port())
	return nil
}

func toFlag(flags *flag.FlagSet) *address {
	to := &address{}
	flags.Var(to, "to", "whom to dial: IP:PORT")
	return to
}

// timings is the report of every timed exchange.
type timings struct {
	Count   int     `json:"count"`
	Seconds float64 `json:"seconds"`
	Errors  int     `json:"errors"`
	P50us   float64 `json:"p50_us"`
	P99us   float64 `json:"p99_us"`
	P999us  float64 `json:"p999_us"`
	MaxUs   float64 `json:"max_us"`
}

// summarize sorts the durations of exchanges, in nanoseconds.
func summarize(took []int64, elapsed int64, failed int) timings {
	slices.Sort(took)
	at := func(share float64) float64 {
		if len(took) == 0 {
			return 0
		}
		return float64(took[int(share*float64(len(took)-1))]) / 1e3
	}
	return timings{len(took), float64(elapsed) / 1e9, failed, at(0.5), at(0.99), at(0.999), at(1)}
}
