package main

import (
	"io"
	"log"
	"net"
	"sync"
)

func listenTCP(s *service) (net.Listener, error) {
	return net.Listen("tcp4", "0.0.0.0:"+s.port)
}

// serveTCP accepts and dials; it accepts the next client only after the dial.
func serveTCP(listener net.Listener, s *service) {
	for {
		client, err := listener.Accept()
		if err != nil {
			if isTooManyFDs(err) {
				log.Fatal("accept failed: ", err)
			}
			continue
		}
		endpoint, err := dial(s)
		if err != nil {
			client.Close()
			continue
		}
		go proxyTCP(client, endpoint)
	}
}

// dial tries the endpoints in turn, each with a longer timeout.
func dial(s *service) (net.Conn, error) {
	var err error
	for _, timeout := range dialTimeouts {
		var conn net.Conn
		conn, err = net.DialTimeout("tcp4", s.next(), timeout)
		if err == nil {
			return conn, nil
		}
		if isTooManyFDs(err) {
			log.Fatal("dial failed: ", err)
		}
	}
	return nil, err
}

// proxyTCP copies in both directions until both have ended.
func proxyTCP(client, endpoint net.Conn) {
	var wait sync.WaitGroup
	wait.Add(2)
	go copyBytes(client, endpoint, &wait)
	go copyBytes(endpoint, client, &wait)
	wait.Wait()
}

func copyBytes(to, from net.Conn, wait *sync.WaitGroup) {
	defer wait.Done()
	_, _ = io.Copy(to, from)
	to.Close()
	from.Close()
}
