package main

import (
	"errors"
	"flag"
	"net"
	"strings"
	"time"
)

const (
	probeTimeout = 200 * time.Millisecond
	probePause   = 10 * time.Millisecond
)

// probe dials until each address echoes.
func probe(flags *flag.FlagSet) func() (any, error) {
	addresses := map[string]*string{
		"tcp": flags.String("echo", "", "IP:PORT of a TCP echo; empty: none"),
		"udp": flags.String("udp", "", "IP:PORT of a UDP echo; empty: none"),
	}
	seconds := flags.Float64("seconds", 10, "how long to try")
	return func() (any, error) {
		start := time.Now()
		for network, address := range addresses {
			for *address != "" && !answers(network, *address) {
				if time.Since(start).Seconds() > *seconds {
					return nil, errors.New("no answer from " + *address + "/" + strings.ToUpper(network))
				}
				time.Sleep(probePause)
			}
		}
		return map[string]float64{"seconds": time.Since(start).Seconds()}, nil
	}
}

func answers(network, address string) bool {
	conn, err := net.DialTimeout(network, address, probeTimeout)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(probeTimeout))
	if _, err := conn.Write([]byte("hello")); err != nil {
		return false
	}
	var buffer [16]byte
	count, err := conn.Read(buffer[:])
	return err == nil && count > 0
}
